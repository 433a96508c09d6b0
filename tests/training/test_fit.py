"""Values that a run reads and records: inputs, device, precision."""

import contextlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.callbacks import SlowEpochs
from helpers.composed import composed
from helpers.datasets import class_folders
from helpers.processes import start
from helpers.train import TINY, train_here

from fer_voting.experiment import train
from fer_voting.runs.run import OtherInputsError, Run, read_history
from fer_voting.system.environment import describe_device

pytestmark = pytest.mark.slow

Train = Callable[..., Run]


def faces(root: Path, classes: tuple[str, ...], count: int = 10) -> Path:
    class_folders(root, {"train": dict.fromkeys(classes, count)}, {name: name for name in classes})
    return root


@pytest.fixture
def train_on(tmp_path: Path) -> Train:
    """The run `name` after a training of a second on the class folders in `root`."""

    def train_on(root: Path, name: str = "mine", *words: str) -> Run:
        words = (
            *("dataset=folder", f"dataset.root={root}", "dataset.size=24", "dataset.batch_size=4", "logger=none"),
            "plots=false",
            *("split=baseline", "model.width=4", "trainer.max_epochs=1", f"name={name}", "dataset.name=mine"),
            *(f"output_dir={tmp_path / 'outputs'}", *words),
        )
        train(composed(words))
        return Run(tmp_path / "outputs", name)

    return train_on


def test_a_finished_run_on_other_data_is_not_returned(train_on: Train, tmp_path: Path) -> None:
    three = faces(tmp_path / "three", ("happy", "sad", "fear"))
    two = faces(tmp_path / "two", ("happy", "sad"))
    run = train_on(three)
    before = (run.dir / "result.json").read_bytes()
    with pytest.raises(OtherInputsError) as error:
        train_on(two)
    message = str(error.value)
    inputs = json.loads((run.dir / "inputs.json").read_text())
    assert inputs["data"]["fingerprint"] in message
    assert "classes" in message
    assert "fear" in message
    assert (run.dir / "result.json").read_bytes() == before
    # The same content in another place is the same data.
    train_on(shutil.copytree(three, tmp_path / "copy"))
    assert (run.dir / "result.json").read_bytes() == before


def test_data_that_changed_since_is_not_continued(train_on: Train, tmp_path: Path) -> None:
    root = faces(tmp_path / "faces", ("happy", "sad"))
    run = train_on(root)
    result = run.result()
    assert result is not None
    run.write_result(result | {"status": "running"})  # as if killed
    next(root.rglob("*.jpg")).unlink()
    with pytest.raises(OtherInputsError, match="counts"):
        train_on(root)
    assert run.status() == "interrupted"


def test_other_initial_weights_under_the_same_path_are_another_run(train_on: Train, tmp_path: Path) -> None:
    root = faces(tmp_path / "faces", ("happy", "sad"))
    weights = tmp_path / "weights.ckpt"
    shutil.copy(train_on(root).best_checkpoint("soft"), weights)
    words = ("second", f"init_from={weights}")
    train_on(root, *words)
    train_on(root, *words)
    checkpoint = torch.load(weights, weights_only=True)
    checkpoint["state_dict"]["net.fc.bias"] += 1
    torch.save(checkpoint, weights)
    with pytest.raises(OtherInputsError, match=r"initial_weights\.sha256"):
        train_on(root, *words)


def test_a_run_records_the_device_it_trained_on(run_train: Callable[..., Path]) -> None:
    output_dir = run_train("split=baseline", "name=mine", "tf32=true", "trainer.max_epochs=1")
    result = Run(output_dir, "mine").result()
    assert result is not None
    trained_on = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    assert result["device"] == describe_device(trained_on)
    assert result["tf32"] is True
    assert torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "high"
    run_train("split=baseline", "name=other", "trainer.max_epochs=1")
    assert not torch.backends.cudnn.allow_tf32
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("split=m3", "dataset.size=8"), "a map of 2 pixels is too small for crops of 5/6"),
        (
            ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "dataset.batch_size=5"),
            r"dataset\.batch_size=5 is the global batch, and must divide into 2 ranks",
        ),
        (
            ("+trainer.check_val_every_n_epoch=9",),
            r"check_val_every_n_epoch \(=9\) must be 1 to trainer\.max_epochs",
        ),
        (("+trainer.limit_val_batches=0",), r"limit_val_batches \(=0\) above 0"),
        (("callbacks=ema", "trainer.precision=64-true"), r"trainer\.precision=64-true with averages of weights"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_packed(
    train_on: Train, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    root = faces(tmp_path / "faces", ("happy", "sad"))
    with pytest.raises(ValueError, match=message):
        train_on(root, "mine", *words)
    assert not (tmp_path / "outputs" / "packs").exists()


def test_a_continued_training_sees_the_images_of_its_epoch(tmp_path: Path) -> None:
    """Also where loader workers begin before Lightning has restored the epoch."""
    words = (*TINY, "dataset.size=24", "split=m3", "augment.backend=albumentations", "name=mine")
    train_here(tmp_path / "whole", *words)
    stop = "+callbacks.stop={_target_: helpers.callbacks.StepWitness, stop_after: 1}"
    with contextlib.suppress(KeyboardInterrupt):
        train_here(tmp_path / "continued", *words, stop)
    whole, run = (Run(tmp_path / folder, "mine") for folder in ("whole", "continued"))
    assert len(read_history(run.metrics_file)) == 1
    (run.dir / "inputs.json").unlink()  # the callback is part of the identity
    workers = ("dataset.num_workers=1", f"output_dir={tmp_path / 'continued'}")
    start("fer_voting.train", *words, *workers, printed=tmp_path / "printed").join(120)
    first, second = read_history(run.metrics_file)
    assert (tmp_path / "printed").read_text().count("faces: train: 60 images") == 1  # opened and divided once
    assert [first, second] == [pytest.approx(epoch, rel=1e-4) for epoch in read_history(whole.metrics_file)]


def test_a_kill_loses_the_seconds_of_one_epoch(tmp_path: Path) -> None:
    """result.json has the seconds up to the last epoch's end, whatever ends the process then."""
    words = (*TINY, "trainer.max_epochs=3", "name=mine", "+callbacks.slow._target_=helpers.callbacks.SlowEpochs")
    train_here(tmp_path, *words)
    before, *between = SlowEpochs.latest.recorded
    assert len(between) == 2
    for epochs, seconds in enumerate(between, start=1):
        assert seconds >= before + epochs * SlowEpochs.SECONDS - 0.1  # written with one digit
