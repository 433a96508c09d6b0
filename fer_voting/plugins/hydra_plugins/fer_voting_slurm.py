"""Hydra's launchers of a sweep on a Slurm cluster, and of its rehearsal on this machine: submitit submits the jobs.

The jobs are then watched by their results and in Slurm's queue. What is left to submitit asks accounting, ever more
rarely, and ends at the first job that was killed.
"""

import logging
import math
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from fer_voting.runs.slurm import QueuedJob, SlurmJob, queue
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.messages import duration

log = logging.getLogger("fer_voting.launcher")

SECOND_INTERRUPT_SECONDS = 5


class SlurmLauncher(Launcher):
    """Submits the jobs of a sweep to Slurm, and waits for them.

    Args:
        submitit_folder: what each job printed, its configuration and its result.
        parameters: submitit's, e.g. `partition`; conf/hydra/launcher/slurm.yaml has them.
    """

    CLUSTER = "slurm"
    QUEUE_SECONDS = 10
    """Time between two looks at the queue."""
    RESULT_SECONDS = 20
    """Time that a result may take over a shared file system after its job has left the queue."""

    def __init__(self, submitit_folder: str, **parameters: Any) -> None:
        self.folder = submitit_folder
        self.parameters: dict[str, Any] = {
            key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            for key, value in parameters.items()
        }

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        sweep = Sweep(Path(self.config.output_dir) / "sweeps" / self.config.sweep)
        recorded = sweep.jobs()[initial_job_idx:][: len(job_overrides)]
        configs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            configs.append(config)
        keys = [f"{job['run']} {job['voting']}" for job in recorded]
        jobs = self._submit(dict(zip(keys, configs, strict=True)), sweep)
        outcomes = self._wait(jobs)
        returned = []
        for overrides, config, key in zip(job_overrides, configs, keys, strict=True):
            job = JobReturn(overrides=overrides, cfg=config, status=JobStatus.COMPLETED)
            job.return_value = outcomes[key]
            returned.append(job)
        return returned

    def _submit(self, configs: Mapping[str, DictConfig], sweep: Sweep) -> dict[str, Any]:
        """submitit's job of each job; one that an earlier command left in the queue is taken as it is."""
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
        jobs = self._earlier(sweep.slurm_jobs())
        jobs = {key: job for key, job in jobs.items() if key in configs}
        if jobs:
            log.info(f"{len(jobs)} jobs of this sweep are in the queue already: {_arrays(jobs.values())}")
        new = [key for key in configs if key not in jobs]
        if new:
            with executor.batch():
                submitted = [executor.submit(SlurmJob(self.context, self.task, configs[key])) for key in new]
            jobs |= dict(zip(new, submitted, strict=True))
            log.info(f"{len(new)} jobs submitted: {_arrays(submitted)}")
        sweep.write_slurm_jobs({key: job.job_id for key, job in jobs.items()})
        return jobs

    def _earlier(self, ids: Mapping[str, str]) -> dict[str, Any]:
        """submitit's job of each recorded id that is still in the queue."""
        from submitit import SlurmJob as SubmittedJob

        queued = (queue(ids.values()) or {}) if ids else {}
        tasks = range((self.parameters["nodes"] or 1) * (self.parameters["tasks_per_node"] or 1))
        return {
            key: SubmittedJob(self.folder, each, list(tasks))
            for key, each in ids.items()
            if each in queued and not queued[each].ended
        }

    def _wait(self, jobs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
        """The outcome of each job. Ctrl-C leaves them in the queue, a second one cancels them."""
        outcomes: dict[str, dict[str, Any]] = {}
        queued: Mapping[str, QueuedJob] | None = {}
        ended: dict[str, float] = {}  # since when a job without a result is known to have ended
        next_look, said = 0.0, ""
        try:
            while waiting := {key: job for key, job in jobs.items() if key not in outcomes}:
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + self.QUEUE_SECONDS
                    if (queued := self._look(list(waiting.values()))) is not None:
                        gone = [key for key, job in waiting.items() if _has_ended(queued.get(job.job_id))]
                        ended = {key: ended.get(key, time.monotonic()) for key in gone}
                    if (text := _summary(queued)) != said:
                        log.info(said := text)
                for key, job in waiting.items():
                    outcome = _result(job)
                    if outcome is None and time.monotonic() - ended.get(key, math.inf) >= self.RESULT_SECONDS:
                        outcome = _lost(job, (queued or {}).get(job.job_id))
                    if outcome is not None:
                        outcomes[key] = outcome
                        log.info(_line(key, outcome))
                time.sleep(1)
        except KeyboardInterrupt:
            self._leave([job for key, job in jobs.items() if key not in outcomes])
            raise
        return outcomes

    def _leave(self, jobs: Sequence[Any]) -> None:
        """Say which jobs stay; cancel them after a second Ctrl-C."""
        arrays = _arrays(jobs)
        log.info(
            f"{len(jobs)} jobs stay in Slurm's queue, and the same command waits for them again; to cancel them: "
            f"scancel {arrays} (or Ctrl-C within {SECOND_INTERRUPT_SECONDS} s)"
        )
        try:
            time.sleep(SECOND_INTERRUPT_SECONDS)
        except KeyboardInterrupt:
            subprocess.run(["scancel", *arrays.split()])
            log.info(f"cancelled: {arrays}")

    def _look(self, jobs: Sequence[Any]) -> Mapping[str, QueuedJob] | None:
        """The queue's jobs by id; None where it is not known."""
        return queue(job.job_id for job in jobs)


class RehearsalLauncher(SlurmLauncher):
    """The same without Slurm: all jobs at once, on this machine."""

    CLUSTER = "local"
    QUEUE_SECONDS = RESULT_SECONDS = 1

    def _earlier(self, ids: Mapping[str, str]) -> dict[str, Any]:
        return {}

    def _look(self, jobs: Sequence[Any]) -> Mapping[str, QueuedJob]:
        return {job.job_id: QueuedJob("FAILED" if job.done() else "RUNNING", "None") for job in jobs}

    def _leave(self, jobs: Sequence[Any]) -> None:
        """The jobs received the same signal."""


def _arrays(jobs: Any) -> str:
    """Ids of the jobs' arrays, by which they are all cancelled."""
    return " ".join(dict.fromkeys(job.job_id.partition("_")[0] for job in jobs))


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


def _line(key: str, outcome: Mapping[str, Any]) -> str:
    run = key.partition(" ")[0]
    if outcome["status"] == "failed":
        return f"{run}: failed: {outcome['error']}"
    return f"{run}: finished in {duration(outcome['seconds'])}"


def _summary(queued: Mapping[str, QueuedJob] | None) -> str:
    """How many jobs run, and how many wait for what."""
    if queued is None:
        return "Slurm's queue does not answer; results are waited for"
    counts = Counter(
        f"queued ({each.reason})" if each.waits else "running" for each in queued.values() if not each.ended
    )
    return f"jobs: {', '.join(f'{count} {state}' for state, count in sorted(counts.items())) or 'all have ended'}"
