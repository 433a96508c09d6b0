"""Points of the plot of accuracy against cost."""

from pathlib import Path

import pytest
from helpers.runs import MIB, make_run

from fer_voting.results.compare import accuracies
from fer_voting.results.cost import cost_points, mean_cost
from fer_voting.results.load import RunTable, load_runs
from fer_voting.results.statistics import CostPoint

LABELS = [0, 1, 2, 3, 4, 5, 6]


def test_points_are_means_over_runs_and_the_papers_stand_beside_its_protocol(tmp_path: Path) -> None:
    for seed, decided in ((0, LABELS), (1, [0, 1, 2, 3, 4, 5, 0])):
        make_run(tmp_path, ["dataset=faces", "model.width=4", "split=m2", f"seed={seed}"], {"val": decided}, LABELS)
    section = load_runs(tmp_path).group("faces", "width4")
    ours, theirs = cost_points(section, accuracies(section, "val"))
    assert [point.split for point in ours] == ["m2"]
    assert ours[0].accuracy == pytest.approx(100 * 13 / 14)
    assert ours[0].std == pytest.approx(100 / 7 / 2**0.5, rel=1e-4)
    assert ours[0].forward_mib == MIB["m2"]
    assert theirs == []


def test_memory_of_lean_runs_is_not_averaged_with_that_of_others(tmp_path: Path) -> None:
    words = ["dataset=faces", "model.width=4", "split=m2"]
    make_run(tmp_path, [*words, "seed=0", "model.memory=lean"], {"val": LABELS}, LABELS, forward_mib_per_image=1.0)
    section = load_runs(tmp_path).group("faces", "width4")
    assert mean_cost(section.finished("m2"), "forward_mib_per_image") == 1
    make_run(tmp_path, [*words, "seed=1"], {"val": LABELS}, LABELS)
    section = load_runs(tmp_path).group("faces", "width4")
    assert mean_cost(section.finished("m2"), "forward_mib_per_image") == MIB["m2"]
    assert mean_cost(section.finished("m2"), "images_per_second") == 50


def test_the_papers_points() -> None:
    section = RunTable(Path("outputs"), [], {}).group("affectnet")
    ours, theirs = cost_points(section, accuracies(section, "val"))
    assert ours == []
    assert theirs == [
        CostPoint("m1", 63.69, None, 40.34, 6.66),
        CostPoint("m2", 63.51, None, 23.34, 4.85),
        CostPoint("m3", 62.8, None, 14.84, 3.05),
        CostPoint("baseline", 62.29, None, 10.08, 1.26),
    ]
