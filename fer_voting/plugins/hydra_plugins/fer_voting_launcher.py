"""Hydra's launcher of a sweep on this machine: several jobs at once, each in a process of its own.

Hydra looks for launchers in packages called `hydra_plugins`; `fer_voting.config` puts the folder above on the path.
"""

import logging
import math
import sys
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

from omegaconf import OmegaConf

from fer_voting.runs.launcher import Job, SweepLauncher, next_job
from fer_voting.runs.processes import Process, call, hydra_job, run_isolated
from fer_voting.runs.sweeps import Sweep
from fer_voting.system import machine
from fer_voting.system.messages import Screen, progress_bar
from fer_voting.system.text import counted

log = logging.getLogger("fer_voting.launcher")

MEMORY_SHARE = 0.8
"""Share of the available memory that the jobs may take together."""


class LocalLauncher(SweepLauncher):
    """Runs the jobs of a sweep side by side.

    Args:
        jobs: how many at once, or `auto`: on a processor as many as there are usable cores, fewer if there are fewer
            jobs or memory does not suffice; on GPUs `jobs_per_gpu` each.
        jobs_per_gpu: how many share a GPU.
    """

    def __init__(self, jobs: int | str = "auto", jobs_per_gpu: int = 1) -> None:
        if jobs != "auto" and not (isinstance(jobs, int) and jobs >= 1):
            raise ValueError(f"jobs={jobs} must be auto, or 1 or more")
        if not (isinstance(jobs_per_gpu, int) and jobs_per_gpu >= 1):
            raise ValueError(f"jobs_per_gpu={jobs_per_gpu} must be 1 or more")
        self.jobs, self.jobs_per_gpu = jobs, jobs_per_gpu

    def run_jobs(self, jobs: Sequence[Job], sweep: Sweep) -> dict[int, dict[str, Any]]:
        places = self._places(jobs)
        log.info(f"{counted(len(jobs), 'job')}, {len(places)} at once")
        return self._run(jobs, places)

    def _places(self, jobs: Sequence[Job]) -> list[dict[str, str]]:
        """The environment of each job that runs at once: its cores, and its GPU. Also weighs the jobs."""
        trainers = [job.config.trainer for job in jobs]
        runs, cores = len({job.run for job in jobs}), machine.usable_cores()
        if (
            self.jobs == 1
            or runs == 1
            or any(str(t.get("devices", 1)) != "1" or t.get("num_nodes", 1) != 1 for t in trainers)
        ):
            return [{}]  # each has the whole machine
        resources = run_isolated(
            "sweep", call, "fer_voting.training.resources", "estimate_jobs", list(map(_asked, jobs))
        )
        if resources["status"] == "failed":
            log.info(f"one job at a time: what they need can't be estimated ({resources['error']})")
            return [{}]
        trained = set()
        for job, weight in zip(jobs, resources["weights"], strict=True):
            job.weight = 0.0 if job.run in trained else weight  # the votes of one training are counted once
            trained.add(job.run)
        gpus = [] if all(trainer.get("accelerator") == "cpu" for trainer in trainers) else resources["gpus"]
        if self.jobs != "auto":
            count = int(self.jobs)
        elif gpus:
            count = len(gpus) * self.jobs_per_gpu
        else:
            fit = (
                max(1, int(machine.available_mib() * MEMORY_SHARE / resources["mib"]))
                if machine.available_mib() < math.inf
                else cores
            )
            count = min(cores, fit)
            if fit < min(cores, runs):
                log.info(f"memory suffices for {fit} of the jobs at once, at about {resources['mib']:,.0f} MiB each")
        count = min(count, runs)
        share = {machine.CORES_VARIABLE: str(max(1, cores // count))}
        return [{**share, **({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {})} for i in range(count)]

    def _run(self, jobs: Sequence[Job], places: list[dict[str, str]]) -> dict[int, dict[str, Any]]:
        """Number of each job -> its outcome."""
        waiting = sorted(jobs, key=lambda job: -job.weight)
        running: dict[Any, tuple[Job, Process, dict[str, str]]] = {}
        outcomes: dict[int, dict[str, Any]] = {}
        done, total = 0.0, sum(job.weight for job in jobs)
        patience_seconds = 0.0
        title = f"0 of {counted(len(jobs), 'job')}"
        with Screen(sys.stderr.isatty()) as screen, progress_bar(total=total, desc=title, bar_format=_BAR) as bar:
            try:
                while waiting or running:
                    while places and (job := next_job(waiting, [each.run for each, _, _ in running.values()])):
                        waiting.remove(job)
                        place = places.pop(0)
                        arguments = self.context, self.task, job.config
                        process = Process(job.run, hydra_job, *arguments, environment=place)
                        running[process.connection] = job, process, place
                    for connection in wait(list(running)):
                        job, process, place = running[connection]
                        if (outcome := process.receive(screen)) is not None:
                            if outcome["status"] == "interrupted":
                                raise KeyboardInterrupt
                            del running[connection]
                            places.insert(0, place)
                            outcomes[job.number] = outcome.get("value", outcome)
                            done += job.weight
                            log.info(job.line(outcome))
                            bar.set_description_str(f"{len(outcomes)} of {counted(len(jobs), 'job')}", refresh=False)
                        under_way = sum(each.weight * screen.share(each.run) for each, _, _ in running.values())
                        bar.update(min(done + under_way, total) - bar.n)
            except KeyboardInterrupt:
                patience_seconds = 30  # the jobs received the same signal, and write their last lines
                raise
            finally:
                for _, process, _ in running.values():
                    process.end(patience_seconds)
        return outcomes


def _asked(job: Job) -> dict[str, Any]:
    """The keys of a job's configuration on which its time and memory depend most."""
    config = job.config
    return {
        "model": OmegaConf.to_container(config.model, resolve=True),
        "split": config.split.name,
        "size": config.dataset.size,
        "batch_size": config.dataset.batch_size,
        "epochs": config.trainer.max_epochs,
        "precision": config.trainer.precision,
    }


_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
