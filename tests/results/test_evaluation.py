"""Metrics of an evaluation, against hand-computed values, torchmetrics and scipy's bootstrap."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score, multiclass_recall

from fer_voting.results.evaluation import (
    evaluate_predictions,
    evaluation_tables,
    metric_intervals,
    metrics_of_counts,
    plot_reliability,
    write_predictions,
)
from fer_voting.votes import VOTES, Fitted

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


def predictions() -> tuple[torch.Tensor, np.ndarray]:
    """Crop logits [4, 3, 3] and labels: two of four soft decisions are right, and no vote decides for fear."""
    logits = torch.tensor(
        [
            [[3.0, 0, 0], [3, 0, 0], [0, 1, 0]],
            [[0.0, 4, 0], [0, 4, 0], [0, 4, 0]],
            [[5.0, 0, 0], [5, 0, 0], [5, 0, 0]],
            [[1.0, 0, 0], [1, 0, 0], [0, 3, 0]],
        ]
    )
    return logits, np.array([0, 1, 2, 0])


def test_a_vote_by_hand() -> None:
    """Soft decisions: happy, sad, happy (is fear), sad (is happy); the hard vote's last one is happy."""
    found = evaluate_predictions(*predictions(), NAMES, "soft", Fitted(2.0))
    assert found["precision"] == {"happy": 1 / 2, "sad": 1 / 2, "fear": None}
    assert found["f1"] == {"happy": 1 / 2, "sad": 2 / 3, "fear": 0.0}
    assert found["macro_f1"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert sum(found["calibration"]["counts"]) == sum(found["calibrated"]["counts"]) == 4
    e = np.exp
    confidences = [e(2) / (e(2) + e(1 / 3) + 1), e(4) / (e(4) + 2), e(5) / (e(5) + 2), e(1) / (e(1) + e(2 / 3) + 1)]
    assert found["calibration"]["confidence"] == pytest.approx(np.mean(confidences))
    assert found["calibrated"]["confidence"] < found["calibration"]["confidence"]
    hard = evaluate_predictions(*predictions(), NAMES, "hard")
    assert hard["precision"] == {"happy": 2 / 3, "sad": 1.0, "fear": None}
    assert (hard["temperature"], hard["calibrated"]) == (None, None)
    assert hard["calibration"]["counts"][-1] == 2  # unanimous, confidence 1
    assert hard["calibration"]["error"] == pytest.approx((2 * abs(1 / 2 - 1) + 2 * abs(1 - 2.5 / 3.5)) / 4)


def all_votes(temperature: float | None) -> dict[str, dict]:
    logits, labels = predictions()
    votes = {}
    for vote in VOTES:
        decisions = VOTES[vote](logits).argmax(1).numpy()
        counts = np.zeros((3, 3), int)
        np.add.at(counts, (labels, decisions), 1)
        found = metrics_of_counts(counts)
        recorded = {name: float(found[name]) for name in ("accuracy", "mean_recall")}
        recorded["recall"] = dict(zip(NAMES, (counts.diagonal() / counts.sum(1)).tolist(), strict=True))
        recorded["confusion_counts"] = counts.tolist()
        more = evaluate_predictions(
            logits, labels, NAMES, vote, Fitted(temperature) if vote == "soft" and temperature else None
        )
        votes[vote] = recorded | more
    return votes


def test_tables() -> None:
    text = evaluation_tables(all_votes(2.0))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line]
    by_name = {row[0]: row[1:] for row in cells}
    assert by_name["soft"][0].startswith("50.00 (0.00 to 100.00)")
    assert by_name["hard"][0].startswith("75.00 (")
    assert by_name["soft"][3].endswith("at temperature 2.00")
    assert "temperature" not in by_name["hard"][3]
    assert by_name["fear"] == ["1", "–", "0.00", "0.00"]
    assert by_name["happy"] == ["2", "50.00", "50.00", "50.00"]


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_reliability_diagram(tmp_path: Path, temperature: float | None) -> None:
    plot_reliability(tmp_path / "plot.png", all_votes(temperature), "title")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_predictions_as_rows(tmp_path: Path) -> None:
    logits, labels = predictions()
    write_predictions(tmp_path / "rows.csv", ["a", "b, c", "d", "é"], labels, logits, NAMES, "hard")
    with (tmp_path / "rows.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
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
