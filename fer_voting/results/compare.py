"""Accuracies over seeds, and differences between methods on the same images.

Accuracies are shares of 1; tables print percent and percentage points.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_voting.results.load import Predictions, RunGroup, RunRecord
from fer_voting.results.statistics import group_ids, holm, mcnemar_p, paired_difference
from fer_voting.votes import PAPER_VOTES

Correct = Mapping[int, NDArray[np.bool_]]
"""Seed -> whether the network of that seed was right about each image, [N]."""


@dataclass(frozen=True)
class Method:
    """A split and a vote. `refit` is the vote of a refit, "" for runs that select their epoch by validation."""

    split: str
    vote: str
    refit: str = ""


@dataclass(frozen=True)
class Accuracy:
    """A method's accuracy on a part: `seeds` maps seed -> accuracy, `missing` the name of a run without it -> reason.

    Each run is measured at the vote's own best epoch; a `Comparison` has both votes on the same weights. Of a
    cross-validation, a seed's accuracy is over the images of all its folds, each judged by the run that tests it, and
    `folds` maps fold -> accuracy, the mean over seeds. `runs` have an accuracy.
    """

    method: Method
    part: str
    seeds: dict[int, float]
    mean: float | None
    std: float | None
    missing: dict[str, str]
    runs: int
    folds: dict[int, float]


@dataclass(frozen=True)
class Comparison:
    """Difference between two methods' accuracies on the same `images`; None where no seed has both.

    Attributes:
        first, second: methods of one group of runs, or names of any networks.
        low, high: ends of the 95 % interval of `difference` (`statistics.paired_difference`).
        p_values: seed -> McNemar's exact p.
        holm: seed -> that p, corrected for all p-values of the table.
        missing: name of a run that is left out -> reason.
        groups: their number (e.g. of people), if the images have groups: interval and p-values are then over groups.
    """

    first: Method | str
    second: Method | str
    part: str
    images: int | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_values: dict[int, float] = field(default_factory=dict)
    holm: dict[int, float] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    groups: int | None = None


def accuracies(group: RunGroup, part: str, refit: str = "") -> list[Accuracy]:
    """Accuracy of every split by every vote; of the baseline, whose single output has no vote, by one."""
    return [
        accuracy(group, Method(split, vote, refit), part)
        for split in group.splits(refit)
        for vote in (PAPER_VOTES[:1] if split == "baseline" else PAPER_VOTES)
    ]


def accuracy(group: RunGroup, method: Method, part: str) -> Accuracy:
    shares: dict[int, dict[int | None, float]] = {}
    images: dict[int | None, int] = {}
    missing = group.missing(method.split, method.refit)
    for run in group.finished(method.split, method.refit):
        metrics = run.metrics(method.vote, part) or {}
        if "accuracy" in metrics:
            shares.setdefault(run.seed, {})[run.fold] = metrics["accuracy"]
            images[run.fold] = sum(run.result["counts"][part].values())
        else:
            lacking = f"metrics of the {method.vote} vote" if part in run.result["counts"] else "images"
            missing[run.name] = f"no {part} {lacking}"
    seeds = {
        seed: fmean(of.values(), [images[fold] for fold in of]) if len(of) > 1 else next(iter(of.values()))
        for seed, of in shares.items()
    }
    folds = {
        fold: fmean(of[fold] for of in shares.values() if fold in of)
        for fold in group.folds
        if fold is not None and fold in images
    }
    values = list(seeds.values())
    mean, std = fmean(values) if values else None, stdev(values) if len(values) > 1 else None
    return Accuracy(method, part, seeds, mean, std, missing, sum(map(len, shares.values())), folds)


def comparisons(group: RunGroup, part: str, refit: str = "") -> list[Comparison]:
    """Every split with crops against the baseline by the paper's votes, and its soft vote against its hard."""
    splits = [split for split in group.splits(refit) if split != "baseline"]
    baseline = Method("baseline", "soft", refit)
    pairs = [(Method(split, vote, refit), baseline) for split in splits for vote in PAPER_VOTES[:2]]
    pairs += [(Method(split, "soft", refit), Method(split, "hard", refit)) for split in splits]
    return compare(group, pairs, part)


def compare_with_baseline(group: RunGroup, methods: Sequence[Method]) -> list[Comparison]:
    """Each method, all of one vote, against the baseline, which is left out of them, on test."""
    return compare(group, [(m, replace(m, split="baseline")) for m in methods if m.split != "baseline"], "test")


def compare(group: RunGroup, pairs: Sequence[tuple[Method, Method]], part: str) -> list[Comparison]:
    """The comparisons of one table: runs of the same seed on the same images, both votes on the same weights.

    The votes are applied to the stored crop logits of the deciding vote's best epoch (`RunRecord.predictions`).
    A difference between votes is therefore no difference between epochs.
    """
    methods = {(method.split, method.refit) for pair in pairs for method in pair}
    stored = {key: _read(group, *key, part) for key in methods}
    return correct_for_number([_compare(first, second, part, stored) for first, second in pairs])


def correct_for_number(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons with `holm`, corrected for all p-values of all of them."""
    corrected = iter(holm([p for comparison in comparisons for p in comparison.p_values.values()]))
    return [replace(one, holm={seed: next(corrected) for seed in one.p_values}) for one in comparisons]


def compare_correct(first: Correct, second: Correct, *, groups: NDArray[np.str_] | None = None) -> dict[str, Any]:
    """`images`, `groups`, `difference`, `low`, `high` and `p_values` of a `Comparison`, over the seeds of `first`.

    Args:
        groups: name of each image's group, "" for one of its own, [N].
    """
    pairs = {seed: (first[seed], second[seed]) for seed in first}
    of_first, of_second = np.stack(list(pairs.values()), axis=1)  # of [2, S, N]
    ids = group_ids(groups)
    difference = paired_difference(of_first, of_second, groups=ids)
    return {
        "images": of_first.shape[1],
        "groups": None if ids is None else int(ids.max()) + 1,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "p_values": {seed: mcnemar_p(*pair, groups=ids) for seed, pair in pairs.items()},
    }


def join_groups(of_predictions: Iterable[NDArray[np.str_] | None]) -> NDArray[np.str_] | None:
    """The groups of the images of several predictions, one after the other; None if some have none."""
    groups = list(of_predictions)
    known = [names for names in groups if names is not None]
    return np.concatenate(known) if len(known) == len(groups) else None


Stored = tuple[dict[int, dict[int | None, tuple[str, Predictions]]], dict[str, str]]
"""Seed -> fold (None without folds) -> a run's name and predictions; and name of a run that has none -> reason."""


def _read(group: RunGroup, split: str, refit: str, part: str) -> Stored:
    stored: dict[int, dict[int | None, tuple[str, Predictions]]] = {}
    missing = group.missing(split, refit)
    for run in group.finished(split, refit):
        try:
            stored.setdefault(run.seed, {})[run.fold] = run.name, run.predictions(part)
        except ValueError as error:
            missing[run.name] = str(error)
    return stored, missing


def _compare(first: Method, second: Method, part: str, stored: Mapping[tuple[str, str], Stored]) -> Comparison:
    (by_first, missing), (by_second, also_missing) = (stored[one.split, one.refit] for one in (first, second))
    missing = missing | also_missing
    seeds = sorted(by_first.keys() & by_second.keys())
    runs = [by[seed] for by in (by_first, by_second) for seed in seeds]
    # Every seed on the same images: the folds that all of these runs have.
    folds = [fold for fold in dict.fromkeys(itertools.chain(*runs)) if all(fold in of_seed for of_seed in runs)]
    images: dict[int | None, Predictions] = {}
    correct: dict[int, list[NDArray[np.bool_]]] = {}
    for seed in seeds if folds else ():
        pairs = [(by_first[seed][fold][1], by_second[seed][fold][1]) for fold in folds]
        others = [
            by[seed][fold][0]
            for fold, pair in zip(folds, pairs, strict=True)
            if not all(_same_images(images.setdefault(fold, pair[0]), one) for one in pair)
            for by in (by_first, by_second)
        ]
        missing |= dict.fromkeys(others, "evaluated on other images")
        if not others:
            methods = zip(zip(*pairs, strict=True), (first, second), strict=True)
            correct[seed] = [np.concatenate([one.correct(method.vote) for one in of]) for of, method in methods]
    if not correct:
        return Comparison(first, second, part, missing=missing)
    by_method = ({seed: pair[i] for seed, pair in correct.items()} for i in (0, 1))
    groups = join_groups(images[fold].groups for fold in folds)
    return Comparison(first, second, part, **compare_correct(*by_method, groups=groups), missing=missing)


def _same_images(one: Predictions, other: Predictions) -> bool:
    return np.array_equal(one.names, other.names) and np.array_equal(one.labels, other.labels)


def confusion(runs: Sequence[RunRecord], vote: str, part: str) -> NDArray[np.integer] | None:
    """Confusion counts [K, K] (true class, decision), summed over runs; None if no run has them."""
    metrics = (run.metrics(vote, part) or {} for run in runs)
    counts = [np.array(values["confusion_counts"]) for values in metrics if "confusion_counts" in values]
    return np.sum(counts, axis=0) if counts else None


def normalise_confusion(counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """Share of each decision among the images of the true class, `[K, K]` (section 3.4); 0 for a class without images.

    Args:
        counts: confusion counts `[K, K]` (true class, decision).
    """
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def recalls(runs: Sequence[RunRecord], vote: str, part: str) -> dict[str, float] | None:
    """Class -> recall of the classes that have images, the mean over seeds, each over all its folds; None if no run has
    it."""
    by_seed: dict[int, list[RunRecord]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run)
    counts = [each for of_seed in by_seed.values() if (each := confusion(of_seed, vote, part)) is not None]
    if not counts:
        return None
    names = runs[0].result["class_names"]  # of all runs: they have one data set
    present = [name for name, images in zip(names, counts[0].sum(axis=1), strict=True) if images]
    by_name = [dict(zip(names, normalise_confusion(each).diagonal().tolist(), strict=True)) for each in counts]
    return {name: fmean(recall[name] for recall in by_name) for name in present}
