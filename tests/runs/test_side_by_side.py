"""The launcher of local sweeps: order, failure, needs, cores, memory, and the results of jobs side by side."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from helpers.train import TINY, train_here
from hydra.core.hydra_config import HydraConfig

from fer_voting.config import command
from fer_voting.runs.run import Run
from fer_voting.system import machine
from fer_voting.system.arrays import read_npz

pytestmark = pytest.mark.slow


FIXED = ("model.width=4", "dataset.size=24", "sweep=mine", "output_dir={}")
"""Words of every sweep; the launcher measures a small network faster."""


class Trace:
    """A task of the launcher that writes when it began and ended, and the environment that it has.

    Args:
        begun: a job's words -> number of jobs that have to have begun before it ends, however slow the machine is.
    """

    def __init__(self, folder: Path, begun: Callable[[str], int]) -> None:
        self.folder, self.begun = folder, begun

    def __call__(self, config: Any) -> Any:
        own = HydraConfig.get().overrides.task[: -len(FIXED)]
        name = "-".join(word for word in own if not word.startswith("jobs")).lower()
        begun = time.monotonic()
        if "seed=9" in name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "seed=8" in name:
            raise ValueError("seed 8 is no good")
        (self.folder / f"{name}.begun").touch()
        time.sleep(0.3)
        deadline = time.monotonic() + 120
        while len(list(self.folder.glob("*.begun"))) < self.begun(name) and time.monotonic() < deadline:
            time.sleep(0.01)
        entry = {"begun": begun, "ended": time.monotonic(), "cores": machine.usable_cores(), "pid": os.getpid()}
        (self.folder / f"{name}.json").write_text(json.dumps(entry))
        return {"status": "finished", "seconds": time.monotonic() - begun}


def sweep(folder: Path, *words: str, begun: Callable[[str], int] = lambda _: 1) -> dict[str, dict[str, Any]]:
    """Run a sweep of `Trace`: words of each job -> its entry."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", "-m", *words, *(word.format(folder) for word in FIXED)])
        with pytest.raises(SystemExit):  # nothing was trained, so the sweep's table lacks every run
            command(Trace(folder, begun))
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


def most_at_once(entries: dict[str, dict[str, Any]]) -> int:
    return max(
        sum(other["begun"] <= entry["begun"] < other["ended"] for other in entries.values())
        for entry in entries.values()
    )


def test_jobs_run_side_by_side_the_longest_first_with_a_share_of_the_cores_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    cores = len(os.sched_getaffinity(0))  # of the jobs' processes too
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setenv(machine.CORES_VARIABLE, "4")
    entries = sweep(tmp_path, "trainer.max_epochs=1,5,3", "jobs=2", begun=lambda _: 2)
    assert most_at_once(entries) == 2
    assert len({os.getpid(), *(entry["pid"] for entry in entries.values())}) == 4
    assert {entry["cores"] for entry in entries.values()} == {min(2, cores)}
    order = sorted(entries, key=lambda name: entries[name]["begun"])
    assert order[-1] == "trainer.max_epochs=1"


def test_jobs_1_runs_one_after_another(tmp_path: Path):
    entries = sweep(tmp_path, "seed=0,1", "jobs=1")
    assert most_at_once(entries) == 1
    assert len(entries) == 2


@pytest.mark.parametrize("launcher", ["local", "slurm_local"])
def test_the_votes_of_one_training_and_what_a_refit_needs_wait_for_each_other(tmp_path: Path, launcher: str):
    cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Slurm's jobs don't find this module
    words = ("refit=true,false", "voting=soft,hard", "jobs=4", f"hydra/launcher={launcher}")
    entries = sweep(tmp_path, *words, begun=lambda name: 4 if name.startswith("refit=true") else 1)
    begun = {name: entry["begun"] for name, entry in entries.items()}
    ended = {name: entry["ended"] for name, entry in entries.items()}
    selections = [name for name in entries if name.startswith("refit=false")]
    refits = [name for name in entries if name.startswith("refit=true")]
    first, second = sorted(selections, key=lambda name: begun[name])  # of one run
    assert ended[first] <= begun[second]
    assert all(ended[second] <= begun[name] for name in refits)
    assert begun[refits[0]] < ended[refits[1]]  # two runs, side by side
    assert begun[refits[1]] < ended[refits[0]]


def test_a_job_that_fails_or_is_killed_ends_no_other(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    entries = sweep(tmp_path, "seed=0,8,9,1", "jobs=2")
    assert list(entries) == ["seed=0", "seed=1"]
    printed = capfd.readouterr().err
    assert "faces-m1-size24-width4-seed8: failed: seed 8 is no good" in printed
    assert "faces-m1-size24-width4-seed9: failed: the job's process was killed by SIGKILL" in printed


def test_memory_limits_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    monkeypatch.setattr(machine, "usable_cores", lambda: 3)
    monkeypatch.setattr(machine, "available_mib", lambda: 1.0)
    entries = sweep(tmp_path, "seed=0,1")
    assert most_at_once(entries) == 1
    assert "memory suffices for 1 of the jobs at once" in capfd.readouterr().err


@pytest.mark.parametrize("words", [["jobs=0"], ["jobs=two"], ["jobs_per_gpu=0"]])
def test_a_wrong_number_of_jobs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]):
    monkeypatch.setattr(sys, "argv", ["x", "-m", "seed=0,1", *words, f"output_dir={tmp_path}"])
    with pytest.raises(SystemExit, match=f"error: .*{words[0]}"):
        command(Trace(tmp_path, lambda _: 1))


def test_side_by_side_gives_the_results_of_one_after_another_bit_for_bit(tmp_path: Path):
    words = (*TINY, "split=baseline,m1", "threads=1", "sweep=mine", "voting=soft")
    for jobs in (1, 2):
        train_here(tmp_path / str(jobs), "-m", *words, f"jobs={jobs}")
    names = sorted(path.name for path in (tmp_path / "1" / "runs").iterdir())
    assert len(names) == 2
    for name in names:
        one, other = (Run(tmp_path / str(jobs), name) for jobs in (1, 2))
        assert one.metrics_file.read_text() == other.metrics_file.read_text()
        logits = [read_npz(run.predictions_file("soft", "test"))["logits"] for run in (one, other)]
        np.testing.assert_array_equal(*logits)
