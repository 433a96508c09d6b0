"""Sweeps: what a job needs, a record of all jobs, and the table at the end.

A sweep's folder, `<output_dir>/sweeps/<sweep>/`, holds `sweep.json` (its command, and each job's words and run) and
`table.md`. What became of a job is read from its run's folder, so that a sweep started again does what is missing.

    python -m fer_voting.sweep status|retry|table DIR
"""

import argparse
import contextlib
import logging
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fer_voting.config import CONF_DIR, compose_config, compose_with_choices
from fer_voting.files import read_json, write_atomically, write_json
from fer_voting.messages import duration
from fer_voting.runs import Run, name_run, read_history, resolve
from fer_voting.tables.markdown import Table, markdown
from fer_voting.voting import VOTES

__all__ = ["JobState", "Sweep", "SweepRecord", "main", "plan_job", "seconds_left", "words_without"]

log = logging.getLogger(__name__)


def plan_job(overrides: Sequence[str], config: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The resolved configuration of a job, with the names of its run and of the runs that it needs.

    Args:
        overrides: the job's words on the command line.
        config: what they compose to, without Hydra's node.
        choices: the option of each group.

    Adds `needs`: of the run whose weights it starts from (`weights`) and of the run that selected the epochs of a
    refit (`selection`), the name (`run`) and the command that makes it (`command`).
    """
    planned = {**resolve(config), "name": config.name or name_run(config, choices), "needs": {}}
    if planned["init_from"] in _datasets():
        planned["needs"]["weights"] = _needed(_words_for_dataset(overrides, planned["init_from"]))
        planned["init_from"] = planned["needs"]["weights"]["run"]
    if planned["refit"]:
        planned["needs"]["selection"] = _needed(words_without(overrides, "refit", "name"))
    return planned


def _needed(words: Sequence[str]) -> dict[str, str]:
    name = name_run(*compose_with_choices(words))
    return {"run": name, "command": " ".join(["python -m fer_voting.train", *map(shlex.quote, words)])}


def _datasets() -> set[str]:
    return {path.stem for path in (CONF_DIR / "dataset").glob("*.yaml")}


def _words_for_dataset(overrides: Sequence[str], dataset: str) -> list[str]:
    """The words of the run of another data set that is like this one: its own values of `dataset` hold there too,
    where there is such a value, but for where and in which form the files lie."""
    known = compose_config([f"dataset={dataset}"]).dataset.keys() - {"root", "layout", "manifest"}
    words = [f"dataset={dataset}"]
    for word in words_without(overrides, "init_from", "refit", "name"):
        group, _, key = _key(word).partition(".")
        if group != "dataset" or key.split(".")[0] in known:
            words.append(word)
    return words


def words_without(words: Iterable[str], *keys: str) -> list[str]:
    """The words that don't set one of these keys, or a value below it."""
    return [w for w in words if not any(f"{_key(w)}.".startswith(f"{key}.") for key in keys)]


def _key(word: str) -> str:
    """`dataset.size` of `+dataset.size=48`."""
    return word.lstrip("+~").partition("=")[0]


# --- the record of a sweep --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobState:
    """What became of a job.

    Attributes:
        status: as `Run.status` says.
        epochs: how many are done, and of how many; None before the training begins.
        images_per_second: of a running job, validation included.
        seconds_left: of a running job, once an epoch is done.
        error: the last line of a failed job's error.
    """

    run: str
    status: str
    epochs: tuple[int, int] | None = None
    images_per_second: float | None = None
    seconds: float | None = None
    seconds_left: float | None = None
    error: str | None = None


class Sweep:
    """A sweep's folder."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder.absolute()
        self.output_dir = self.dir.parent.parent

    def record(self) -> dict[str, Any]:
        """Content of sweep.json. Raises FileNotFoundError, or ValueError if it is damaged."""
        return read_json(self.dir / "sweep.json")

    def jobs(self) -> list[dict[str, Any]]:
        """`overrides`, `run` and `voting` of each job, in the order in which they run."""
        return self.record()["jobs"]

    def write(self, words: list[str], jobs: list[dict[str, Any]], cwd: Path | None = None) -> None:
        """Record the words that were typed after `python -m fer_voting.train -m`, the jobs that they mean, and the
        folder in which they were typed."""
        record = {"command": words, "cwd": str(cwd or Path.cwd()), "jobs": jobs}
        write_json(self.dir / "sweep.json", record)

    def states(self) -> list[JobState]:
        """Each run's state, in the order of the jobs; the votes of one training, once."""
        return [_state(Run(self.output_dir, name)) for name in dict.fromkeys(job["run"] for job in self.jobs())]

    def table(self) -> tuple[str, int]:
        """The jobs' results as a Markdown table, and how many jobs are not finished."""
        rows, notes = [], []
        for job in self.jobs():
            run = Run(self.output_dir, job["run"])
            status = run.status()
            result = run.result() if status in ("finished", "failed") else None
            if result is None or status == "failed":
                notes.append(f"{run.name}: {status}{': ' + result['error'] if result else ''}")
            rows.append(_row(job, status, result))
        rows = list({tuple(row.items()): row for row in rows}.values())  # the votes of one training, once
        synthetic = any(row["synthetic"] for row in rows)
        rows = [{name: cell for name, cell in row.items() if name != "synthetic"} for row in rows]
        lines = [_table(rows).rstrip()]
        if synthetic:
            lines += ["", "Synthetic faces: figures of `faces` say nothing about people."]
        notes = list(dict.fromkeys(notes))
        return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n", len(notes)

    def status(self) -> tuple[str, int]:
        """Where each job stands, with rates and time left, as text, and how many jobs are not finished."""
        states = self.states()
        rows = [
            {
                "run": state.run,
                "status": state.status,
                "epochs": f"{state.epochs[0]} of {state.epochs[1]}" if state.epochs else "",
                "images/s": _number(state.images_per_second, 0),
                "time": duration(state.seconds) if state.seconds is not None else "",
                "left": duration(state.seconds_left) if state.seconds_left is not None else "",
            }
            for state in states
        ]
        notes = [f"{state.run}: {state.error}" for state in states if state.error]
        counts = Counter(state.status for state in states)
        summary = f"{len(states)} runs: {', '.join(f'{count} {status}' for status, count in counts.items())}"
        left = seconds_left(states)
        if left is not None:
            summary += f"; about {duration(left)} left"
        unfinished = len(states) - counts["finished"]
        return "\n".join([_table(rows), *notes, *([""] if notes else []), summary]) + "\n", unfinished


def _state(run: Run) -> JobState:
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
    """Of a whole sweep: the running jobs' own, and for each job that is still to come the mean of the finished; as
    many side by side as run now. None if nothing is left, or nothing tells."""
    finished = [state.seconds for state in states if state.status == "finished" and state.seconds is not None]
    running = [state for state in states if state.status == "running"]
    waiting = len(states) - len(finished) - len(running)
    mean = sum(finished) / len(finished) if finished else None
    own = [mean if state.seconds_left is None else state.seconds_left for state in running]
    parts = [*own, *[mean] * waiting]
    known = [part for part in parts if part is not None]
    return sum(known) / max(1, len(running)) if parts and len(known) == len(parts) else None


def _row(job: dict[str, Any], status: str, result: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"run": job["run"], "status": status, "synthetic": False}
    finished = result if status == "finished" else None
    for stage in ("val", "test"):
        for vote in VOTES:
            figures = finished["votes"].get(vote, {}).get(stage) if finished else None
            row[f"{stage} {vote} (%)"] = f"{100 * figures['accuracy']:.2f}" if figures else ""
    row["MiB/image"] = row["GMACs/image"] = row["images/s"] = row["time"] = ""
    if finished:
        row["synthetic"] = finished["synthetic"]
        row["MiB/image"] = _number(finished["forward_mib_per_image"], 2)
        row["GMACs/image"] = _number(finished["gmacs"], 3)
        row["images/s"] = _number(finished["images_per_second"], 0)
        row["time"] = duration(finished["seconds"])
    return row


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(rows: list[dict[str, Any]]) -> str:
    """Markdown; columns that are empty in every row are left out."""
    columns = [name for name in rows[0] if any(row[name] != "" for row in rows)] if rows else []
    return markdown(Table(columns, [[str(row[name]) for name in columns] for row in rows], left=2))


class SweepRecord(Callback):
    """Hydra's callback of every command: writes a sweep's job list first, and its table last."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        params = [f"{k}={v}" for k, v in (config.hydra.sweeper.params or {}).items()]
        task = list(config.hydra.overrides.task)
        parsed = OverridesParser.create().parse_overrides([*params, *task])
        jobs = []
        for overrides in BasicSweeper.split_arguments(parsed, None)[0]:
            with contextlib.suppress(Exception):  # what is wrong with it, Hydra says when it comes to that job
                planned = plan_job(overrides, *compose_with_choices(overrides))
                jobs.append({"overrides": overrides, "run": planned["name"], "voting": planned["voting"]["name"]})
        typed = [*words_without(config.hydra.overrides.hydra, "hydra.mode"), *task]
        self.sweep(config).write(typed, jobs, Path(config.hydra.runtime.cwd))
        log.info(f"sweep {config.sweep}: {len(jobs)} jobs ({self.sweep(config).dir})")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        sweep = self.sweep(config)
        table, unfinished = sweep.table()
        with write_atomically(sweep.dir / "table.md") as file:
            file.write(table)
        print(f"\n{table}")
        print(f"checkpoints, pictures, figures: {sweep.output_dir / 'runs'}/<run>/\ntable: {sweep.dir / 'table.md'}")
        if unfinished:
            sys.exit(1)

    @staticmethod
    def sweep(config: DictConfig) -> Sweep:
        return Sweep(Path(config.output_dir) / "sweeps" / config.sweep)


# --- the command ------------------------------------------------------------------------------------------------


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
    options = parser.parse_args(arguments)
    sweep = Sweep(_find(options.sweep, parser))
    try:
        if options.action == "retry":
            sys.exit(_retry(sweep))
        text, unfinished = sweep.status() if options.action == "status" else sweep.table()
    except (OSError, ValueError) as error:
        parser.error(str(error))
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
    told = f"there are {', '.join(map(str, there[:8]))}" if there else f"and none below {sweeps}"
    parser.error(f"{text} is no sweep's folder (there is no sweep.json in it); {told}")


def _retry(sweep: Sweep) -> int:
    """Start the recorded command again, which does what is not finished; returns its exit code."""
    record = sweep.record()
    if all(state.status == "finished" for state in sweep.states()):
        print("every job is finished")
        return 0
    if not Path(record["cwd"]).is_dir():
        raise FileNotFoundError(f"the folder in which the sweep was started is not there any more: {record['cwd']}")
    # By the same name and in the same place, wherever outputs/ may have gone since.
    place = [f"sweep='{sweep.dir.name}'", f"output_dir='{sweep.output_dir}'"]
    words = ["-m", "fer_voting.train", "-m", *words_without(record["command"], "sweep", "output_dir"), *place]
    print(f"$ cd {shlex.quote(record['cwd'])} && python {shlex.join(words)}", flush=True)
    return subprocess.run([sys.executable, *words], cwd=record["cwd"]).returncode


if __name__ == "__main__":
    main()
