"""Metrics of an evaluation, against hand-computed values, torchmetrics and scipy's bootstrap."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, bootstrap, t
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score, multiclass_recall

from fer_voting.results.evaluation import (
    confusion_counts,
    counts_of_groups,
    evaluate_predictions,
    evaluation_tables,
    metric_intervals,
    metrics_of_counts,
    write_predictions,
)
from fer_voting.votes import CropOutputs, WeightedVote, hard_vote, soft_vote

NAMES = ("happy", "sad", "fear")
COUNTS = np.array([[6, 2, 0], [1, 1, 0], [0, 0, 0]])
"""No image of fear, and no decision for it."""


def test_metrics_by_hand() -> None:
    found = metrics_of_counts(COUNTS)
    assert found["accuracy"] == pytest.approx(7 / 10)
    assert found["mean_recall"] == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert found["macro_f1"] == pytest.approx((12 / 15 + 2 / 5) / 2)


def pairs_of(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Label and decision of each image."""
    labels, decisions = np.nonzero(counts)
    return tuple(np.repeat(each, counts[labels, decisions]) for each in (labels, decisions))


@pytest.mark.parametrize("empty", [None, 0, 3])
def test_metrics_are_those_of_torchmetrics(empty: int | None) -> None:
    counts = np.random.default_rng(3).integers(0, 9, (5, 5))
    if empty is not None:
        counts[empty] = 0
        counts[:, empty] = 0
    labels, decisions = (torch.tensor(each) for each in pairs_of(counts))
    found = metrics_of_counts(counts)
    for name, theirs in (
        ("accuracy", multiclass_accuracy(decisions, labels, 5, average="micro")),
        ("mean_recall", multiclass_recall(decisions, labels, 5, average="macro")),
        ("macro_f1", multiclass_f1_score(decisions, labels, 5, average="macro")),
    ):
        assert found[name] == pytest.approx(theirs.item(), abs=1e-6)
        assert metrics_of_counts(np.stack([counts, COUNTS.repeat(2, 0)[:5, [0, 1, 2, 0, 1]]]))[name][0] == found[name]


@pytest.mark.parametrize("wrong", [0, 2])
def test_the_means_are_over_the_classes_with_images(wrong: int) -> None:
    """Ten images of happy, all found; ten of sad, all taken for one class; of fear, none."""
    counts = np.zeros((3, 3), int)
    counts[0, 0] = 10
    counts[1, wrong] = 10
    found = metrics_of_counts(counts)
    assert found["mean_recall"] == 0.5
    assert found["macro_f1"] == pytest.approx(0.5 if wrong else 1 / 3)  # happy: 20 / 20, or 20 / 30


def test_intervals_are_those_of_scipy() -> None:
    counts = np.random.default_rng(0).multinomial(300, np.array([50, 9, 3, 10, 20, 2, 1, 1, 4]) / 100).reshape(3, 3)
    pairs = pairs_of(counts)

    def macro_f1(labels: np.ndarray, decisions: np.ndarray) -> float:
        drawn = np.zeros((3, 3), int)
        np.add.at(drawn, (labels, decisions), 1)
        return float(metrics_of_counts(drawn)["macro_f1"])

    theirs = bootstrap(
        pairs, macro_f1, paired=True, vectorized=False, n_resamples=3000, method="percentile", rng=1
    ).confidence_interval
    low, high = metric_intervals(counts)["macro_f1"]
    assert (low, high) == (pytest.approx(theirs.low, abs=0.01), pytest.approx(theirs.high, abs=0.01))
    assert low < metrics_of_counts(counts)["macro_f1"] < high
    assert metric_intervals(counts) == metric_intervals(counts)


def test_intervals_have_a_fortieth_of_the_resamples_on_either_side() -> None:
    """The number of right decisions among resampled images is binomial."""
    low, high = metric_intervals(np.array([[5600, 1400], [600, 2400]]))["accuracy"]
    deviation = (0.8 * 0.2 / 10_000) ** 0.5
    assert low == pytest.approx(binom.ppf(0.025, 10_000, 0.8) / 10_000, abs=0.1 * deviation)
    assert high == pytest.approx(binom.ppf(0.975, 10_000, 0.8) / 10_000, abs=0.1 * deviation)


def test_intervals_over_groups_leave_out_one_at_a_time() -> None:
    rng = np.random.default_rng(0)
    labels, decisions, groups = rng.integers(0, 3, 90), rng.integers(0, 3, 90), rng.choice(["a", "b", "c", "d"], 90)
    counts = confusion_counts(labels, decisions, 3)
    of_groups = counts_of_groups(labels, decisions, 3, groups)
    assert of_groups is not None
    assert (of_groups.sum(axis=0) == counts).all()
    without = np.array(
        [
            metrics_of_counts(confusion_counts(labels[groups != g], decisions[groups != g], 3))["macro_f1"]
            for g in "abcd"
        ]
    )
    half = t.ppf(0.975, 3) * (3 / 4 * ((without - without.mean()) ** 2).sum()) ** 0.5
    value = metrics_of_counts(counts)["macro_f1"]
    low, high = metric_intervals(counts, of_groups)["macro_f1"]
    assert (low, high) == (pytest.approx(max(0, value - half)), pytest.approx(min(1, value + half)))
    assert counts_of_groups(labels, decisions, 3, None) is None
    assert counts_of_groups(labels, decisions, 3, np.full(90, "a")) is None


def predictions() -> tuple[CropOutputs, np.ndarray]:
    """Outputs of 4 images and labels: two of four soft decisions are right, and no vote decides for fear."""
    logits = torch.tensor(
        [
            [[3.0, 0, 0], [3, 0, 0], [0, 1, 0]],
            [[0.0, 4, 0], [0, 4, 0], [0, 4, 0]],
            [[5.0, 0, 0], [5, 0, 0], [5, 0, 0]],
            [[1.0, 0, 0], [1, 0, 0], [0, 3, 0]],
        ]
    )
    return CropOutputs(logits), np.array([0, 1, 2, 0])


def test_a_vote_by_hand() -> None:
    """Soft decisions: happy, sad, happy (is fear), sad (is happy); the hard vote's last one is happy."""
    found = evaluate_predictions(*predictions(), NAMES, replace(soft_vote, temperature=2.0), fitted=True)
    assert found["precision"] == {"happy": 1 / 2, "sad": 1 / 2, "fear": None}
    assert found["f1"] == {"happy": 1 / 2, "sad": 2 / 3, "fear": 0.0}
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    intervals = metric_intervals(np.array([[1, 1, 0], [0, 1, 0], [1, 0, 0]]))
    assert found["intervals"] == {name: list(ends) for name, ends in intervals.items()}
    assert sum(found["calibration"]["counts"]) == sum(found["calibrated"]["counts"]) == 4
    e = np.exp
    confidences = [e(2) / (e(2) + e(1 / 3) + 1), e(4) / (e(4) + 2), e(5) / (e(5) + 2), e(1) / (e(1) + e(2 / 3) + 1)]
    assert found["calibration"]["confidence"] == pytest.approx(np.mean(confidences))
    assert found["calibrated"]["confidence"] < found["calibration"]["confidence"]
    assert found["groups"] is None
    people = np.array(["a", "b", "a", ""])
    grouped = evaluate_predictions(*predictions(), NAMES, soft_vote, groups=people)
    assert grouped["groups"] == 3
    assert grouped["intervals"]["accuracy"] == [0.0, 1.0]  # of three people, one of whom is right in half of the images
    hard = evaluate_predictions(*predictions(), NAMES, hard_vote)
    assert hard["precision"] == {"happy": 2 / 3, "sad": 1.0, "fear": None}
    assert (hard["temperature"], hard["calibrated"]) == (None, None)
    assert hard["calibration"]["counts"][-1] == 2  # unanimous, confidence 1
    assert hard["calibration"]["error"] == pytest.approx((2 * abs(1 / 2 - 1) + 2 * abs(1 - 2.5 / 3.5)) / 4)


def test_a_class_with_one_image_counts_as_much_as_any() -> None:
    found = metrics_of_counts(np.array([[3, 1], [0, 1]]))
    assert found["mean_recall"] == pytest.approx((3 / 4 + 1) / 2)
    assert found["macro_f1"] == pytest.approx((6 / 7 + 2 / 3) / 2)


def test_bins_without_images_have_no_value() -> None:
    found = evaluate_predictions(*predictions(), NAMES, hard_vote)["calibration"]
    filled = [count > 0 for count in found["counts"]]
    assert [each is not None for each in found["confidences"]] == filled
    assert [each is not None for each in found["accuracies"]] == filled
    assert (found["confidences"][-1], found["accuracies"][-1]) == (1.0, 0.5)


LAST_CROP = WeightedVote("weighted", weights=(0.0, 0.0, 1.0))
"""The last crops decide for sad, sad, happy, sad."""


def test_a_vote_decides_by_what_it_was_fitted_with() -> None:
    found = evaluate_predictions(*predictions(), NAMES, LAST_CROP, fitted=True)
    assert found["precision"] == {"happy": 0.0, "sad": 1 / 3, "fear": None}
    assert found["weights"] == [0.0, 0.0, 1.0]


def test_tables() -> None:
    def metrics(accuracy: float, calibrated: float | None, temperature: float | None) -> dict[str, object]:
        return {
            "accuracy": accuracy, "mean_recall": 0.25, "macro_f1": 0.2,
            "intervals": {"accuracy": [0.4, 0.8], "mean_recall": [0.125, 0.5], "macro_f1": [0.1, 0.3]},
            "calibration": {"error": 0.1}, "temperature": temperature, "calibrated": {"error": calibrated},
            "recall": {"happy": 0.5, "fear": None}, "confusion_counts": [[750, 750], [0, 0]],
            "precision": {"happy": 1.0, "fear": None}, "f1": {"happy": 2 / 3, "fear": None},
        }  # fmt: skip

    tables, note = evaluation_tables({"soft": metrics(0.5, 0.05, 2.0), "hard": metrics(0.625, None, None)})
    text = f"{tables['metrics by vote'].markdown()}\n{note}\n\n{tables['metrics by class, soft vote'].markdown()}"
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    others = ["25.00 (12.50 to 50.00)", "20.00 (10.00 to 30.00)"]
    assert [rows[0], *rows[2:4]] == [
        ["vote", "accuracy (%)", "mean recall (%)", "macro F1 (%)", "calibration error (%)"],
        ["soft", "50.00 (40.00 to 80.00)", *others, "10.00; 5.00 at temperature 2.00"],
        ["hard", "62.50 (40.00 to 80.00)", *others, "10.00"],
    ]
    assert [rows[-4], *rows[-2:]] == [
        ["class", "images", "precision (%)", "recall (%)", "F1 (%)"],
        ["happy", "1,500", "100.00", "50.00", "66.67"],
        ["fear", "0", "–", "–", "–"],
    ]
    assert note.endswith(
        "over images; a network of another seed may lie outside. Without images here, and not in the means: fear."
    )
    _, note = evaluation_tables({"soft": metrics(0.5, None, None) | {"groups": 1200}})
    assert "95 % intervals over 1,200 groups; " in note


def test_predictions_as_rows(tmp_path: Path) -> None:
    outputs, labels = predictions()
    write_predictions(tmp_path / "rows.csv", ["a", "b, c", "d", "é"], labels, outputs, NAMES, hard_vote)
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        text = file.read()
    assert text.count("\n") == 5
    assert "\r" not in text
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["name"] for row in rows] == ["a", "b, c", "d", "é"]
    assert [(row["label"], row["predicted"]) for row in rows] == [
        ("happy", "happy"),
        ("sad", "sad"),
        ("fear", "happy"),
        ("happy", "happy"),
    ]
    assert [float(row["agreement"]) for row in rows] == pytest.approx([2 / 3, 1, 1, 2 / 3], abs=1e-6)
    assert [float(row["confidence"]) for row in rows] == pytest.approx([2.5 / 3.5, 1, 1, 2.5 / 3.5], abs=1e-6)
    assert float(rows[0]["sad"]) == pytest.approx(1 / 3.5, abs=1e-6)


def test_rows_are_of_the_fitted_vote(tmp_path: Path) -> None:
    outputs, labels = predictions()
    fitted = replace(LAST_CROP, temperature=2.0)
    write_predictions(tmp_path / "rows.csv", list("abcd"), labels, outputs, NAMES, fitted)
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert [row["predicted"] for row in rows] == ["sad", "sad", "happy", "sad"]
    assert float(rows[0]["confidence"]) == pytest.approx(np.e**0.5 / (np.e**0.5 + 2), abs=1e-6)


def test_every_image_needs_its_name(tmp_path: Path) -> None:
    outputs, labels = predictions()
    with pytest.raises(ValueError, match="longer"):
        write_predictions(tmp_path / "rows.csv", ["a", "b"], labels, outputs, NAMES, soft_vote)
    assert not (tmp_path / "rows.csv").exists()
