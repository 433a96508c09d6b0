"""A sweep's folder and the state of its jobs.

A sweep's folder, `<output_dir>/sweeps/<sweep>/`, holds `sweep.json` (its command, and each job's words and run) and
`table.md`. The state of a job is read from its run's folder.
"""

import itertools
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser

from fer_voting.runs.run import Run, read_history
from fer_voting.runs.slurm import QueuedJob, queue
from fer_voting.system.atomic import read_json, write_json


def job_overrides(words: Sequence[str]) -> list[list[str]]:
    """The overrides of each job of a sweep over `words`, in the order in which Hydra's own sweeper starts them.

    `["split=m1,m2", "seed=0"]` -> `[["split=m1", "seed=0"], ["split=m2", "seed=0"]]`; also `range(...)`,
    `choice(...)`, and under a running command `glob(...)`.

    Raises ValueError for `interval(...)`, which has no list of values.
    """
    hydra = GlobalHydra.instance()
    parser = OverridesParser.create(hydra.config_loader() if hydra.is_initialized() else None)
    values: dict[str, list[str]] = {}  # of a key that is given twice, the last counts
    for override in parser.parse_overrides(list(words)):
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [override.get_value_element_as_str()]
        elif override.is_discrete_sweep():
            values[key] = list(override.sweep_string_iterator())
        else:
            raise ValueError(f"{override.input_line} can't be swept over: give a list of values, e.g. {key}=1,2")
    assignments = [[f"{key}={value}" for value in of_key] for key, of_key in values.items()]
    return [list(job) for job in itertools.product(*assignments)]


@dataclass(frozen=True)
class JobState:
    """The state of a job.

    Attributes:
        status: as `Run.status` says, or `queued` of a job that waits in Slurm's queue.
        epochs: how many are done, and of how many; None before the training begins.
        images_per_second: of a running job, validation included.
        seconds_left: of a running job, once an epoch is done.
        error: the last line of a failed job's error; Slurm's reason why a queued one waits.
        kind: of jobs that differ only in their seed, and take equally long; "" if it was not recorded.
    """

    run: str
    status: str
    epochs: tuple[int, int] | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    error: str | None = None
    kind: str = ""


def _is_record(record: Any) -> bool:
    def texts(values: Any) -> bool:
        return isinstance(values, list) and all(isinstance(value, str) for value in values)

    return (
        isinstance(record, dict)
        and texts(record.get("command"))
        and isinstance(record.get("cwd"), str)
        and isinstance(record.get("jobs"), list)
        and all(
            isinstance(job, dict)
            and texts(job.get("overrides"))
            and texts([job.get("run"), job.get("voting"), job.get("kind", "")])
            and texts(job.get("needs", []))
            for job in record["jobs"]
        )
    )


class Sweep:
    """A sweep's folder."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder.absolute()
        self.output_dir = self.dir.parent.parent

    def record(self) -> dict[str, Any]:
        """Content of sweep.json. Raises FileNotFoundError, or ValueError if it is damaged."""
        path = self.dir / "sweep.json"
        record = read_json(path)
        if not _is_record(record):
            raise ValueError(
                f"{path} is damaged: it must have command, cwd, and jobs with overrides, run, voting and needs"
            )
        return record

    def jobs(self) -> list[dict[str, Any]]:
        """`overrides`, `run`, `voting` and `needs` (names of runs) of each job, in the order in which they run."""
        return self.record()["jobs"]

    def write(self, words: list[str], jobs: list[dict[str, Any]], cwd: Path | None = None) -> None:
        """Record the words that were typed after `python -m fer_voting.train -m`, the jobs that they mean, and the
        folder in which they were typed."""
        record = {"command": words, "cwd": str(cwd or Path.cwd()), "jobs": jobs}
        write_json(self.dir / "sweep.json", record)

    def states(self) -> list[JobState]:
        """Each run's state, in the order of the jobs; the votes of one training, once."""
        kinds = {job["run"]: job.get("kind", "") for job in self.jobs()}
        states = [replace(_state(Run(self.output_dir, name)), kind=kind) for name, kind in kinds.items()]
        ids = self.slurm_jobs()
        queued = (queue(ids.values()) or {}) if ids and any(state.status != "finished" for state in states) else {}
        return [
            _in_queue(
                state, [queued[each] for key, each in ids.items() if key.split()[0] == state.run and each in queued]
            )
            for state in states
        ]

    def write_slurm_jobs(self, ids: Mapping[str, str]) -> None:
        """Record the id in Slurm of each job, by its run and vote: `{"faces-m1-seed0 soft": "17_0"}`."""
        write_json(self.dir / "slurm.json", self.slurm_jobs() | dict(ids))

    def slurm_jobs(self) -> dict[str, str]:
        """The ids that `write_slurm_jobs` recorded; empty if none were. Raises ValueError if it is damaged."""
        path = self.dir / "slurm.json"
        ids = read_json(path) if path.exists() else {}
        if not isinstance(ids, dict) or not all(
            key.strip() and isinstance(each, str) and re.fullmatch(r"\d+(_\d+)?", each) for key, each in ids.items()
        ):
            raise ValueError(f"{path} is damaged: it must have an id of Slurm's for each run and vote")
        return ids


def _in_queue(state: JobState, jobs: Sequence[QueuedJob]) -> JobState:
    """The state of a run, of which its folder does not say everything while these jobs are in Slurm's queue."""
    if state.status not in ("missing", "interrupted", "failed"):
        return state
    if any(not job.ended and not job.waits for job in jobs):  # it begins, or another machine's lock is not seen here
        return replace(state, status="running", error=None)
    reasons = [job.reason for job in jobs if job.waits]
    return replace(state, status="queued", error=f"waits in Slurm's queue ({reasons[0]})") if reasons else state


def _state(run: Run) -> JobState:
    try:
        state = _recorded_state(run)
        times = (state.images_per_second, state.seconds, state.seconds_left)
        if not all(each is None or math.isfinite(float(each)) for each in times):
            raise ValueError("a time is no number")
        return state
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, ArithmeticError):
        return JobState(run.name, "damaged")


def _recorded_state(run: Run) -> JobState:
    status = run.status()
    result = None if status in ("missing", "damaged") else run.result()
    if result is None:
        return JobState(run.name, status)
    if status == "finished":
        return JobState(run.name, status, (result["epochs"], result["epochs"]), seconds=result["seconds"])
    history = read_history(run.metrics_file)
    progress = result.get("progress")  # there once the training has begun
    state: dict[str, Any] = {}
    if progress:
        state["epochs"] = (len(history), progress["epochs"])
    if status == "failed":
        state["error"] = result["error"].strip().splitlines()[-1]
    new = len(history) - progress["epochs_before"] if progress else 0
    if status == "running" and progress and new > 0:
        last = run.metrics_file.stat().st_mtime
        seconds_per_epoch = (last - progress["since_unix_seconds"]) / new
        left = (progress["epochs"] - len(history)) * seconds_per_epoch
        state["images_per_second"] = progress["images_per_epoch"] / seconds_per_epoch
        state["seconds_left"] = max(0.0, left - (time.time() - last))
    return JobState(run.name, status, **state)


def seconds_left(states: Sequence[JobState]) -> float | None:
    """Estimated seconds left of a whole sweep; None if nothing is left, or nothing tells.

    The running jobs' own estimates plus, for each pending job, the mean duration of finished jobs of its kind, divided
    by the number of jobs that run now.
    """
    finished: dict[str, list[float]] = {}
    for state in states:
        if state.status == "finished" and state.seconds is not None:
            finished.setdefault(state.kind, []).append(state.seconds)
    left = [state for state in states if state.status != "finished"]
    running = sum(state.status == "running" for state in left)
    known = [
        fmean(finished[state.kind]) if state.seconds_left is None else state.seconds_left
        for state in left
        if state.seconds_left is not None or state.kind in finished
    ]
    return sum(known) / max(1, running) if left and len(known) == len(left) else None
