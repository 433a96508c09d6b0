"""The comparison's table and differences, over runs whose figures were chosen."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from helpers.runs import make_run

from experiments.comparison import comparison_report, origin_line, shared_a_device, table_report
from fer_voting.results.load import RunGroup, load_runs

pytestmark = pytest.mark.slow

LABELS = [0, 1, 2, 3, 4, 5, 6] * 4


def wrong_at(*images: int) -> list[int]:
    return [(label + 1) % 7 if i in images else label for i, label in enumerate(LABELS)]


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> RunGroup:
    """On test the baseline is wrong about 4 images, m1 about one of seed 0 and two of seed 1; 100 s each, in turns."""
    folder = tmp_path_factory.mktemp("outputs")
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    for seed in (0, 1):
        for split, wrong in (("baseline", [0, 1, 2, 3]), ("m1", [4, 5][: 1 + seed])):
            words = ["dataset=fer2013", "dataset.root=there", f"split={split}", f"seed={seed}"]
            run = make_run(folder, words, {"val": LABELS, "test": wrong_at(*wrong)}, LABELS)
            run.write_result((run.result() or {}) | {"started": start.isoformat()})
            start += timedelta(seconds=100)
    return load_runs(folder).group("fer2013")


def cells(markdown: list[str], start: str) -> list[str]:
    lines = (line for text in markdown for line in text.splitlines())
    return [
        cell.strip() for cell in next(line for line in lines if line.startswith(f"| {start}")).strip("|").split("|")
    ]


def test_accuracy_on_test_beside_its_cost(section: RunGroup) -> None:
    report = table_report(section)
    m1 = cells(report.markdown, "crops after module 1")
    assert m1[1:3] == ["2 of 3", "94.64 ± 2.53"]  # 27 and 26 of 28
    assert m1[5] == "5.10"  # MiB
    assert m1[7:] == ["50", "2 min"]
    assert cells(report.markdown, "baseline")[2] == "85.71 ± 0.00"
    assert cells(report.markdown, "crops after module 2")[1:3] == ["0 of 3", "not run"]
    assert list(report.plots) == ["cost"]


def test_times_leave_the_table_of_runs_that_shared_a_device(section: RunGroup) -> None:
    first = section.finished()[0]
    at_once = replace(
        first, result=first.result | {"started": "2026-01-02T03:05:44+00:00", "device": first.result["device"]}
    )
    shared = replace(section, runs=[*section.runs, replace(at_once, seed=2)])
    text = "\n".join(table_report(shared).markdown)
    assert "images/s" not in text
    assert "a run took" not in text
    assert "5.10" in text  # MiB stay
    assert "Runs shared a device, so their times are not shown." in text


def test_devices_are_shared_at_the_same_time_only() -> None:
    def result(minute: int, device: str) -> dict[str, Any]:
        return {"started": f"2026-01-02T03:{minute:02}:00+00:00", "seconds": 600.0, "device": device}

    assert shared_a_device([result(0, "a"), result(9, "a")])
    assert shared_a_device([result(9, "a"), result(0, "b"), result(0, "a")])
    assert not shared_a_device([result(0, "a"), result(10, "a"), result(9, "b")])


def test_differences_on_the_same_images(section: RunGroup) -> None:
    report = comparison_report(section)
    pair = cells(report.markdown, "crops after module 1, soft vote | baseline")
    assert pair[2:5] == ["2", "28", "+8.93"]  # 3 and 2 of 28
    assert "images only, two seeds" in pair[5]
    assert pair[6] == "0.375, 0.688"  # 4 against 1: 2 (1 + 5) / 2^5; 4 against 2: 2 (1 + 6 + 15) / 2^6
    assert list(report.plots) == ["curves-loss", "curves-accuracy", "confusion-m1", "confusion-baseline"]


def test_origin_has_seeds_and_hours(section: RunGroup) -> None:
    text = origin_line(section)
    assert text.startswith("Seed 0, 1; commit 0123456789ab; 32-true on a made-up device")
    assert text.endswith("4 runs, 0.1 hours of training in all.")
