"""Slurm's queue and the launcher's wait, with a `squeue` that says what a test wants."""

import os
import pickle
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from fer_voting.config import command
from fer_voting.results.sweep_table import sweep_status
from fer_voting.runs import slurm
from fer_voting.runs.slurm import QueuedJob, SlurmJob, queue
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.messages import set_up_messages


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with what `squeue` prints; there is an `srun`, too, as on any machine that belongs to a cluster."""
    answer = tmp_path / "bin" / "answer"
    answer.parent.mkdir()
    for name in ("squeue", "srun", "scancel"):
        program = answer.with_name(name)
        program.write_text(f"#!/bin/sh\necho {name} $* >> {answer.parent}/asked\ncat {answer} || exit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{answer.parent}{os.pathsep}{os.environ['PATH']}")
    return answer


def test_the_queue_of_arrays(squeue: Path):
    squeue.write_text("17_0|PENDING|Resources\n17_1|RUNNING|None\n18|OUT_OF_MEMORY|OutOfMemory\n")
    jobs = queue(["17_0", "17_1", "18"])
    assert jobs is not None
    assert jobs["17_0"] == QueuedJob("PENDING", "Resources")
    assert {each: (job.waits, job.ended) for each, job in jobs.items()} == {
        "17_0": (True, False),
        "17_1": (False, False),
        "18": (False, True),
    }
    assert "--jobs=17,18 " in squeue.with_name("asked").read_text()


def test_a_queue_that_does_not_answer_is_not_an_empty_one(squeue: Path, monkeypatch: pytest.MonkeyPatch):
    assert queue(["17"]) is None
    squeue.write_text("")
    assert queue(["17"]) == {}
    squeue.with_name("squeue").write_text("#!/bin/sh\necho slurm_load_jobs error: Invalid job id specified >&2; exit 1")
    assert queue(["17"]) == {}
    monkeypatch.setenv("PATH", "")
    assert queue(["17"]) is None


def sweep_of(folder: Path, *runs: str) -> Sweep:
    sweep = Sweep(folder / "outputs" / "sweeps" / "mine")
    sweep.write([], [{"overrides": [], "run": run, "voting": "soft"} for run in runs])
    return sweep


def test_the_status_of_jobs_in_the_queue(squeue: Path, tmp_path: Path):
    sweep = sweep_of(tmp_path, "a", "b", "c")
    sweep.write_slurm_jobs({"a soft": "17_0", "b soft": "17_1", "c soft": "17_2"})
    squeue.write_text("17_0|PENDING|Priority\n17_1|RUNNING|None\n17_2|CANCELLED|None\n")
    assert [state.status for state in sweep.states()] == ["queued", "running", "missing"]
    text, unfinished = sweep_status(sweep)
    assert "a: waits in Slurm's queue (Priority)\n" in text
    assert unfinished == 3


@pytest.mark.parametrize("content", ["[]", '{"a soft": 3}', '{"a soft": "--help"}', '{"": "17"}', "{"])
def test_a_damaged_record_of_ids_is_named(tmp_path: Path, content: str):
    sweep = sweep_of(tmp_path, "a")
    (sweep.dir / "slurm.json").write_text(content)
    with pytest.raises(ValueError, match=r"slurm\.json is damaged"):
        sweep.states()


@pytest.fixture
def cluster(squeue: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of programs, with an `sbatch` that keeps its script as `script<n>` and says that it is job n, from 17
    on. The launcher looks into the queue all the time."""
    from hydra_plugins.fer_voting_slurm import SlurmLauncher

    sbatch = squeue.with_name("sbatch")
    sbatch.write_text(
        f"#!/bin/sh\ncd {squeue.parent}\nn=$((17 + $(ls | grep -c script)))\n"
        'cp "$1" script$n\necho Submitted batch job $n\n'
    )
    sbatch.chmod(0o755)
    for name in ("QUEUE_SECONDS", "RESULT_SECONDS"):
        monkeypatch.setattr(SlurmLauncher, name, 0.0)
    set_up_messages()
    return squeue.parent


def run_sweep(tmp_path: Path, *words: str) -> None:
    """A sweep's command on Slurm, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        where = [f"output_dir={tmp_path}", "sweep=mine"]
        patch.setattr(sys, "argv", ["x", "-m", "hydra/launcher=slurm", *words, *where])
        with pytest.raises(SystemExit):  # nothing was trained, so the sweep's table lacks every run
            command(print)


def leave_result(tmp_path: Path, job: str, kind: str = "success", content: Any = None) -> None:
    """A job's result, as submitit leaves it."""
    folder = tmp_path / "sweeps" / "mine" / "jobs" / job
    folder.mkdir(parents=True, exist_ok=True)
    content = {"status": "finished", "seconds": 3.0} if content is None else content
    (folder / f"{job}_0_result.pkl").write_bytes(pickle.dumps((kind, content)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["gpus_per_node=null"], {"ntasks-per-node=1", "cpus-per-task=8", "time=1440"}),
        (["gpus_per_node=0"], {"ntasks-per-node=1", "cpus-per-task=8", "time=1440"}),
        (["gpus_per_node=2", "nodes=3", "partition=p"], {"ntasks-per-node=2", "gpus-per-node=2", "nodes=3"}),
    ],
)
def test_what_sbatch_is_asked_for(cluster: Path, tmp_path: Path, words: list[str], options: set[str]):
    (cluster / "answer").write_text("17_0|CANCELLED|None\n17_1|CANCELLED|None\n")
    run_sweep(tmp_path, "seed=0,1", *(f"hydra.launcher.{word}" for word in words))
    script = (cluster / "script17").read_text()
    asked = set(re.findall(r"^#SBATCH --(\S+)$", script, re.MULTILINE))
    assert options <= asked
    assert any(option.startswith("gpus") for option in asked) == ("gpus-per-node=2" in options)
    assert ("partition=p" in asked) == ("partition=p" in words)
    assert "SLURM_KILL_BAD_EXIT=1" in script


def test_every_job_is_waited_for_and_a_killed_one_is_found_without_accounting(
    cluster: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (cluster / "answer").write_text("17_0|CANCELLED|None\n17_1|FAILED|None\n17_2|COMPLETED|None\n")
    leave_result(tmp_path, "17_1", "error", "Traceback:\n  ...\nChildProcessError: no good")
    leave_result(tmp_path, "17_2")
    run_sweep(tmp_path, "seed=0,1,2")
    printed = capfd.readouterr().err.splitlines()
    assert {"3 jobs submitted: 17", "jobs: all have ended"} <= {*printed}
    folder = tmp_path / "sweeps" / "mine" / "jobs" / "17_0"
    killed = f"job 17_0 ended as CANCELLED, without a result; its output: {folder}"
    assert f"faces-m1-seed0: failed: {killed}" in printed
    assert "faces-m1-seed1: failed: no good" in printed
    assert "faces-m1-seed2: finished in 3 s" in printed


@pytest.mark.slow
def test_the_same_command_waits_for_the_jobs_in_the_queue_and_submits_the_others(
    cluster: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (cluster / "answer").write_text("17_0|CANCELLED|None\n17_1|CANCELLED|None\n17_2|CANCELLED|None\n")
    run_sweep(tmp_path, "seed=0,1,2")
    (cluster / "answer").write_text("17_0|PENDING|Priority\n17_1|RUNNING|None\n18|COMPLETED|None\n")
    for job in ("17_0", "17_1", "18"):
        leave_result(tmp_path, job)
    run_sweep(tmp_path, "seed=0,1,2")
    printed = capfd.readouterr().err
    assert "2 jobs of this sweep in the queue already: 17\n" in printed
    assert "\n1 job submitted: 18\n" in printed
    assert printed.count(": finished in 3 s") == 3
    assert Sweep(tmp_path / "sweeps" / "mine").slurm_jobs() == {
        f"faces-m1-seed{seed} soft": job for seed, job in enumerate(("17_0", "17_1", "18"))
    }
    (cluster / "answer").unlink()
    run_sweep(tmp_path, "seed=0,1,2")
    assert len(list(cluster.glob("script*"))) == 2  # it is not known what is in the queue: nothing is submitted twice


@pytest.mark.slow
def test_jobs_are_submitted_when_those_that_they_need_have_ended(
    cluster: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    (cluster / "answer").write_text("17_0|RUNNING|None\n17_1|RUNNING|None\n18_0|COMPLETED|None\n18_1|COMPLETED|None\n")
    for job in ("18_0", "18_1"):
        leave_result(tmp_path, job)
    scripts = []

    def end_first() -> None:
        while not list(cluster.glob("script*")):
            time.sleep(0.1)
        time.sleep(1)
        scripts.extend(path.name for path in cluster.glob("script*"))
        for job in ("17_0", "17_1"):
            leave_result(tmp_path, job)

    threading.Thread(target=end_first).start()
    run_sweep(tmp_path, "refit=true,false", "seed=0,1")
    assert scripts == ["script17"]
    assert (cluster / "script18").exists()
    printed = capfd.readouterr().err
    submitted = printed.index("2 jobs wait for others to end before submission")
    assert submitted < printed.index("faces-m1-seed0: finished") < printed.index("faces-m1-refit_soft-seed0: finished")


@pytest.mark.slow
def test_a_queue_that_does_not_answer_is_waited_for_as_long_as_results_come(
    cluster: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from hydra_plugins.fer_voting_slurm import SlurmLauncher

    monkeypatch.setattr(SlurmLauncher, "PATIENCE_SECONDS", 1)
    leave_result(tmp_path, "17_0")
    run_sweep(tmp_path, "refit=true,false", "seed=0,1")
    printed = capfd.readouterr().err
    assert printed.count("Slurm's queue does not answer; it and results are waited for, at most 1 s without") == 1
    assert printed.count("Slurm's queue has not answered for 1 s: the wait ends\n") == 1
    assert "faces-m1-seed0: finished in 3 s" in printed
    assert "faces-m1-seed1: failed: job 17_1 may go on in Slurm's queue" in printed


def test_a_job_ends_with_an_error_that_submitit_keeps(monkeypatch: pytest.MonkeyPatch):
    def ends(by: BaseException | None, **outcome: Any) -> Any:
        def job(*_: Any) -> dict[str, Any]:
            if by is not None:
                raise by
            return outcome

        monkeypatch.setattr(slurm, "hydra_job", job)
        return SlurmJob(None, None, OmegaConf.create())()  # type: ignore[arg-type]

    assert ends(None, status="finished", seconds=2.0, votes={}) == {"status": "finished", "seconds": 2.0}
    with pytest.raises(ChildProcessError, match=r"^no good$"):
        ends(None, status="failed", error="no good")
    with pytest.raises(ChildProcessError, match=r"^no key$"):
        ends(SystemExit("error: no key\n(more)"))
    with pytest.raises(SystemExit):  # submitit's own, when a job goes on in a new one
        ends(SystemExit(-1))


def test_an_srun_on_the_path_is_no_warning(squeue: Path, capfd: pytest.CaptureFixture[str]):
    from lightning.fabric.plugins.environments import SLURMEnvironment

    set_up_messages()
    assert not SLURMEnvironment.detect()
    assert capfd.readouterr().err == ""
