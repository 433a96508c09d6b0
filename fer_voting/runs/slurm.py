"""Jobs of a sweep in Slurm's queue: what one does there, and what the queue says of them.

Slurm's accounting (`sacct`), which small clusters don't have, is not asked.
"""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fer_voting.runs.processes import hydra_job
from fer_voting.system.messages import set_up_messages

ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}
"""States of a job that does not run again; every other one is of a job that waits, runs or is moved."""
ANSWER_SECONDS = 30


@dataclass(frozen=True)
class QueuedJob:
    """A job as the queue shows it.

    Attributes:
        state: Slurm's word, e.g. PENDING.
        reason: why it waits, e.g. Resources; the text "None" if it does not.
    """

    state: str
    reason: str

    @property
    def waits(self) -> bool:
        return self.state == "PENDING"

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def queue(ids: Iterable[str]) -> dict[str, QueuedJob] | None:
    """The jobs of these ids (`17`, or `17_0` of an array) that the queue knows; None where Slurm does not answer.

    A job that ended is known for some minutes more.
    """
    arrays = sorted({each.partition("_")[0] for each in ids})
    words = ["--noheader", "--array", "--states=all", f"--jobs={','.join(arrays)}", "--format=%i|%T|%r"]
    try:
        answer = subprocess.run(["squeue", *words], capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if answer.returncode:
        return {} if "Invalid job id" in answer.stderr else None
    lines = [line.split("|", 2) for line in answer.stdout.splitlines()]
    return {each: QueuedJob(state, reason.strip()) for each, state, reason in lines}


@dataclass(frozen=True)
class SlurmJob:
    """A job of a sweep as submitit starts it, on each of the job's processes."""

    context: HydraContext
    task: TaskFunction
    config: DictConfig

    def __call__(self) -> dict[str, Any]:
        """The job's outcome. Raises ChildProcessError if it failed: Slurm then knows, and ends the other ranks, which
        would wait for this one."""
        set_up_messages()
        try:
            outcome = hydra_job(self.context, self.task, self.config)
        except SystemExit as error:  # a command's way to end after it said why, of which submitit writes no result
            if not isinstance(error.code, str):
                raise
            outcome = {"status": "failed", "error": error.code.splitlines()[0].removeprefix("error: ")}
        if outcome["status"] != "finished":
            raise ChildProcessError(outcome.get("error", outcome["status"]))
        return {"status": "finished", "seconds": outcome.get("seconds", 0.0)}

    def checkpoint(self) -> Any:
        """The job that goes on when this one's time is over."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
