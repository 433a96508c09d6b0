"""Rows, their bounds, and what is timed in turns."""

import time

import pytest

from experiments.bench.measure import BenchmarkResult, Row


def test_a_ratio_is_of_what_was_timed() -> None:
    result = BenchmarkResult()
    best = result.time("sleep", {"long": lambda: time.sleep(0.02), "short": lambda: time.sleep(0.002)}, repeats=3)
    assert best["long"] >= 0.02
    assert 0.002 <= best["short"] < best["long"]
    assert {name: len(seconds) for name, seconds in result.seconds.items()} == {"long": 3, "short": 3}


@pytest.mark.parametrize(
    ("row", "target", "verdict"),
    [
        (Row("x", 2.0), "", ""),
        (Row("x", 2.0, least=2.0), "at least 2", "met"),
        (Row("x", 1.9, least=2.0), "at least 2", "missed"),
        (Row("x", 0.5, most=0.5), "at most 0.5", "met"),
        (Row("x", 0.6, most=0.5), "at most 0.5", "missed"),
    ],
)
def test_verdicts(row: Row, target: str, verdict: str) -> None:
    assert (row.target, row.verdict) == (target, verdict)
