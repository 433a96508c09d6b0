"""Slurm's queue and the launcher's wait, with a `squeue` that says what a test wants."""

import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from submitit import SlurmJob as SubmittedJob

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


def launcher(tmp_path: Path) -> Any:
    from hydra_plugins.fer_voting_slurm import SlurmLauncher

    made = SlurmLauncher(str(tmp_path / "%j"))
    made.QUEUE_SECONDS = made.RESULT_SECONDS = 0.0
    return made


def submitted(tmp_path: Path, **results: Any) -> dict[str, SubmittedJob]:
    """Jobs `17_0`, ... that have left these results; None: nothing."""
    jobs = {}
    for index, (key, result) in enumerate(results.items()):
        job = SubmittedJob(tmp_path / "%j", f"17_{index}")
        job.paths.folder.mkdir()
        if result is not None:
            job.paths.result_pickle.write_bytes(pickle.dumps(result))
        jobs[f"{key} soft"] = job
    return jobs


def test_every_job_is_waited_for_and_a_killed_one_is_found_without_accounting(
    squeue: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    set_up_messages()
    squeue.write_text("17_0|CANCELLED|None\n17_1|FAILED|None\n17_2|COMPLETED|None\n")
    trace = "Traceback:\n  ...\nChildProcessError: no good"
    results = {"killed": None, "failed": ("error", trace), "done": ("success", {"status": "finished", "seconds": 3.0})}
    outcomes = launcher(tmp_path)._wait(submitted(tmp_path, **results))
    assert [outcome["status"] for outcome in outcomes.values()] == ["failed", "failed", "finished"]
    printed = capfd.readouterr().err.splitlines()
    assert printed[0] == "jobs: all have ended"
    assert f"killed: failed: job 17_0 ended as CANCELLED, without a result; its output: {tmp_path}/17_0" in printed
    assert "failed: failed: no good" in printed
    assert "done: finished in 3 s" in printed


def test_a_sweep_without_a_queue_waits_for_results_and_says_so(
    squeue: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    set_up_messages()
    jobs = submitted(tmp_path, late=None)
    result = pickle.dumps(("success", {"status": "finished", "seconds": 1}))
    threading.Timer(1.5, jobs["late soft"].paths.result_pickle.write_bytes, [result]).start()
    assert launcher(tmp_path)._wait(jobs)["late soft"]["status"] == "finished"
    assert capfd.readouterr().err.count("Slurm's queue does not answer; results are waited for") == 1


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
