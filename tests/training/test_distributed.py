"""One training over two processes (gloo, on the CPU), from the command line."""

import csv
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.processes import start
from helpers.train import REPO, TINY

from fer_voting.config import command, compose, make
from fer_voting.runs.identity import resolve
from fer_voting.runs.run import Run
from fer_voting.votes import VOTES

pytestmark = pytest.mark.slow

TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
UNEVEN = ("dataset.train_size=61", "dataset.val_size=21")
"""Numbers of images that two ranks cannot share equally."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder of a sweep whose one job trains on two ranks."""
    folder = tmp_path_factory.mktemp("distributed")
    witness = f"+callbacks.witness={{_target_: helpers.callbacks.RankWitness, folder: {folder}}}"
    words = [*TINY, *TWO, *UNEVEN, "split=m3", "name=two", "logger=offline", witness]
    code, printed = train(folder, "-m", *words)
    assert code == 0, printed
    assert printed.count("21 images") == 1, "only rank 0 prints"
    return folder / "outputs"


def train(folder: Path, *words: str) -> tuple[int | None, str]:
    """Exit code and output of the command in a process of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), str(REPO / "tests")]))  # for the other rank
        words = (*words, f"output_dir={folder / 'outputs'}")
        process = start("fer_voting.train", *words, printed=folder / "printed")
    process.join(240)
    return process.exitcode, (folder / "printed").read_text()


def test_each_image_of_an_epoch_is_seen_once_over_the_ranks(outputs: Path):
    first, second = (json.loads((outputs.parent / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert len(first) == len(second) == 2
    for epoch in range(2):
        assert len(first[epoch]) == len(second[epoch]) == 31
        together = np.bincount(first[epoch] + second[epoch])
        assert (together > 0).sum() == 61
        assert together.sum() == 62, "one image is given twice, so that both ranks take as many steps"


def test_the_ranks_end_with_the_same_weights_and_statistics(outputs: Path):
    first, second = (torch.load(outputs.parent / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first if key.startswith("net."))


def test_one_rank_tells_the_tracker(outputs: Path):
    assert len(list(Run(outputs, "two").dir.glob("wandb/offline-run-*"))) == 1


def test_predictions_are_complete_and_in_order(outputs: Path):
    run = Run(outputs, "two")
    config = resolve(compose([*TINY, *UNEVEN, f"output_dir={outputs}"]))
    datamodule = make(config["dataset"])
    datamodule.setup()
    for stage in ("val", "test"):
        with np.load(run.predictions_file("hard", stage)) as saved:
            assert saved["names"].tolist() == datamodule.names(stage)
            assert saved["labels"].tolist() == [batch for b in batches(datamodule, stage) for batch in b]


def batches(datamodule, stage: str) -> list[list[int]]:
    loader = datamodule.val_dataloader() if stage == "val" else datamodule.test_dataloader()
    return [labels.tolist() for _, labels, _ in loader]


def test_the_result_is_what_one_process_makes_of_the_checkpoint(outputs: Path, tmp_path: Path):
    run = Run(outputs, "two")
    result = run.result()
    assert result is not None
    assert (result["status"], result["ranks"]) == ("finished", 2)
    with run.metrics_file.open() as file:
        rows = list(csv.DictReader(file))
    for vote in VOTES:
        best = max(float(row[f"val/{vote}/accuracy"]) for row in rows)
        assert result["votes"][vote]["val"]["accuracy"] == pytest.approx(best)
    faces = [word for word in TINY if word.startswith("dataset") and "schedule" not in word]
    where = [f"output_dir={outputs}", f"out={tmp_path}"]
    for part in ("val", "test"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["evaluate", "checkpoint=two", f"stage={part}", *faces, *UNEVEN, *where])
            command("fer_voting.evaluate:job", "evaluate")
        found = json.loads((tmp_path / f"two-on-faces-{part}.json").read_text())["votes"]["soft"]
        expected = result["votes"]["soft"][part]
        assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(("how", "named"), [("raise", "rank 1: no good"), ("kill", "remote worker")])
def test_a_rank_that_fails_ends_the_run_and_is_named(tmp_path: Path, how: str, named: str):
    """It fails in its first step: it has composed its configuration, also from the user's own conf folder."""
    (tmp_path / "conf" / "loss").mkdir(parents=True)
    (tmp_path / "conf" / "loss" / "own.yaml").write_text("_target_: fer_voting.training.losses.FocalLoss\n")
    bad = f"+callbacks.bad={{_target_: helpers.callbacks.EndsRankOne, how: {how}}}"
    own = ("loss=own", "--config-dir", str(tmp_path / "conf"))
    code, printed = train(tmp_path, *TINY, *TWO, "split=baseline", "dataset.size=24", "name=bad", bad, *own)
    assert code not in (0, None)
    run = Run(tmp_path / "outputs", "bad")
    if run.status() == "interrupted":  # Lightning ended rank 0 before it noticed
        named = "terminated with code -9"
    else:
        assert run.status() == "failed"
    assert named in printed
    if how == "raise":
        assert "Traceback" not in printed.partition("rank 1: no good")[0]
        assert run.error_of_rank(1).read_text() == "no good"
