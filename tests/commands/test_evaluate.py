"""`python -m fer_voting.evaluate`: a run's own metrics again, at the checkpoint's size, classes matched by name."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TINY

from fer_voting.config import compose_with_choices
from fer_voting.evaluate import main
from fer_voting.runs.plan import plan_job
from fer_voting.runs.run import Run
from fer_voting.train import train

NAME = "mine"
SIZE = 24
"""Not the data sets' default."""
FACES = [word for word in TINY if word.startswith("dataset") and "schedule" not in word]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with split m3, trained once for this file."""
    outputs = tmp_path_factory.mktemp("evaluate") / "outputs"
    words = [*TINY, "split=m3", f"dataset.size={SIZE}", f"name={NAME}", f"output_dir={outputs}"]
    train(plan_job(words, *compose_with_choices(words)))
    return Run(outputs, NAME)


@pytest.fixture
def run_evaluate(trained: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """The command with `words` on the tiny data set; returns the folder of its files."""

    def run(*words: str) -> Path:
        folders = [f"output_dir={trained.dir.parent.parent}", f"out={tmp_path}"]
        monkeypatch.setattr(sys, "argv", ["evaluate", *folders, *FACES, *words])
        main()
        return tmp_path

    return run


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def metrics(run: Run, part: str, vote: str = "soft") -> dict[str, Any]:
    result = run.result()
    assert result is not None
    return result["votes"][vote][part]


@pytest.mark.parametrize("stage", ["val", "test"])
def test_it_finds_the_metrics_that_the_training_wrote(trained: Run, run_evaluate, stage: str, capsys):
    out = run_evaluate(f"checkpoint={NAME}", f"stage={stage}")
    found = read(out / f"{NAME}-on-faces-{stage}.json")
    assert found["votes"]["soft"] == metrics(trained, stage)
    assert found["images"] == 20
    assert (out / f"{NAME}-on-faces-{stage}.png").stat().st_size > 10_000
    assert "soft vote: accuracy" in capsys.readouterr().out


def test_images_have_the_size_that_the_network_was_trained_at(trained: Run, run_evaluate):
    for words in ([], [f"dataset.size={SIZE}"]):
        found = read(run_evaluate(f"checkpoint={NAME}", *words) / f"{NAME}-on-faces-test.json")
        assert found["image_size"] == SIZE
        assert found["data_fingerprint"] == trained.result()["data_fingerprint"]
    with pytest.raises(SystemExit, match=rf"dataset\.size=48 must be {SIZE}"):
        run_evaluate(f"checkpoint={NAME}", "dataset.size=48")


def test_classes_meet_by_name(trained: Run, run_evaluate, tmp_path: Path):
    """The same network with its outputs in another order, and with one class more, gives the same metrics."""
    checkpoint = torch.load(trained.best_checkpoint("soft"), weights_only=True)
    order = [6, 2, 0, 5, 1, 4, 3]
    names = checkpoint["fer_voting"]["class_names"]
    checkpoint["fer_voting"]["class_names"] = [*(names[i] for i in order), "contempt"]
    for key in ("net.fc.weight", "net.fc.bias"):
        rows = checkpoint["state_dict"][key]
        checkpoint["state_dict"][key] = torch.cat([rows[order], rows[:1] + 100])
    torch.save(checkpoint, tmp_path / "shuffled.ckpt")
    out = run_evaluate(f"checkpoint={tmp_path / 'shuffled.ckpt'}")
    found = read(out / "shuffled-on-faces-test.json")
    assert found["votes"]["soft"] == metrics(trained, "test")


def test_mistakes(trained: Run, run_evaluate, tmp_path: Path):
    checkpoint = torch.load(trained.best_checkpoint("soft"), weights_only=True)
    checkpoint["fer_voting"]["class_names"][6] = "contempt"
    torch.save(checkpoint, tmp_path / "lacking.ckpt")
    for words, told in (
        ([], "checkpoint is not set"),
        (["checkpoint=nobody"], "is missing, not finished"),
        (["checkpoint=no.ckpt"], "no.ckpt"),
        ([f"checkpoint={NAME}", "stage=train"], "stage=train must be val or test"),
        ([f"checkpoint={tmp_path / 'lacking.ckpt'}"], "not anger: it can't be judged on faces"),
    ):
        with pytest.raises(SystemExit, match=told):
            run_evaluate(*words)
