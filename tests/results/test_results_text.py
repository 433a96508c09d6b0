"""Tables as text: what a reader sees in each cell."""

from pathlib import Path

import pytest
from helpers.runs import make_run

from fer_voting.results.compare import Accuracy, Comparison, Method, accuracies
from fer_voting.results.load import RunTable, load_runs
from fer_voting.results.text import (
    accuracy_table,
    accuracy_text,
    comparison_table,
    cost_table,
    describe,
    interval_text,
    missing_lines,
    p_text,
    title,
)

NO_RUNS = RunTable(Path("outputs"), [], {})
M1, BASELINE = Method("m1", "soft"), Method("baseline", "soft")


def over_seeds(seeds: dict[int, float], mean: float | None, std: float | None, **missing: str) -> Accuracy:
    return Accuracy(M1, "val", seeds, mean, std, missing, len(seeds), {})


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (over_seeds({0: 0.6, 1: 0.7}, 0.65, 0.0707), "65.00 ± 7.07"),
        (over_seeds({0: 0.6}, 0.6, None, other="not run"), "60.00"),
        (over_seeds({}, None, None, a="not run", b="not run"), "not run"),
        (over_seeds({}, None, None, a="not run", b="failed: no space"), "failed"),
    ],
)
def test_cell_of_an_accuracy(given: Accuracy, text: str) -> None:
    assert accuracy_text(given) == text


def test_names_of_networks() -> None:
    assert describe(M1) == "crops after module 1, soft vote"
    assert describe(Method("m2", "hard")) == "crops after module 2, hard vote"
    assert describe(Method("baseline", "hard")) == "baseline"


@pytest.mark.parametrize(("p", "text"), [(1.0, "1.000"), (0.0404, "0.040"), (0.001, "0.001"), (0.00002, "2e-5")])
def test_p_values(p: float, text: str) -> None:
    assert p_text(p) == text


def test_titles_say_whose_data_set_and_setting_it_is() -> None:
    def of(*section: str) -> str:
        return title("Table 3", "accuracy", NO_RUNS.group(*section))

    assert of("affectnet") == "Table 3: accuracy on AffectNet"
    assert of("rafdb", "width16") == (
        "Table 3 under a variant that is not the paper's: accuracy on RAF-DB, variant width16"
    )
    assert of("fer2013") == "Table 3 for a data set that is not the paper's: accuracy on FER2013"
    assert of("faces", "demo") == (
        "Table 3 for a data set that is not the paper's: accuracy on drawn faces (synthetic), variant demo"
    )
    assert of("my faces").endswith("on my faces")


def test_paper_stands_beside_ours_on_its_own_data_and_protocol_alone() -> None:
    section = NO_RUNS.group("affectnet", seeds=[0])
    table = accuracy_table(section, accuracies(section, "val"))
    assert table.header == ["architecture", "runs", "soft vote", "paper", "hard vote", "paper", "softmax vote"]
    assert table.rows == [
        ["crops after module 1", "0 of 1", "not run", "63.69", "not run", "63.14", "not run"],
        ["crops after module 2", "0 of 1", "not run", "63.51", "not run", "62.34", "not run"],
        ["crops after module 3", "0 of 1", "not run", "62.80", "not run", "62.34", "not run"],
        ["baseline", "0 of 1", "not run", "62.29", "", "", ""],
    ]
    for other in (NO_RUNS.group("affectnet", "demo"), NO_RUNS.group("fer2013")):
        assert "paper" not in accuracy_table(other, accuracies(other, "val")).header
    # The paper judged on test after refit only.
    assert "paper" not in accuracy_table(section, accuracies(section, "test")).header
    refitted = accuracy_table(section, accuracies(section, "test", refit="soft"))
    assert [row[3] for row in refitted.rows] == ["63.06", "–", "–", "61.97"]


def test_rows_of_comparisons() -> None:
    pairs = [
        Comparison(M1, BASELINE, "val", 3500, 0.0123, -0.001, 0.025, {0: 0.04, 1: 0.0002}, {0: 0.08, 1: 0.0006}),
        Comparison(M1, Method("m1", "hard"), "val", missing={"run": "not run"}),
    ]
    table = comparison_table(NO_RUNS.group("rafdb"), pairs)
    header = ["", "against", "runs", "images", "difference", "paper", "95 % interval", "McNemar's p", "Holm's p"]
    assert table.header == header
    name, interval = "crops after module 1, soft vote", "-0.10 to +2.50 (images only, two seeds)"
    assert table.rows == [
        [name, "baseline", "2", "3,500", "+1.23", "+2.62", interval, "0.040, 2e-4", "0.080, 6e-4"],
        [name, "hard vote", "0", "–", "not run", "+0.82", "–", "–", "–"],
    ]
    assert "paper" not in comparison_table(NO_RUNS.group("faces"), pairs).header


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        (1, "-0.10 to +2.50 (images only, one seed)"),
        (2, "-0.10 to +2.50 (images only, two seeds)"),
        (3, "-0.10 to +2.50"),
    ],
)
def test_an_interval_says_what_it_does_not_cover(seeds: int, text: str) -> None:
    p_values = dict.fromkeys(range(seeds), 0.5)
    assert interval_text(Comparison(M1, BASELINE, "val", 3500, 0.0123, -0.001, 0.025, p_values)) == text


def test_missing_runs_by_reason_and_seed() -> None:
    missing = [
        {"faces-m1-seed0": "not run", "faces-m1-seed2": "not run"},
        {"faces-m2-seed0": "damaged: x", "mine": "not run"},
    ]
    assert missing_lines(missing) == ["not run (3): faces-m1-seed{0,2}, mine", "damaged: x (1): faces-m2-seed0"]


def test_costs_are_means_of_what_was_measured(tmp_path: Path) -> None:
    labels = [0, 1, 2, 3, 4, 5, 6]
    for seed, (mib, rate) in enumerate([(5.0, 100.0), (7.0, 1300.0), (None, None)]):
        words = ["dataset=faces", "model.width=4", "split=m1", f"seed={seed}"]
        cost = {
            "forward_mib_per_image": mib,
            "images_per_second": rate,
            "seconds": 30.0,
            "gmacs": 0.5,
            "torch_gmacs": 0.4,
        }
        make_run(tmp_path, words, {"val": labels}, labels, **cost)
    table = cost_table(load_runs(tmp_path).group("faces", "width4"))
    assert table.rows[0] == ["crops after module 1", "6.00", "0.500", "700", "30", "0.400"]
    assert table.rows[-1] == ["baseline", "–", "–", "–", "–", "–"]
