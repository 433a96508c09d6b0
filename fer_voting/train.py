"""Train a network, or a sweep of them: `python -m fer_voting.train [-m] [group=option] [key=value] ...`."""

import logging
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fer_voting.config import command, name_choices
from fer_voting.runs.plan import plan_job
from fer_voting.runs.run import Run

log = logging.getLogger("fer_voting.train")  # `__name__` is `__main__` where this file is the command

RESULT_FORMAT = 2


def train(config: dict[str, Any]) -> dict[str, Any]:
    """The result (content of result.json) of the run that a planned configuration describes.

    A finished run's result is returned as it is, an interrupted run continues from its last checkpoint, a failed one
    is tried again.

    Raises OtherInputsError if the folder holds a run of the same name on other data or from other initial weights.
    """
    # Imported here: `--help` and a misspelt key need none of it, and it takes seconds.
    from fer_voting.runs.processes import is_first_rank
    from fer_voting.system.environment import git_commit, keep_freed_memory, package_versions
    from fer_voting.system.messages import set_up_messages
    from fer_voting.training.fit import fit, fit_on_other_rank, open_data, read_inputs

    set_up_messages()
    keep_freed_memory()
    run = Run(Path(config["output_dir"]), config["name"])
    if not is_first_rank():
        return fit_on_other_rank(run, config, train)
    with run.open(config):
        if run.was_started:
            run.claim_inputs(read_inputs(config, open_data(config)))
        earlier = run.result()
        if earlier is not None and earlier["status"] == "finished":
            log.info(f"{run.name}: finished before, not trained again ({run.dir})")
            run.last_checkpoint.unlink(missing_ok=True)  # left by a kill right after the result
            return earlier
        about = {
            "format": RESULT_FORMAT,
            "name": run.name,
            "setting": config["run"]["setting"],
            **{group: config[group]["name"] for group in ("dataset", "split")},
            **{key: config[key] for key in ("seed", "refit", "sweep")},
            "started": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": package_versions(),
            "git_commit": git_commit(),
        }
        with run.recording(about) as result:
            fit(run, config, result, train)
            if config["plots"]:
                from fer_voting.results.plots import plot_run

                plot_run(run, result)
        return result


def job(cfg: DictConfig) -> dict[str, Any]:
    """One run of the command line; in a sweep, in a process of its own."""
    hydra = HydraConfig.get()
    os.chdir(hydra.runtime.cwd)  # a launcher's worker may be elsewhere, and paths are relative to the command's folder
    config = plan_job(hydra.overrides.task, cfg, name_choices(hydra.runtime.choices))
    from fer_voting.runs.processes import is_first_rank, run_isolated

    if hydra.mode is RunMode.MULTIRUN:
        outcome = run_isolated(train, config)
        if outcome["status"] == "failed" and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            raise ChildProcessError(outcome["error"])  # so that Slurm ends the other ranks, which wait for this one
        return outcome
    result = train(config)
    if is_first_rank():
        log.info("result: %s", Run(Path(config["output_dir"]), config["name"]).dir / "result.json")
    return result


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports each sweep to its makers otherwise
    command(job)


if __name__ == "__main__":
    # By its name, under which child processes import `train`.
    from fer_voting.train import main as importable_main

    importable_main()
