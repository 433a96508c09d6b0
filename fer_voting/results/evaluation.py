"""The evaluation of one network: metrics with intervals, tables, predictions as CSV.

Shapes: N images, V crops an image, K classes, R resamples.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_voting.results.calibration import reliability
from fer_voting.results.statistics import COVERAGE, RESAMPLES, group_ids, half_interval_without
from fer_voting.results.table import Table
from fer_voting.system.atomic import write_atomically
from fer_voting.system.text import csv_safe
from fer_voting.votes import CropOutputs, Vote


def confusion_counts(labels: NDArray[np.int64], decisions: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Images by true class and decision: int64 [K, K] of class ids [N]."""
    return np.bincount(classes * labels + decisions, minlength=classes**2).reshape(classes, classes)


def metrics_of_counts(counts: NDArray[np.integer]) -> dict[str, NDArray[np.float64]]:
    """Accuracy, mean of the per-class recalls, and macro F1 of confusion counts: each float64 [...].

    The means are over the classes that have images, as scikit-learn's balanced accuracy is, whatever was decided.

    Args:
        counts: int [..., K, K] (true class, decision), one matrix or many.
    """
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    actual, decided = counts.sum(axis=-1), counts.sum(axis=-2)
    present = actual > 0
    return {
        "accuracy": right.sum(axis=-1) / actual.sum(axis=-1),
        "mean_recall": (right / np.maximum(actual, 1)).sum(axis=-1) / present.sum(axis=-1),
        "macro_f1": (2 * right / np.maximum(actual + decided, 1)).sum(axis=-1) / present.sum(axis=-1),
    }


def metric_intervals(
    counts: NDArray[np.integer], of_groups: NDArray[np.integer] | None = None
) -> dict[str, tuple[float, float]]:
    """Ends of the 95 % interval of each of `metrics_of_counts` over images, or over groups of them, e.g. people.

    It covers the choice of the images, not the choice of the training's seed. Over images it is a bootstrap's
    (percentiles): images with the same label and decision are interchangeable, so that drawing N images with
    replacement is one multinomial draw of the cells. Over groups it is the jackknife's, which leaves out a group at a
    time, with Student's quantile (G - 1 degrees of freedom): a bootstrap of few groups is too narrow.

    Args:
        counts: int [K, K] (true class, decision).
        of_groups: int [G, K, K], the same of each group; G >= 2.
    """
    if of_groups is not None:
        half = {name: half_interval_without(v) for name, v in metrics_of_counts(counts - of_groups).items()}
        metrics = metrics_of_counts(counts)
        return {n: (max(0.0, float(metrics[n] - half[n])), min(1.0, float(metrics[n] + half[n]))) for n in metrics}
    cells, images = counts.ravel(), int(counts.sum())
    rng = np.random.default_rng(0)  # the same interval each time
    resampled = rng.multinomial(images, cells / images, size=RESAMPLES).reshape(-1, *counts.shape)
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    intervals = {name: np.quantile(values, ends).tolist() for name, values in metrics_of_counts(resampled).items()}
    return {name: (low, high) for name, (low, high) in intervals.items()}


def counts_of_groups(
    labels: NDArray[np.int64], decisions: NDArray[np.int64], classes: int, groups: NDArray[np.str_] | None
) -> NDArray[np.int64] | None:
    """`confusion_counts` of each group's images: int64 [G, K, K]; None without two groups or more.

    Args:
        groups: name of each image's group, "" for one of its own, [N].
    """
    if (ids := group_ids(groups)) is None:
        return None
    number = int(ids.max()) + 1
    cells = (ids * classes + labels) * classes + decisions
    return np.bincount(cells, minlength=number * classes**2).reshape(number, classes, classes)


def accuracy_with_interval(
    labels: NDArray[np.int64], decisions: NDArray[np.int64], classes: int, groups: NDArray[np.str_] | None = None
) -> dict[str, float | tuple[float, float]]:
    """`accuracy` of decisions int64 [N], and its `interval` (`metric_intervals`)."""
    counts = confusion_counts(labels, decisions, classes)
    accuracy = float(metrics_of_counts(counts)["accuracy"])
    of_groups = counts_of_groups(labels, decisions, classes, groups)
    return {"accuracy": accuracy, "interval": metric_intervals(counts, of_groups)["accuracy"]}


def evaluate_predictions(
    outputs: CropOutputs,
    labels: NDArray[np.int64],
    class_names: Sequence[str],
    vote: Vote,
    fitted: bool = False,
    groups: NDArray[np.str_] | None = None,
) -> dict[str, Any]:
    """A vote's metrics beyond accuracy and recall, as plain numbers for JSON.

    `macro_f1`; `precision` by class (None where it is never decided for) and `f1` (None without images);
    `intervals` of `accuracy`, `mean_recall`, `macro_f1`: [low, high], over `groups` (their number; None: over images);
    `calibration`: `error` (expected calibration
    error), `confidence` (mean), and by bin `counts`, `confidences`, `accuracies`, at temperature 1; the parameters of a
    fitted vote, else None as `temperature`; `calibrated`: the calibration at the fitted temperature, or None.

    Args:
        outputs: of the N images.
        labels: int64 [N].
        class_names: K.
        vote: the vote.
        fitted: whether its parameters are known. A vote whose scores are probabilities has no temperature.
        groups: name of each image's group, e.g. the person, "" for one of its own, [N].
    """
    fitted = fitted and not vote.is_probability
    decisions = vote.scores(outputs).argmax(dim=1)
    counts = confusion_counts(labels, decisions.numpy(), len(class_names))
    of_groups = counts_of_groups(labels, decisions.numpy(), len(class_names), groups)
    right, actual, decided = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)

    def calibration(temperature: float) -> dict[str, Any]:
        probabilities = replace(vote, temperature=temperature).probabilities(outputs)
        confidences = probabilities.gather(1, decisions[:, None])[:, 0]
        return reliability(confidences.numpy(), decisions.numpy() == labels)

    return {
        "macro_f1": float(metrics_of_counts(counts)["macro_f1"]),
        "precision": _shares(class_names, right, decided),
        "f1": _shares(class_names, 2 * right, np.where(actual, actual + decided, 0)),
        "intervals": {name: list(ends) for name, ends in metric_intervals(counts, of_groups).items()},
        "groups": None if of_groups is None else len(of_groups),
        "calibration": calibration(1.0),
        **(vote.to_values() if fitted else {"temperature": None}),
        "calibrated": calibration(vote.temperature) if fitted else None,
    }


def _shares(names: Sequence[str], parts: NDArray[np.int64], wholes: NDArray[np.int64]) -> dict[str, float | None]:
    return {
        name: part / whole if whole else None
        for name, part, whole in zip(names, parts.tolist(), wholes.tolist(), strict=True)
    }


def evaluation_tables(votes: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Table], str]:
    """Tables by title, the metrics of each vote with their intervals and those of each class by the soft vote; and a
    note: what the intervals are over, and the classes without images, which the means leave out.

    Args:
        votes: vote -> `recall` by class, `confusion_counts`, and what `evaluate_predictions` returns.
    """
    keys = ("accuracy", "mean_recall", "macro_f1")
    by_vote = Table(["vote", "accuracy (%)", "mean recall (%)", "macro F1 (%)", "calibration error (%)"], [])
    for name, metrics in votes.items():
        by_vote.rows.append([name, *(_with_interval(metrics, key) for key in keys), _calibration_text(metrics)])
    chosen = votes["soft"]
    by_class = Table(["class", "images", "precision (%)", "recall (%)", "F1 (%)"], [])
    images = np.sum(chosen["confusion_counts"], axis=1).tolist()
    for count, (name, recall) in zip(images, chosen["recall"].items(), strict=True):
        shares = (chosen["precision"][name], recall, chosen["f1"][name])
        by_class.rows.append([name, f"{count:,}", *("–" if s is None else f"{100 * s:.2f}" for s in shares)])
    absent = ", ".join(name for name, recall in chosen["recall"].items() if recall is None)
    named = f" Without images here, and not in the means: {absent}." if absent else ""
    return {"metrics by vote": by_vote, "metrics by class, soft vote": by_class}, interval_note(chosen) + named


def interval_note(metrics: Mapping[str, Any]) -> str:
    """A sentence that says what the intervals of an evaluation are over, as `intervals_over`."""
    return f"In brackets: {intervals_over(metrics)}; a network of another seed may lie outside."


def intervals_over(metrics: Mapping[str, Any]) -> str:
    """`95 % intervals over 118 groups`, or `95 % bootstrap intervals over images`.

    Args:
        metrics: of a vote; `groups` is the number of the images' groups, if they have any.
    """
    groups = metrics.get("groups")
    return f"95 % intervals over {groups:,} groups" if groups else "95 % bootstrap intervals over images"


def adaptive_text(curve: Mapping[str, Any]) -> str:
    """The result of `votes.adaptive_curve` in a few lines: full map, chosen threshold, soft vote, a few points."""
    whole, vote, chosen = curve["curve"][0], curve["vote"], curve["chosen"]
    lines = ["accuracy by arithmetic (GMACs an image):"]
    lines += [f"  whole map           {whole['accuracy']:.2%} at {whole['gmacs']:.3f}"]
    if chosen is not None:
        extra = (chosen["gmacs"] - whole["gmacs"]) / (vote["gmacs"] - whole["gmacs"])
        lines += [
            f"  adaptive vote       {chosen['accuracy']:.2%} at {chosen['gmacs']:.3f}, threshold "
            f"{chosen['threshold']:.3f}: the crops of {chosen['share']:.0%} of the images, {extra:.0%} of the vote's "
            "extra arithmetic"
        ]
    lines += [f"  soft vote of crops  {vote['accuracy']:.2%} at {vote['gmacs']:.3f}"]
    points = ", ".join(f"{point['gmacs']:.3f}: {point['accuracy']:.2%}" for point in curve["curve"][::4])
    return "\n".join([*lines, f"  curve               {points}"])


def recalibrated(metrics: Mapping[str, Any]) -> bool:
    """Whether the vote's temperature is known and changes its probabilities."""
    return metrics["temperature"] not in (None, 1.0)


def _with_interval(metrics: Mapping[str, Any], name: str) -> str:
    low, high = metrics["intervals"][name]
    return f"{100 * metrics[name]:.2f} ({100 * low:.2f} to {100 * high:.2f})"


def _calibration_text(metrics: Mapping[str, Any]) -> str:
    text = f"{100 * metrics['calibration']['error']:.2f}"
    if recalibrated(metrics):
        text += f"; {100 * metrics['calibrated']['error']:.2f} at temperature {metrics['temperature']:.2f}"
    return text


def write_predictions(
    path: Path,
    names: Sequence[str],
    labels: NDArray[np.int64] | None,
    outputs: CropOutputs,
    class_names: Sequence[str],
    vote: Vote,
    numbers: Mapping[str, NDArray[np.floating]] | None = None,
) -> None:
    """Write a row an image: `name, label, predicted, confidence, <probability of each class>, agreement, <numbers>`.

    `agreement` is the share of the crops whose own decision is the predicted class. Columns hold no image.
    Names are safe to open in a spreadsheet (`system.text.csv_safe`).

    Args:
        names: N.
        labels: int64 [N]; None without classes.
        outputs: of the N images, for the classes.
        class_names: K.
        vote: the vote.
        numbers: further columns [N] by header.
    """
    columns: list[tuple[str, Any]] = [("name", map(csv_safe, names))]
    if labels is not None:
        probabilities = vote.probabilities(outputs)
        predicted = vote.scores(outputs).argmax(dim=1)
        confidences = probabilities.gather(1, predicted[:, None])[:, 0]
        agreement = (vote.deciding_crops(outputs).argmax(dim=2) == predicted[:, None]).float().mean(dim=1)
        classes = [csv_safe(each) for each in class_names]
        for header, ids in (("label", labels), ("predicted", predicted)):
            columns.append((header, [classes[i] for i in ids.tolist()]))
        columns.append(("confidence", _cells(confidences)))
        columns += [(str(name), _cells(each)) for name, each in zip(classes, probabilities.T, strict=True)]
        columns.append(("agreement", _cells(agreement)))
    columns += [(header, _cells(values)) for header, values in (numbers or {}).items()]
    headers, cells = zip(*columns, strict=True)
    with write_atomically(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(headers)
        rows.writerows(zip(*cells, strict=True))


def _cells(values: Any) -> list[str]:
    return [f"{value:.6f}" for value in values.tolist()]
