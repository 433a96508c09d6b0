"""Sweeps: each job in a process of its own, a record of all jobs, and the table at the end.

A sweep's folder, `<output_dir>/sweeps/<sweep>/`, holds `sweep.json` (its command, and each job's words and run) and
`table.md`. What became of a job is read from its run's folder, so that a sweep started again does what is missing.
"""

import contextlib
import logging
import multiprocessing
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fer_voting.config import CONF_DIR, compose_config, compose_with_choices, explain
from fer_voting.files import read_json, write_atomically, write_json
from fer_voting.messages import duration
from fer_voting.runs import Run, name_run, resolve
from fer_voting.voting import VOTES

__all__ = ["Sweep", "SweepRecord", "plan_job", "run_isolated"]

log = logging.getLogger(__name__)

PRELOADED = ["fer_voting.estimate", "fer_voting.tables.figures", "lightning.pytorch.loggers"]
"""What a job imports, but for `fer_voting.train` itself, which is the job's `__main__`."""


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
        planned["needs"]["selection"] = _needed(_without(overrides, "refit", "name"))
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
    for word in _without(overrides, "init_from", "refit", "name"):
        group, _, key = _key(word).partition(".")
        if group != "dataset" or key.split(".")[0] in known:
            words.append(word)
    return words


def _without(overrides: Sequence[str], *keys: str) -> list[str]:
    return [word for word in overrides if _key(word) not in keys]


def _key(word: str) -> str:
    """`dataset.size` of `+dataset.size=48`."""
    return word.lstrip("+~").partition("=")[0]


# --- a job in a process of its own ------------------------------------------------------------------------------


def run_isolated(function: Callable[[dict[str, Any]], dict[str, Any]], config: dict[str, Any]) -> dict[str, Any]:
    """`function(config)` in a process of its own, so that a job that the system kills takes no other with it.

    Returns the function's result, or `{"status": "failed", "error": ...}`: a sweep goes on after a failed job.
    Raises KeyboardInterrupt after Ctrl-C, which ends the sweep. The child dies with its parent.
    """
    # A fork of a server that has imported everything starts at once and, unlike a fork of this process, inherits
    # no threads and no CUDA context.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(function, config, theirs), name=config["name"])
    process.start()
    theirs.close()
    try:
        try:
            outcome = ours.recv()
        except EOFError:
            process.join()
            code = process.exitcode or 0
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            outcome = {"status": "failed", "error": f"the job's process was {how}"}
        process.join()
    except KeyboardInterrupt:
        process.join(30)  # it has got the same signal, and writes its last lines
        process.kill()
        raise
    if outcome["status"] == "interrupted":
        raise KeyboardInterrupt
    if outcome["status"] == "failed":
        log.info(f"{config['name']}: failed: {outcome['error']}")
    return outcome


def _child(function: Callable[[dict[str, Any]], dict[str, Any]], config: dict[str, Any], pipe: Connection) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    try:
        outcome = function(config)
    except KeyboardInterrupt:
        outcome = {"status": "interrupted"}
    except Exception as error:
        outcome = {"status": "failed", "error": explain(error)}
    pipe.send(outcome)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


# --- the record of a sweep --------------------------------------------------------------------------------------


class Sweep:
    """A sweep's folder."""

    def __init__(self, folder: Path) -> None:
        self.dir = folder.absolute()
        self.output_dir = self.dir.parent.parent

    def jobs(self) -> list[dict[str, Any]]:
        """`overrides`, `run` and `voting` of each job, in the order in which they run."""
        return read_json(self.dir / "sweep.json")["jobs"]

    def write(self, words: list[str], jobs: list[dict[str, Any]]) -> None:
        write_json(self.dir / "sweep.json", {"command": words, "jobs": jobs})

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
        synthetic = any(row.pop("synthetic") for row in rows)
        lines = _markdown(rows)
        if synthetic:
            lines += ["", "Synthetic faces: figures of `faces` say nothing about people."]
        notes = list(dict.fromkeys(notes))
        return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n", len(notes)


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


def _markdown(rows: list[dict[str, Any]]) -> list[str]:
    """Aligned Markdown; columns that are empty in every row are left out."""
    columns = [name for name in rows[0] if any(row[name] != "" for row in rows)]
    width = {name: max(len(name), *(len(str(row[name])) for row in rows)) for name in columns}
    ruler = [":" + "-" * (width[n] - 1) if n in ("run", "status") else "-" * (width[n] - 1) + ":" for n in columns]

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    body = [
        line([str(row[n]).ljust(width[n]) if n in ("run", "status") else str(row[n]).rjust(width[n]) for n in columns])
        for row in rows
    ]
    return [line([name.ljust(width[name]) for name in columns]), line(ruler), *body]


class SweepRecord(Callback):
    """Hydra's callback of every command: writes a sweep's job list first, and its table last."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        words = [
            *(f"{k}={v}" for k, v in (config.hydra.sweeper.params or {}).items()),
            *config.hydra.overrides.task,
        ]
        parsed = OverridesParser.create().parse_overrides(words)
        jobs = []
        for overrides in BasicSweeper.split_arguments(parsed, None)[0]:
            with contextlib.suppress(Exception):  # what is wrong with it, Hydra says when it comes to that job
                planned = plan_job(overrides, *compose_with_choices(overrides))
                jobs.append({"overrides": overrides, "run": planned["name"], "voting": planned["voting"]["name"]})
        self.sweep(config).write(words, jobs)
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
