"""`python -m fer_voting.evaluate`: a run's own figures again, and classes that meet by name."""

import json
import sys
from pathlib import Path

import pytest
import torch
from tiny import TINY

from fer_voting.evaluate import main
from fer_voting.runs.run import Run

NAME = "mine"
FACES = [word for word in TINY if word.startswith("dataset") and "schedule" not in word]


@pytest.fixture
def trained(run_train) -> Run:
    return Run(run_train("split=m3", f"name={NAME}"), NAME)


@pytest.fixture
def run_evaluate(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(*words: str) -> Path:
        monkeypatch.setattr(sys, "argv", ["evaluate", f"output_dir={tmp_path / 'outputs'}", *words])
        main()
        return tmp_path / "outputs" / "evaluations"

    return run


@pytest.mark.parametrize("stage", ["val", "test"])
def test_it_finds_the_figures_that_the_training_wrote(trained: Run, run_evaluate, stage: str, capsys):
    out = run_evaluate(f"checkpoint={NAME}", f"stage={stage}", *FACES)
    found = json.loads((out / f"{NAME}-on-faces-{stage}.json").read_text())
    assert found["votes"]["soft"] == trained.result()["votes"]["soft"][stage]
    assert found["images"] == 20
    assert (out / f"{NAME}-on-faces-{stage}.png").stat().st_size > 10_000
    assert "soft vote: accuracy" in capsys.readouterr().out


def test_classes_meet_by_name(trained: Run, run_evaluate, tmp_path: Path):
    """The same network with its outputs in another order, and with one class more, says the same."""
    checkpoint = torch.load(trained.best_checkpoint("soft"), weights_only=True)
    order = [6, 2, 0, 5, 1, 4, 3]
    names = checkpoint["fer_voting"]["class_names"]
    checkpoint["fer_voting"]["class_names"] = [*(names[i] for i in order), "contempt"]
    for key in ("net.fc.weight", "net.fc.bias"):
        rows = checkpoint["state_dict"][key]
        checkpoint["state_dict"][key] = torch.cat([rows[order], rows[:1] + 100])
    torch.save(checkpoint, tmp_path / "shuffled.ckpt")
    out = run_evaluate(f"checkpoint={tmp_path / 'shuffled.ckpt'}", *FACES)
    found = json.loads((out / "shuffled-on-faces-test.json").read_text())
    assert found["votes"]["soft"] == trained.result()["votes"]["soft"]["test"]


def test_mistakes(trained: Run, run_evaluate, tmp_path: Path):
    checkpoint = torch.load(trained.best_checkpoint("soft"), weights_only=True)
    checkpoint["fer_voting"]["class_names"][6] = "contempt"
    torch.save(checkpoint, tmp_path / "lacking.ckpt")
    for words, told in (
        ([], "checkpoint is not set"),
        (["checkpoint=nobody"], "is missing, not finished"),
        (["checkpoint=no.ckpt"], "there is no checkpoint at no.ckpt"),
        ([f"checkpoint={NAME}", "stage=train"], "stage=train must be val or test"),
        ([f"checkpoint={tmp_path / 'lacking.ckpt'}"], "not anger: it can't be judged on faces"),
    ):
        with pytest.raises(SystemExit, match=told):
            run_evaluate(*words, *FACES)
