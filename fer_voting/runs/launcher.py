"""The common part of Hydra's launchers of a sweep: its jobs, and which of them may start."""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

from fer_voting.runs.sweeps import Sweep
from fer_voting.system.messages import duration


@dataclass
class Job:
    """A job of a sweep.

    Attributes:
        number: Hydra's.
        run: the name of its run; the votes of one training are several jobs of one run.
        needs: names of the runs that must be finished before.
        weight: an estimate of how long it takes, in units that are the same for all jobs.
    """

    number: int
    overrides: Sequence[str]
    config: DictConfig
    run: str
    voting: str
    needs: Sequence[str]
    weight: float = 1.0

    @property
    def key(self) -> str:
        """The key under which a sweep records the job's id in Slurm."""
        return f"{self.run} {self.voting}"

    def line(self, outcome: Mapping[str, Any]) -> str:
        """A line that says how the job ended."""
        if outcome["status"] == "failed":
            return f"{self.run}: failed: {outcome['error']}"
        return f"{self.run}: finished" + (f" in {duration(outcome['seconds'])}" if "seconds" in outcome else "")


def next_job(waiting: Sequence[Job], running: Collection[str]) -> Job | None:
    """The first waiting job that may start: no needed run is under way or to come, and its own is not under way.

    Args:
        running: names of the runs that are under way.
    """
    unfinished = {*running, *(job.run for job in waiting)}
    for job in waiting:
        if job.run not in running and unfinished.isdisjoint(job.needs):
            return job
    return waiting[0] if waiting and not running else None  # each waits for another: it will say what is missing


class SweepLauncher(Launcher):
    """A launcher of the jobs that a sweep recorded; a job that fails ends no other."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        sweep = Sweep(Path(self.config.output_dir) / "sweeps" / self.config.sweep)
        recorded = sweep.jobs()
        jobs = []
        for number, overrides in enumerate(job_overrides, start=initial_job_idx):
            config = self.context.config_loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.id = config.hydra.job.num = number
            record = recorded[number]
            jobs.append(Job(number, overrides, config, record["run"], record["voting"], record.get("needs", [])))
        outcomes = self.run_jobs(jobs, sweep)
        returned = [JobReturn(job.overrides, job.config, status=JobStatus.COMPLETED) for job in jobs]
        for each, job in zip(returned, jobs, strict=True):
            each.return_value = outcomes[job.number]
        return returned

    @abstractmethod
    def run_jobs(self, jobs: Sequence[Job], sweep: Sweep) -> dict[int, dict[str, Any]]:
        """Number of each job -> its outcome; one that failed has the `status` failed and its `error`."""
