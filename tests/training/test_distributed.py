"""One training over several processes, from the command line: gloo on the processor."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import REPO, TINY

from fer_voting.config import compose_config
from fer_voting.data.module import make_datamodule
from fer_voting.evaluate import evaluate
from fer_voting.runs.identity import resolve
from fer_voting.runs.run import Run
from fer_voting.system.messages import set_up_messages
from fer_voting.votes import VOTES

TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a sweep whose one job trains on two ranks."""
    folder = tmp_path_factory.mktemp("distributed")
    witness = f"+callbacks.witness={{_target_: rank_callbacks.Witness, folder: {folder}}}"
    words = [*TINY, *TWO, "split=m3", "dataset.train_size=61", "dataset.val_size=21", "name=two", witness]
    process = subprocess.run(
        [sys.executable, "-m", "fer_voting.train", "-m", *words, "output_dir=outputs"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "tests")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert process.returncode == 0, process.stdout
    assert process.stdout.count("21 images") == 1, "only the first rank speaks"
    return folder / "outputs"


def test_each_image_of_an_epoch_is_seen_once_over_the_ranks(outputs: Path):
    first, second = (json.loads((outputs.parent / f"rank{rank}.json").read_text()) for rank in (0, 1))
    assert len(first) == len(second) == 2
    for epoch in range(2):
        assert len(first[epoch]) == len(second[epoch]) == 31
        together = np.bincount(first[epoch] + second[epoch])
        assert (together > 0).sum() == 61
        assert together.sum() == 62, "one image fills the gap"


def test_the_ranks_end_with_the_same_weights_and_statistics(outputs: Path):
    first, second = (torch.load(outputs.parent / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first if key.startswith("net."))


def test_predictions_are_complete_and_in_order(outputs: Path):
    run = Run(outputs, "two")
    config = resolve(compose_config([*TINY, "dataset.train_size=61", "dataset.val_size=21", f"output_dir={outputs}"]))
    datamodule = make_datamodule(config["dataset"])
    datamodule.setup()
    for stage in ("val", "test"):
        with np.load(run.predictions_file("hard", stage)) as saved:
            assert saved["names"].tolist() == datamodule.names(stage)
            assert saved["labels"].tolist() == [batch for b in batches(datamodule, stage) for batch in b]


def batches(datamodule, stage: str) -> list[list[int]]:
    loader = datamodule.val_dataloader() if stage == "val" else datamodule.test_dataloader()
    return [labels.tolist() for _, labels, _ in loader]


def test_the_result_is_what_one_process_makes_of_the_checkpoint(outputs: Path):
    run = Run(outputs, "two")
    result = run.result()
    assert result is not None
    assert (result["status"], result["ranks"]) == ("finished", 2)
    with run.metrics_file.open() as file:
        rows = list(csv.DictReader(file))
    for vote in VOTES:
        checkpoint = run.best_checkpoint(vote)
        words = [*(w for w in TINY if w.startswith("dataset")), "dataset.train_size=61", "dataset.val_size=21"]
        for stage in ("val", "test"):
            config = judge(*words, f"checkpoint={checkpoint}", f"output_dir={outputs}", f"stage={stage}")
            recorded = result["votes"][vote][stage]
            found = evaluate(config)[1]["votes"][vote]
            assert {key: found[key] for key in recorded} == recorded
        best = max(float(row[f"val/{vote}/accuracy"]) for row in rows)
        assert result["votes"][vote]["val"]["accuracy"] == pytest.approx(best)


def judge(*words: str) -> dict:
    from hydra import compose, initialize_config_dir

    from fer_voting.config import CONF_DIR

    set_up_messages()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return resolve(compose("evaluate", list(words)))


@pytest.mark.parametrize(("how", "told"), [("raise", "rank 1: no good"), ("kill", "rank 1: .*killed by SIGKILL")])
def test_a_rank_that_fails_ends_the_run_and_is_named(run_train, tmp_path: Path, how: str, told: str):
    bad = f"+callbacks.bad={{_target_: rank_callbacks.EndsRankOne, how: {how}}}"
    with pytest.raises(SystemExit, match=f"error: .*{told}"):
        run_train(*TWO, "split=baseline", "name=bad", bad)
    run = Run(tmp_path / "outputs", "bad")
    assert run.status() == "failed"
    assert "LOCAL_RANK" not in os.environ
