"""Measured figures with their bounds, seconds of functions that take turns, and the files that benchmarks write."""

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import torch

from fer_voting.results.table import Table
from fer_voting.system.atomic import read_json, write_json
from fer_voting.system.environment import describe_device, git_commit, package_versions
from fer_voting.system.messages import progress_bar

LEAST_SECONDS = 0.1
"""A shorter function is called several times a measurement."""


@dataclass
class Row:
    """One measured figure, with its bound, if it has one."""

    what: str
    figure: float
    unit: str = ""
    least: float | None = None
    most: float | None = None

    @property
    def target(self) -> str:
        bounds = {"at least": self.least, "at most": self.most}
        return ", ".join(f"{name} {bound:g}" for name, bound in bounds.items() if bound is not None)

    @property
    def verdict(self) -> str:
        met = (self.least is None or self.figure >= self.least) and (self.most is None or self.figure <= self.most)
        return ("met" if met else "missed") if self.target else ""


@dataclass
class BenchmarkResult:
    """Rows of one part of a benchmark, and of everything that was timed the seconds of each repeat."""

    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, what: str, figure: float, unit: str = "", **bounds: float | None) -> None:
        """A row; `least` and `most` are its bounds."""
        self.rows.append(Row(what, figure, unit, **bounds))

    def time(self, what: str, functions: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
        """Seconds of the fastest call of each function; they take turns."""
        calls = {}
        for name, function in functions.items():
            function()  # warm-up
            calls[name] = max(1, round(LEAST_SECONDS / max(seconds_of(function, 1), 1e-6))) if repeats > 1 else 1
        for _ in progress_bar(range(repeats), desc=what, unit="round", leave=False):
            for name, function in functions.items():
                self.seconds.setdefault(name, []).append(seconds_of(function, calls[name]))
        return {name: min(self.seconds[name]) for name in functions}


def seconds_of(function: Callable[[], Any], calls: int) -> float:
    """Seconds that one call takes: the mean over `calls` calls."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - start) / calls


def measured_here(device: str = "cpu", **more: Any) -> dict[str, Any]:
    """Where and when something is measured; says on stderr if the processor is busy."""
    load = os.getloadavg()[0]
    if device == "cpu" and load > 0.5:
        print(f"this machine is busy (load {load:.1f}): the figures will be wrong", file=sys.stderr)
    here = {"device": describe_device(torch.device(device)), "git_commit": git_commit()}
    return {**here, "date": date.today().isoformat(), "load_before": load, "versions": package_versions(), **more}


def write_part(path: Path, environment: Mapping[str, Any], rows: Iterable[Any], **more: Any) -> None:
    """Write a part's JSON: `environment`, `rows` (of dataclasses that have a `verdict`), and what else is given."""
    values = [asdict(row) | {"verdict": row.verdict} for row in rows]
    write_json(path, {"environment": environment, "rows": values, **more})


def read_parts(folder: Path, names: Iterable[str], row_type: Callable[..., Any] = Row) -> dict[str, dict[str, Any]]:
    """Content of each part's JSON in a folder, by name, its rows as objects again."""
    parts = {name: read_json(path) for name in names if (path := folder / f"{name}.json").exists()}
    for part in parts.values():
        part["rows"] = [row_type(**{key: row[key] for key in row if key != "verdict"}) for row in part["rows"]]
    return parts


def table(rows: Sequence[Row]) -> Table:
    """The rows, each with its bound."""
    cells = [[row.what, row.unit, row.target, row.verdict, _three_digits(row.figure)] for row in rows]
    return Table(["what", "unit", "target", "", "figure"], cells, left=4)


def _three_digits(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
