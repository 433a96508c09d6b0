"""Trainings with a teacher: what they need, what they record, and that the student learns the teacher's outputs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from helpers.composed import composed
from helpers.networks import SEVEN, noise, write_checkpoint
from helpers.train import TINY
from hydra.errors import InstantiationException

from fer_voting.experiment import find_sources, make_data, make_distillation, make_module, train
from fer_voting.face_input import FaceInput
from fer_voting.models.images import as_grey, normalise
from fer_voting.networks import load_network, match_classes
from fer_voting.runs.naming import settle
from fer_voting.runs.run import OtherInputsError, Run, read_history
from fer_voting.training.losses import Distillation
from fer_voting.votes import VOTES

pytestmark = pytest.mark.slow

QUICK = (*TINY, "dataset.size=24", "trainer.max_epochs=1")


def plan(output_dir: Path, *words: str) -> dict:
    words = (*QUICK, f"output_dir={output_dir}", *words)
    return settle(composed(words))


def distillation_by(tmp_path: Path, is_grey: bool = False, **info: Any) -> Distillation:
    """A teacher whose information is changed, for images in colour unless `is_grey`."""
    network = load_network(write_checkpoint(tmp_path / "teacher.ckpt"))
    network = replace(network, info=replace(network.info, **info))
    pack = SimpleNamespace(is_grey=is_grey)
    data: Any = SimpleNamespace(class_names=network.info.class_names, name="mine", size=24, pack=pack)
    source: Any = SimpleNamespace(load_network=lambda: network)
    distillation = make_distillation(composed(["teacher=m3"]), data, source)
    assert distillation is not None
    return distillation


def test_a_teacher_of_grey_images_sees_grey(tmp_path: Path) -> None:
    faces = torch.from_numpy(noise(6))
    colour, grey = (normalise(images.permute(0, 3, 1, 2)) for images in (faces, as_grey(faces)))
    knows_grey = distillation_by(tmp_path, faces=FaceInput(colour="grey"))
    expected = distillation_by(tmp_path).soft_targets(grey)
    torch.testing.assert_close(knows_grey.soft_targets(colour), expected, rtol=0, atol=1e-3)
    assert (distillation_by(tmp_path).soft_targets(colour) - expected).abs().max() > 0.01
    data_are_grey = distillation_by(tmp_path, is_grey=True, faces=FaceInput(colour="grey"))
    assert torch.equal(data_are_grey.soft_targets(grey), expected)  # as they are, in every bit


def test_a_teacher_of_numbers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"teacher=m3 predicts valence and arousal"):
        distillation_by(tmp_path, class_names=SEVEN[:5], number_names=("valence", "arousal"))


def seen_in_two_steps(tmp_path: Path, *words: str) -> dict[str, list[torch.Tensor]]:
    """The images that the student and its teacher are given in the first two steps of a training."""
    teacher = write_checkpoint(tmp_path / "teacher.ckpt", split="baseline")
    words = ("split=baseline", f"teacher={teacher}", "augment=low_resolution", "mix=mixup", "name=seen", *words)
    config = settle(composed([*QUICK, f"output_dir={tmp_path}", "augment.low_resolution.probability=0.7", *words]))
    data = make_data(config)
    data.setup()
    module = make_module(config, data, VOTES["soft"], find_sources(config))
    seen: dict[str, list[torch.Tensor]] = {"student": [], "teacher": []}
    assert module.distillation is not None
    for who, net in (("student", module.net), ("teacher", module.distillation.teacher)):
        net.register_forward_pre_hook(lambda net, inputs, who=who: seen[who].append(inputs[0].detach().clone()))
    L.Trainer(
        max_steps=2, limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False
    ).fit(module, data)
    return seen


def test_a_teacher_at_full_resolution_sees_the_same_images_before_it_is_lowered(tmp_path: Path) -> None:
    """Also where images are mirrored after that, and mixed."""
    mirror = "+augment.flip.probability=0.5"
    usual = seen_in_two_steps(tmp_path, mirror)
    full = seen_in_two_steps(tmp_path, mirror, "distillation.full_resolution=true")
    never_lowered = seen_in_two_steps(tmp_path, mirror, "augment.low_resolution.probability=0")
    assert len(full["teacher"]) == 2
    for step in range(2):
        assert torch.equal(full["student"][step], usual["student"][step])
        assert torch.equal(full["student"][step], usual["teacher"][step])
        assert torch.equal(full["teacher"][step], never_lowered["student"][step])
        changed = (full["teacher"][step] != full["student"][step]).flatten(1).any(1).float().mean()
        assert changed > 0.5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("augment=paper",), r"e\.g\. augment=low_resolution"),
        (("augment=low_resolution", "augment.backend=albumentations"), r"needs that step and augment\.backend=batched"),
        (("distillation.full_resolution=maybe",), r"full_resolution=maybe must be true or false"),
    ],
)
def test_full_resolution_without_what_it_needs(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    teacher = write_checkpoint(tmp_path / "teacher.ckpt")
    with pytest.raises(InstantiationException, match=message):
        train(plan(tmp_path, "name=mine", f"teacher={teacher}", "distillation.full_resolution=true", *words))


def test_a_split_as_teacher_is_the_run_of_the_same_words(tmp_path: Path) -> None:
    """The teacher has the same seed and data, and the width of its data set or experiment, without the overrides that
    only the student has."""
    words = ["experiment=demo", "seed=2", "split=baseline", "teacher=m3", "model.width=8", "distillation.temperature=2"]
    planned = settle(composed(words))
    assert planned["name"] == "faces-baseline-demo-temperature2-width8-teacher_m3-seed2"
    assert planned["teacher"] == "faces-m3-demo-seed2"
    overrides = ["experiment=demo", "seed=2", "split=m3"]
    assert planned["composition"]["needs"]["teacher"] == {
        "run": "faces-m3-demo-seed2",
        "overrides": overrides,
        "of": "m3",
    }
    refit = settle(composed([*words, "refit=true"]))
    assert refit["teacher"] == "faces-m3-demo-seed2"


def test_a_teacher_that_is_missing_is_named_before_anything_is_packed(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"split=m3 \(or name another: teacher=\.\.\.\)"):
        train(plan(tmp_path, "split=baseline", "teacher=m3"))
    with pytest.raises(FileNotFoundError, match=r"teacher=no\.ckpt: no\.ckpt does not exist"):
        train(plan(tmp_path, "teacher=no.ckpt"))
    assert not (tmp_path / "packs").exists()


@pytest.mark.parametrize(
    ("classes", "size", "message"),
    [(("happy", "sad"), 24, r"teacher=.*knows the classes happy, sad, not"), (None, 32, r"images of 24 pixels")],
)
def test_a_teacher_that_does_not_fit(tmp_path: Path, classes: tuple[str, ...] | None, size: int, message: str) -> None:
    teacher = write_checkpoint(tmp_path / "teacher.ckpt", **({"classes": classes} if classes else {}))
    with pytest.raises(ValueError, match=message):
        train(plan(tmp_path, "name=mine", f"teacher={teacher}", f"dataset.size={size}"))


def test_another_teacher_under_the_same_path_is_another_run(tmp_path: Path) -> None:
    teacher = write_checkpoint(tmp_path / "teacher.ckpt")
    config = plan(tmp_path, "split=baseline", "name=mine", f"teacher={teacher}")
    train(config)
    inputs = json.loads((tmp_path / "runs/mine/inputs.json").read_text())
    assert len(inputs["teacher"]["sha256"]) == 64
    train(config)  # finished, and returned
    write_checkpoint(teacher, seed=1)
    with pytest.raises(OtherInputsError, match=r"teacher\.sha256"):
        train(config)


def test_a_student_learns_the_outputs_of_its_teacher_and_not_the_labels(
    tmp_path: Path, run_train: Callable[..., Path]
) -> None:
    """Without weight for the labels, its probabilities come near the teacher's, whose decisions are arbitrary."""
    teacher = write_checkpoint(tmp_path / "teacher.ckpt", seed=3)
    words = (
        "split=baseline",
        "dataset.size=24",
        "optimizer.lr=3e-3",
        "augment=none",
        f"teacher={teacher}",
        "model.width=8",
    )
    output_dir = run_train(
        *words,
        "name=mine",
        "trainer.max_epochs=6",
        "scheduler.lr_gamma_per_epoch=1",
        "distillation.hard_weight=0",
        "dataset.batch_size=10",
        "distillation.temperature=1",
    )
    run = Run(output_dir, "mine")
    history = read_history(run.metrics_file)
    assert history[-1]["train/loss"] < 0.05  # with labels that the teacher does not give, it would stay above 0.1
    checkpoint = torch.load(run.best_checkpoint("soft"), weights_only=True)
    assert not [key for key in checkpoint["state_dict"] if not key.startswith("net.")]  # the teacher is not in it
    left_out = match_classes(load_network(teacher), ("neutral", "happy"), "faces")[1]
    assert left_out == [
        "sad",
        "surprise",
        "fear",
        "disgust",
        "anger",
    ]
