"""Every key of conf/ is part of a run's identity, or on the list of those that no result depends on."""

import copy
import functools
import inspect
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from helpers.composed import composed
from helpers.options import choices
from helpers.train import TINY, train_here

from fer_voting.config import flatten
from fer_voting.runs.identity import NOT_IDENTITY, batchnorm_ranks, identity, resolve
from fer_voting.runs.naming import name_run, name_word, run_name, settle, variant_of
from fer_voting.runs.run import Run, read_history

GROUPS = (
    *(
        "dataset",
        "protocol",
        "split",
        "voting",
        "model",
        "loss",
        "optimizer",
        "scheduler",
        "augment",
        "mix",
        "distillation",
        "callbacks",
    ),
    *("trainer", "logger", "experiment"),
)
CHOICES = choices(GROUPS)


@functools.cache  # Hydra takes a tenth of a second for each
def config_of(*words: str) -> dict[str, Any]:
    return resolve(composed(list(words)))


def changed(config: dict[str, Any], key: str) -> dict[str, Any]:
    """A copy of `config` with another value at the dotted `key`."""
    config = copy.deepcopy(config)
    node, rest = config, key  # a name may be a number, or have a dot in it
    while (last := next(name for name in node if f"{rest}.".startswith(f"{name}."))) and str(last) != rest:
        node, rest = node[last], rest.removeprefix(f"{last}.")
    node[last] = not node[last] if isinstance(node[last], bool) else "another value"
    return config


@pytest.mark.slow
@pytest.mark.parametrize("choice", CHOICES, ids=" ".join)
def test_a_key_changes_the_identity_or_is_listed_with_a_reason(choice: tuple[str, ...]) -> None:
    # Without a teacher and initial weights, `distillation` and `init_missing_classes` are not used.
    config = config_of(*choice, "teacher=some_run", "init_from=some_run")
    special = {"trainer.devices", "trainer.num_nodes", "trainer.sync_batchnorm"}  # below: batchnorm_ranks
    defaults = {} if choice == CHOICES[0] else flatten(config_of())  # which the first choice looks at
    for key in {
        key for key, value in flatten(config).items() if key not in defaults or value != defaults[key]
    } - special:
        listed = any(fnmatchcase(key, pattern) for pattern in NOT_IDENTITY)
        assert (identity(changed(config, key)) == identity(config)) == listed, key


def test_the_list_names_no_key_that_does_not_exist() -> None:
    keys = {key for choice in CHOICES for key in flatten(config_of(*choice, "teacher=some_run", "init_from=some_run"))}
    keys |= {f"trainer.{argument}" for argument in inspect.signature(L.Trainer).parameters}
    assert [p for p in NOT_IDENTITY if not any(fnmatchcase(key, p) for key in keys)] == []


COUNTED = {
    *("accumulate_grad_batches", "barebones", "benchmark", "check_val_every_n_epoch", "deterministic", "fast_dev_run"),
    *("gradient_clip_algorithm", "gradient_clip_val", "limit_predict_batches", "limit_test_batches"),
    *("limit_train_batches", "limit_val_batches", "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps"),
    *("overfit_batches", "plugins", "precision", "val_check_interval"),
}
"""Arguments of Lightning's Trainer that decide what is computed, or when a training ends."""
OWN = {"callbacks", "logger"}
"""Keys that `train` gives: groups of the configuration."""


def test_each_argument_of_lightnings_trainer_counts_or_is_listed() -> None:
    """A new release's new argument fails here until somebody has decided."""
    arguments = inspect.signature(L.Trainer).parameters.keys()
    listed = {key.removeprefix("trainer.").rstrip("*") for key in NOT_IDENTITY if key.startswith("trainer.")}
    assert arguments - listed - OWN - {"sync_batchnorm"} == COUNTED
    plain = config_of()
    for argument in arguments - OWN - {"devices", "num_nodes", "sync_batchnorm"}:
        other = copy.deepcopy(plain)
        other["trainer"][argument] = 7
        assert (identity(other) != identity(plain)) == (argument in COUNTED), argument


@pytest.mark.slow
def test_what_is_not_in_the_identity_changes_no_number(tmp_path: Path) -> None:
    """The same epochs, weights and predictions, bit for bit; the finished run answers to both commands."""
    words = ["+trainer.num_sanity_val_steps=2", "trainer.log_every_n_steps=3", "+trainer.enable_model_summary=true"]
    words += ["+trainer.enable_progress_bar=false", "+trainer.inference_mode=false", "+trainer.detect_anomaly=true"]
    words += [f"+trainer.default_root_dir={tmp_path}", "model.memory=lean"]
    results = {}
    for folder, own in (("plain", []), ("other", words)):
        train_here(tmp_path / folder, *TINY, *own)
        (run_dir,) = (tmp_path / folder / "runs").iterdir()
        run = Run(tmp_path / folder, run_dir.name)
        weights = torch.load(run.best_checkpoint("soft"), weights_only=True)["state_dict"]
        with np.load(run.predictions_file("soft", "test")) as file:
            logits = file["logits"]
        # How much memory a pass takes is measured, as its time is.
        history = [
            {key: value for key, value in row.items() if not key.startswith("memory/")}
            for row in read_history(run.metrics_file)
        ]
        results[folder] = run, history, weights, logits
    (plain, history, weights, logits), (other, *same) = results["plain"], results["other"]
    assert other.name == plain.name
    assert same[0] == history
    torch.testing.assert_close(same[1], weights, rtol=0, atol=0)
    np.testing.assert_array_equal(same[2], logits)
    before = plain.result()
    train_here(tmp_path / "plain", *TINY, *words)
    assert plain.result() == before


def test_memory_counts_in_a_network_of_ones_own() -> None:
    """There it may mean anything."""
    own = "model._target_=mine.Memory"
    assert identity(config_of("model.memory=lean")) == identity(config_of())
    assert identity(config_of(own, "model.memory=lean")) != identity(config_of(own))


def test_missing_classes_count_only_with_initial_weights() -> None:
    assert identity(config_of("init_missing_classes=random")) == identity(config_of())
    words = ["init_from=some_run", "init_missing_classes=random"]
    assert identity(config_of(*words)) != identity(config_of("init_from=some_run"))


def test_a_callback_of_a_users_own_is_part_of_the_identity() -> None:
    own = "+callbacks.average._target_=lightning.pytorch.callbacks.WeightAveraging"
    assert identity(config_of(own)) != identity(config_of())
    assert identity(config_of("~callbacks.throughput")) == identity(config_of())


def test_distillation_is_part_of_the_identity_only_with_a_teacher() -> None:
    plain = identity(config_of())
    assert not [key for key in plain if key.startswith(("distillation", "teacher"))]
    assert identity(config_of("distillation.temperature=9")) == plain
    distilled = identity(config_of("teacher=some_run"))
    assert {key: value for key, value in distilled.items() if key not in plain} == {
        "teacher": "some_run",
        "distillation.temperature": 4.0,
        "distillation.full_resolution": False,
        "distillation.hard_weight": 0.1,
        "distillation.vote": "soft",
    }


@pytest.mark.parametrize(
    ("trainer", "ranks"),
    [
        ({}, 1),
        ({"devices": 1}, 1),
        ({"devices": 4}, 4),
        ({"devices": "4"}, 4),
        ({"devices": [0, 2]}, 2),
        ({"devices": [0, 2], "num_nodes": 3}, 6),
        ({"devices": "0,1,3"}, 3),
        ({"devices": "0,", "num_nodes": 3}, 3),
        ({"devices": 2, "num_nodes": 3}, 6),
        ({"devices": "auto", "accelerator": "cpu"}, 1),
        ({"devices": "auto", "accelerator": "gpu"}, 4),
        ({"devices": -1, "num_nodes": 2}, 8),
        ({"devices": 4, "sync_batchnorm": True}, 4),
    ],
)
def test_ranks_that_divide_a_batch(trainer: dict[str, Any], ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert batchnorm_ranks({"trainer": trainer}) == ranks


def test_a_machine_without_a_gpu_trains_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert batchnorm_ranks({"trainer": {"devices": "auto", "accelerator": "auto"}}) == 1


def test_another_number_of_ranks_is_another_run_with_another_name() -> None:
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.strategy=ddp"]
    one, four = config_of(*words, "trainer.devices=1"), config_of(*words, "trainer.devices=4")
    joined = config_of(*words, "trainer.devices=4", "trainer.sync_batchnorm=true")
    assert identity(four) == identity(one) | {"batchnorm_ranks": 4}
    assert identity(joined)["batchnorm_ranks"] == 4  # a batch is still mixed, and dropout drawn, on each rank
    assert "ranks4" in name_run(composed([*words, "trainer.devices=4"]))


ERASED_AND_CROPPED = "erase.aspect_1_2-resized_crop.aspect_1_2"
SEVERAL = "sgd-cutmix-ema-decay0.9"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "variant"),
    [
        ([], ""),
        (["split=m3", "seed=4"], ""),
        (["experiment=demo"], "demo"),
        (["experiment=table3", "dataset=rafdb"], ""),
        (["model.width=16", "experiment=demo"], "demo"),
        (["model.width=8"], "width8"),
        (["target=valence_arousal"], "valence_arousal"),  # whose loss is its own
        (["target=valence_arousal", "loss=concordance", "model.width=8"], "valence_arousal-concordance-width8"),
        (["target=both", "loss@loss.numbers=concordance"], "both-numbersConcordanceLoss"),
        (["experiment=faces_valence_arousal", "target=both"], "faces_valence_arousal-both"),
        (["scheduler.lr_gamma_per_epoch=0.5"], "lr_gamma_per_epoch0.5"),
        (["scheduler=one_cycle", "scheduler.warm_up_share=0.2"], "one_cycle-warm_up_share0.2"),
        (["optimizer=sgd", "mix=cutmix", "callbacks=ema", "callbacks.average.multi_avg_fn.decay=0.9"], SEVERAL),
        (["loss.label_smoothing=0.1"], "label_smoothing0.1"),
        (["+trainer.accumulate_grad_batches=null"], "accumulate_grad_batchesNone"),
        (["teacher=m3"], "teacher_m3"),
        (["experiment=demo", "teacher=a-run", "distillation.temperature=2"], "demo-temperature2-teacher_a_run"),
        (["refit=true", "voting=hard"], ""),
        (["name=mine", "model.width=8"], "width8"),
        (["augment.rotation.probability=0.3"], "rotation.probability0.3"),
        (["augment.erase.probability=0.3"], "erase.probability0.3"),
        (["augment.erase.aspect=[1,2]", "augment.resized_crop.aspect=[1,2]"], ERASED_AND_CROPPED),
        (["~augment.erase"], "no_erase"),
        (["~augment.erase.probability"], "no_erase.probability"),
        (["experiment=demo", "trainer.precision=64-true"], "demo-precision64_true"),
        (["trainer=fast"], "fast"),
        (["trainer=fast", "tf32=false"], "fast-tf32False"),
        (["init_from=some.ckpt"], "from_some.ckpt"),
        (["init_from=some.ckpt", "init_missing_classes=random"], "init_missing_classesrandom-from_some.ckpt"),
        (["dataset=rafdb", "init_from=null"], "from_None"),
    ],
)
def test_variant_by_hand(words: list[str], variant: str) -> None:
    assert variant_of(composed(words)) == variant


def test_values_that_refer_to_the_name_have_the_name_that_the_run_gets() -> None:
    settled = settle(composed(["logger=[wandb,tensorboard,mlflow]"]))
    assert settled.name == settled.logger.wandb.name == settled.logger.mlflow.run_name == "faces-m1-seed0"
    folder = "outputs/runs/faces-m1-seed0"
    assert settled.logger.wandb.save_dir == settled.logger.tensorboard.save_dir == folder


def test_names_by_hand() -> None:
    assert run_name("faces", "m1", "", "", 0) == "faces-m1-seed0"
    assert run_name("faces", "m1", "demo", "hard", 2) == "faces-m1-demo-refit_hard-seed2"


@pytest.mark.parametrize(
    ("text", "word"),
    [("degrees30", "degrees30"), ("[0.5, 1.0]", "0.5_1.0"), ("../My run/X", "My_run_X"), ("_a_b.", "a_b")],
)
def test_words_of_a_name_by_hand(text: str, word: str) -> None:
    assert name_word(text) == word
