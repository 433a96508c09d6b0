"""What a benchmark measured: rows with their bounds, their table, and the seconds of what took turns."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fer_voting.results.markdown import Table, markdown
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
class Part:
    """Results of a part of the benchmark: its rows, and of everything that was timed the seconds of each repeat."""

    rows: list[Row] = field(default_factory=list)
    seconds: dict[str, list[float]] = field(default_factory=dict)

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


def table(rows: list[Row]) -> str:
    """The rows as a Markdown table, each with its bound."""
    cells = [[row.what, row.unit, row.target, row.verdict, _three_digits(row.figure)] for row in rows]
    return markdown(Table(["what", "unit", "target", "", "figure"], cells, left=4))


def _three_digits(figure: float) -> str:
    return f"{figure:,.0f}" if abs(figure) >= 100 else f"{figure:.3g}"
