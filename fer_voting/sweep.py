"""Look after a sweep: `python -m fer_voting.sweep status|retry|table DIR`."""

import argparse
import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fer_voting
from fer_voting.config import add_config_dir, compose, explain, quote
from fer_voting.results.sweep_table import sweep_status, sweep_table
from fer_voting.runs.identity import identity, resolve
from fer_voting.runs.naming import drop_overrides, settle
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep, job_overrides
from fer_voting.system.atomic import json_digest, write_atomically
from fer_voting.system.packages import whole_package
from fer_voting.system.text import counted, escape

with whole_package():
    from hydra.experimental.callback import Callback
    from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)


LAUNCHER_CODE = {"setup", "teardown", "python", "srun_args", "additional_parameters", "runtime_env", "_target_"}
"""Keys of the launchers whose values are programs or commands."""


class SweepCallback(Callback):
    """Writes a sweep's job list before its first job and its table after the last; Hydra calls it."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        # The words as typed: an interpolation means another value in each job.
        hydra: Any = OmegaConf.to_container(config.hydra, resolve=False)
        params = [f"{k}={v}" for k, v in (hydra["sweeper"]["params"] or {}).items()]
        task = list(hydra["overrides"]["task"])
        sweep = self.sweep(config)
        job: list[str] = []
        try:
            plans = []
            for job in job_overrides([*params, *task]):
                plans.append((job, resolve(settle(compose(job)))))
            jobs = _jobs(plans, config)
            _check_record(sweep, jobs)
        except Exception as error:  # Hydra turns an exception of a callback into a warning and starts the jobs
            sys.exit(f"error: {explain(error, overrides=job)}")
        typed = [*drop_overrides(config.hydra.overrides.hydra, "hydra.mode"), *task]
        sweep.write(typed, jobs, Path(config.hydra.runtime.cwd))
        log.info(f"sweep {config.sweep}: {counted(len(jobs), 'job')} ({sweep.dir})")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        sweep = self.sweep(config)
        text, unfinished, table = sweep_table(sweep)
        with write_atomically(sweep.dir / "table.md") as file:
            file.write(text)
        table.write(sweep.dir / "table", f"sweep {config.sweep}")
        print(f"\n{text}")
        print(f"checkpoints, pictures, figures: {sweep.output_dir / 'runs'}/<run>/")
        print(f"table: {sweep.dir / 'table.md'} (also .tex, .csv)")
        if unfinished:
            sys.exit(1)

    @staticmethod
    def sweep(config: DictConfig) -> Sweep:
        return Sweep(Path(config.output_dir) / "sweeps" / config.sweep)


def _jobs(plans: Sequence[tuple[list[str], dict[str, Any]]], config: DictConfig) -> list[dict[str, Any]]:
    """The record of each job.

    Args:
        plans: each job's overrides and settled configuration.
        config: the sweep's.

    Raises ValueError if two jobs that are not the same training would have one run, if the run of a job is there with
    another configuration, or if a job has another place.
    """
    jobs = []
    claims: dict[str, dict[str, Any]] = {}  # run -> what its first job trains
    for overrides, planned in plans:
        for key in ("output_dir", "sweep"):
            if planned[key] != config[key]:
                raise ValueError(f"{key} (={planned[key]}) must be the same in all jobs of a sweep")
        data = {f"dataset.{key}": planned["dataset"].get(key) for key in ("root", "manifest", "layout")}
        ours = identity(planned) | data
        theirs = claims.setdefault(planned["name"], ours)
        if different := sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)):
            key = different[0]
            raise ValueError(
                f"two jobs would be the run {planned['name']} ({key}: {theirs.get(key)} in one, {ours.get(key)} in the "
                f"other): choose a name for each, e.g. name='{planned['name']}-${{{key}}}'"
            )
        Run(Path(config.output_dir), planned["name"]).check_config(planned)
        needs = [need["run"] for need in planned["composition"]["needs"].values()]
        job = {"overrides": overrides, "run": planned["name"], "voting": planned["voting"]["name"]}
        jobs.append(job | {"kind": _kind(ours), "needs": needs})
    return jobs


def _kind(values: dict[str, Any]) -> str:
    """Digest of what decides how long a job takes: its identity but seed and fold, and the runs of that seed."""
    kept = {k: value for k, value in values.items() if k not in ("seed", "dataset.fold", "init_from", "teacher")}
    return json_digest(kept | {"teacher": values.get("teacher") is not None})


def _check_record(sweep: Sweep, jobs: Sequence[dict[str, Any]]) -> None:
    """Raises ValueError if the sweep's folder has the record of other jobs, or a damaged one."""
    if not (sweep.dir / "sweep.json").exists():
        return
    theirs, ours = ({(job["run"], job["voting"]) for job in each} for each in (sweep.jobs(), jobs))
    differences = [
        f"{run} by the {vote} vote {where}"
        for where, jobs_there in (("only there", theirs - ours), ("only here", ours - theirs))
        for run, vote in sorted(jobs_there)
    ]
    if differences:
        more = f", and {len(differences) - 4} more" if differences[4:] else ""
        raise ValueError(
            f"{sweep.dir} is a sweep of other jobs ({', '.join(differences[:4])}{more}); its record is not "
            "overwritten: choose another name by sweep=..., or remove the folder (not the runs)"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m fer_voting.sweep",
        description="Look after a sweep that `python -m fer_voting.train -m ...` began.",
        epilog="Exit code: 0 if every job is finished, 1 if not, 2 if there is no such sweep; of `retry`, the sweep's.",
    )
    parser.add_argument(
        "action",
        choices=["status", "retry", "table"],
        help="status: which jobs are finished, running, failed (and why) or missing, with rates and time left; "
        "retry: start again what is not finished; table: the results",
    )
    parser.add_argument("sweep", metavar="DIR", help="the sweep's folder, or its name below outputs/sweeps")
    add_config_dir(parser)
    options = parser.parse_args(arguments)
    sweep = Sweep(_find(options.sweep, parser))
    try:
        if options.action == "retry":
            sys.exit(_retry(sweep))
        text, unfinished = sweep_status(sweep) if options.action == "status" else sweep_table(sweep)[:2]
    except (OSError, ValueError) as error:
        parser.error(explain(error))
    print(text, end="")
    sys.exit(1 if unfinished else 0)


def _find(text: str, parser: argparse.ArgumentParser) -> Path:
    """The sweep's folder; ends the command if there is none."""
    sweeps = Path("outputs") / "sweeps"
    for folder in (Path(text), sweeps / text):
        if (folder / "sweep.json").is_file():
            return folder
    patterns = ("*/sweep.json", "sweeps/*/sweep.json")
    there = sorted({r.parent for folder in (Path(text), sweeps) for p in patterns for r in folder.glob(p)})
    known = f"there are {', '.join(map(str, there[:8]))}" if there else f"and none below {sweeps}"
    parser.error(f"{text} is no sweep's folder (there is no sweep.json in it); {known}")


def _retry(sweep: Sweep) -> int:
    """Start the recorded command again, which does what is not finished; returns its exit code."""
    record = sweep.record()
    if all(state.status == "finished" for state in sweep.states()):
        print("every job is finished")
        return 0
    if not Path(record["cwd"]).is_dir():
        raise FileNotFoundError(f"the folder in which the sweep was started is not there any more: {record['cwd']}")
    command = f"cd {shlex.quote(record['cwd'])} && python -m fer_voting.train -m {shlex.join(record['command'])}"
    if foreign := [word for word in record["command"] if _names_code(word)]:
        raise ValueError(
            f"{sweep.dir / 'sweep.json'} names code to run ({shlex.join(foreign)}), and may come from anyone: it "
            f"is not started. If it is yours, type it: {command}"
        )
    # By the same name and in the same place, wherever outputs/ may have gone since.
    place = [f"sweep={quote(sweep.dir.name)}", f"output_dir={quote(str(sweep.output_dir))}"]
    words = ["-m", "fer_voting.train", "-m", *drop_overrides(record["command"], "sweep", "output_dir"), *place]
    print(escape(f"$ cd {shlex.quote(record['cwd'])} && python {shlex.join(words)}"), flush=True)
    # -P: a folder `fer_voting` in that place is not what is run.
    paths = [str(Path(fer_voting.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, "-P", *words], cwd=record["cwd"], env=environment).returncode


def _names_code(word: str) -> bool:
    """Whether a word of a sweep's recorded command could start other code than training: a `_target_`, a flag (such as
    --config-dir), a key of Hydra's own. Of launchers, their choice and plain values are not such."""
    key, _, value = word.lstrip("+~").partition("=")
    launcher = key == "hydra/launcher" or (
        key.startswith("hydra.launcher.") and not set(key.split(".")) & LAUNCHER_CODE
    )
    if launcher:
        return not re.fullmatch(r"[\w.,:/@%*-]*", value)
    return "_target_" in word or word.startswith("-") or re.match(r"hydra\b", key) is not None


if __name__ == "__main__":
    main()
