"""Hydra's launchers of a sweep on a Slurm cluster, and of its rehearsal on this machine: submitit submits the jobs.

The jobs are then watched by their results and in Slurm's queue. What is left to submitit asks accounting, ever more
rarely, and ends at the first job that was killed.
"""

import logging
import math
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from fer_voting.runs.launcher import Job, SweepLauncher, next_job
from fer_voting.runs.slurm import QueuedJob, SlurmJob, queue
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.messages import duration
from fer_voting.system.text import counted

log = logging.getLogger("fer_voting.launcher")

SECOND_INTERRUPT_SECONDS = 5


class SlurmLauncher(SweepLauncher):
    """Submits the jobs of a sweep to Slurm, and waits for them; those that need others' results, after these.

    Args:
        submitit_folder: what each job printed, its configuration and its result.
        parameters: submitit's, e.g. `partition`; conf/hydra/launcher/slurm.yaml has them.
    """

    CLUSTER = "slurm"
    QUEUE_SECONDS = 10
    """Time between two looks at the queue."""
    RESULT_SECONDS = 20
    """Time that a result may take over a shared file system after its job has left the queue."""

    PATIENCE_SECONDS = 3600
    """Time without an answer of the queue and without a result, after which the wait ends."""

    def __init__(self, submitit_folder: str, **parameters: Any) -> None:
        self.folder = submitit_folder
        self.parameters: dict[str, Any] = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in parameters.items()
        }

    def run_jobs(self, jobs: Sequence[Job], sweep: Sweep) -> dict[int, dict[str, Any]]:
        """The outcomes. Ctrl-C leaves the jobs in the queue, a second one cancels them.

        Raises RuntimeError if it is not known whether an earlier command's jobs are in the queue.
        """
        executor = self._executor()
        submitted = self._earlier(jobs, sweep.slurm_jobs())  # by number
        waiting = [job for job in jobs if job.number not in submitted]
        running = [job for job in jobs if job.number in submitted]
        outcomes: dict[int, dict[str, Any]] = {}
        queued: Mapping[str, QueuedJob] | None = {}
        ended: dict[int, float] = {}  # since when a job without a result is known to have ended
        next_look, said, last_sign = 0.0, "", time.monotonic()
        try:
            while waiting or running:
                ready: list[Job] = []
                while job := next_job(waiting, [each.run for each in (*running, *ready)]):
                    waiting.remove(job)
                    ready.append(job)
                if ready:
                    submitted |= self._submit(executor, ready, sweep)
                    running += ready
                    next_look = 0.0
                    if waiting:
                        log.info(f"{counted(len(waiting), 'job', 'waits/wait')} for others to end before submission")
                if time.monotonic() >= next_look:
                    queued = self._look([submitted[job.number] for job in running])
                    next_look = time.monotonic() + self.QUEUE_SECONDS
                    if queued is not None:
                        last_sign = time.monotonic()
                        gone = [job.number for job in running if _has_ended(queued.get(submitted[job.number].job_id))]
                        ended = {number: ended.get(number, last_sign) for number in gone}
                    if (text := self._summary(queued)) != said:
                        log.info(said := text)
                silent = time.monotonic() - last_sign > self.PATIENCE_SECONDS
                for job in list(running):
                    handle = submitted[job.number]
                    outcome = self._outcome(handle)
                    if outcome is not None:
                        last_sign = time.monotonic()
                    elif time.monotonic() - ended.get(job.number, math.inf) >= self.RESULT_SECONDS:
                        outcome = _lost(handle, (queued or {}).get(handle.job_id))
                    elif silent:
                        outcome = {"status": "failed", "error": f"job {handle.job_id} may go on in Slurm's queue"}
                    if outcome is not None:
                        running.remove(job)
                        outcomes[job.number] = outcome
                        log.info(job.line(outcome))
                if silent:
                    log.info(f"Slurm's queue has not answered for {duration(self.PATIENCE_SECONDS)}: the wait ends")
                    not_submitted = {"status": "failed", "error": "not submitted"}
                    return outcomes | {job.number: not_submitted for job in waiting}
                if running:
                    time.sleep(1)
        except KeyboardInterrupt:
            self._leave([submitted[job.number] for job in running], len(waiting))
            raise
        return outcomes

    def _executor(self) -> Any:
        """submitit's, with the parameters of this launcher."""
        from submitit import AutoExecutor

        shared = {"name", "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes"}
        shared.add("stderr_to_stdout")
        parameters = {
            key if key in shared else f"{self.CLUSTER}_{key}": value
            for key, value in self.parameters.items()
            if value is not None and (key, value) != ("gpus_per_node", 0)  # which sbatch refuses
        }
        initial = {key: parameters.pop(key) for key in ["slurm_max_num_timeout"] if key in parameters}
        executor = AutoExecutor(self.folder, self.CLUSTER, **initial)
        executor.update_parameters(**parameters)
        return executor

    def _submit(self, executor: Any, jobs: Sequence[Job], sweep: Sweep) -> dict[int, Any]:
        """submitit's job of each job's number; their ids are recorded."""
        with executor.batch():
            handles = [executor.submit(SlurmJob(self.context, self.task, job.config)) for job in jobs]
        sweep.write_slurm_jobs({job.key: handle.job_id for job, handle in zip(jobs, handles, strict=True)})
        log.info(f"{counted(len(jobs), 'job')} submitted: {_arrays(handles)}")
        return {job.number: handle for job, handle in zip(jobs, handles, strict=True)}

    def _earlier(self, jobs: Sequence[Job], ids: Mapping[str, str]) -> dict[int, Any]:
        """submitit's job of each job's number that an earlier command left in the queue."""
        from submitit import SlurmJob as SubmittedJob

        ids = {job.key: ids[job.key] for job in jobs if job.key in ids}
        queued = queue(ids.values()) if ids else {}
        if queued is None:
            raise RuntimeError(
                f"{counted(len(ids), 'job')} of this sweep went to Slurm before, and its queue (squeue) does not "
                "answer whether it still holds them: try again when it does"
            )
        tasks = range((self.parameters["nodes"] or 1) * (self.parameters["tasks_per_node"] or 1))
        handles: dict[int, Any] = {
            job.number: SubmittedJob(self.folder, ids[job.key], list(tasks))
            for job in jobs
            if job.key in ids and not _has_ended(queued.get(ids[job.key]))
        }
        if handles:
            log.info(f"{counted(len(handles), 'job')} of this sweep in the queue already: {_arrays(handles.values())}")
        return handles

    def _leave(self, handles: Sequence[Any], not_submitted: int) -> None:
        """Say which jobs stay; cancel them after a second Ctrl-C."""
        arrays = _arrays(handles)
        others = f" and submits the other {not_submitted}" if not_submitted else ""
        log.info(
            f"{counted(len(handles), 'job', 'stays/stay')} in Slurm's queue, and the same command waits again{others}; "
            f"to cancel them: scancel {arrays} (or Ctrl-C within {SECOND_INTERRUPT_SECONDS} s)"
        )
        try:
            time.sleep(SECOND_INTERRUPT_SECONDS)
        except KeyboardInterrupt:
            subprocess.run(["scancel", *arrays.split()])
            log.info(f"cancelled: {arrays}")

    def _look(self, handles: Sequence[Any]) -> Mapping[str, QueuedJob] | None:
        """The queue's jobs by id; None where it is not known."""
        return queue(handle.job_id for handle in handles)

    def _summary(self, queued: Mapping[str, QueuedJob] | None) -> str:
        """How many jobs run, and how many wait for what."""
        if queued is None:
            at_most = duration(self.PATIENCE_SECONDS)
            return f"Slurm's queue does not answer; it and results are waited for, at most {at_most} without either"
        counts = Counter(
            f"queued ({each.reason})" if each.waits else "running" for each in queued.values() if not each.ended
        )
        return f"jobs: {', '.join(f'{count} {state}' for state, count in sorted(counts.items())) or 'all have ended'}"

    def _outcome(self, handle: Any) -> dict[str, Any] | None:
        """The outcome of a job once it is there."""
        return _result(handle)


class RehearsalLauncher(SlurmLauncher):
    """The same without Slurm: all jobs at once, on this machine."""

    CLUSTER = "local"
    QUEUE_SECONDS = RESULT_SECONDS = 1

    def _earlier(self, jobs: Sequence[Job], ids: Mapping[str, str]) -> dict[int, Any]:
        return {}

    def _look(self, handles: Sequence[Any]) -> Mapping[str, QueuedJob]:
        return {handle.job_id: QueuedJob("FAILED" if handle.done() else "RUNNING", "None") for handle in handles}

    def _outcome(self, handle: Any) -> dict[str, Any] | None:
        """Also after the job's process has ended, so that none is left behind."""
        return super()._outcome(handle) if handle.done() else None

    def _leave(self, handles: Sequence[Any], not_submitted: int) -> None:
        """The jobs received the same signal."""


def _arrays(handles: Iterable[Any]) -> str:
    """Ids of the jobs' arrays, by which they are all cancelled."""
    return " ".join(dict.fromkeys(handle.job_id.partition("_")[0] for handle in handles))


def _result(job: Any) -> dict[str, Any] | None:
    """The outcome that a job's processes have left; None until then."""
    from submitit.core.utils import pickle_load

    folder = job.paths.folder
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()  # also refreshes NFS's cache
    paths = [job.task(rank).paths.result_pickle for rank in range(job.num_tasks)]
    results = [pickle_load(path) for path in paths if path.name in names]
    for kind, content in results:
        if kind == "error":
            return {"status": "failed", "error": _last_words(content)}
    return results[0][1] if len(results) == len(paths) else None


def _last_words(trace: str) -> str:
    """The error of a traceback."""
    return trace.strip().splitlines()[-1].removeprefix("ChildProcessError: ")


def _has_ended(queued: QueuedJob | None) -> bool:
    return queued is None or queued.ended


def _lost(job: Any, queued: QueuedJob | None) -> dict[str, Any]:
    how = f"ended as {queued.state}" if queued else "is not in the queue any more"
    return {"status": "failed", "error": f"job {job.job_id} {how}, without a result; its output: {job.paths.folder}"}
