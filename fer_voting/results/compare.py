"""Figures over seeds, and differences between networks that judged the same images.

Accuracies are shares of 1 here; tables print percent and percentage points.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fer_voting.results.load import Decisions, RunRecord, Section
from fer_voting.results.statistics import mcnemar_p, mean_std, paired_difference

__all__ = [
    "TABLE_VOTES",
    "Comparison",
    "Figure",
    "Judge",
    "accuracies",
    "accuracy",
    "compare",
    "comparisons",
    "confusion",
    "recalls",
]

TABLE_VOTES = ("soft", "hard", "softprob")
"""The paper's two, then the other reading of its soft vote."""


@dataclass(frozen=True)
class Judge:
    """A network and its vote. `refit` is the vote of a refit, "" for runs that select by validation."""

    split: str
    vote: str
    refit: str = ""


@dataclass(frozen=True)
class Figure:
    """A judge's accuracy: `seeds` maps seed -> accuracy, `holes` the name of a run without it -> why."""

    judge: Judge
    stage: str
    seeds: dict[int, float]
    mean: float | None
    std: float | None
    holes: dict[str, str]


@dataclass(frozen=True)
class Comparison:
    """How much more accurate `first` is than `second` on the same `images`; fields None where no seed has both.

    Attributes:
        low, high: 95 % bootstrap interval of `difference`.
        p_values: seed -> McNemar's exact p.
        holes: what a seed lacks that is left out: name of its run -> why.
    """

    first: Judge
    second: Judge
    stage: str
    images: int | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_values: dict[int, float] = field(default_factory=dict)
    holes: dict[str, str] = field(default_factory=dict)


def accuracies(section: Section, stage: str, votes: Sequence[str] = TABLE_VOTES, refit: str = "") -> list[Figure]:
    """Accuracy of every split by every vote; of the baseline, whose single output every vote agrees on, by one."""
    figures = []
    for split in section.splits(refit):
        for vote in votes[:1] if split == "baseline" else votes:
            figures.append(accuracy(section, Judge(split, vote, refit), stage))
    return figures


def accuracy(section: Section, judge: Judge, stage: str) -> Figure:
    seeds, holes = {}, section.holes(judge.split, judge.refit)
    for record in section.finished(judge.split, judge.refit):
        if figures := record.figures(judge.vote, stage):
            seeds[record.place.seed] = figures["accuracy"]
        else:
            of_vote = f" figures of the {judge.vote} vote" if stage in record.result["counts"] else " images"
            holes[record.name] = f"no {stage}{of_vote}"
    return Figure(judge, stage, seeds, *mean_std(list(seeds.values())), holes)


def compare(section: Section, first: Judge, second: Judge, stage: str) -> Comparison:
    """Runs of the same seed side by side, image by image."""
    ours, theirs = (_decisions(section, judge, stage) for judge in (first, second))
    holes = ours[1] | theirs[1]
    pairs = {seed: (ours[0][seed], theirs[0][seed]) for seed in sorted(ours[0].keys() & theirs[0].keys())}
    images = next(iter(pairs.values()))[0] if pairs else None
    for seed, pair in list(pairs.items()):
        assert images is not None
        if not all(_same_images(images, decisions) for decisions in pair):
            holes[section.run_name(first.split, seed, first.refit)] = "judged other images"
            del pairs[seed]
    if images is None or not pairs:
        return Comparison(first, second, stage, holes=holes)
    right = np.stack([[decisions.correct for decisions in pair] for pair in pairs.values()], axis=1)  # [2, S, N]
    difference = paired_difference(right[0], right[1])
    p_values = {seed: mcnemar_p(*right[:, i]) for i, seed in enumerate(pairs)}
    return Comparison(
        first,
        second,
        stage,
        len(images.names),
        difference.mean,
        difference.low,
        difference.high,
        p_values,
        holes,
    )


def comparisons(section: Section, stage: str, refit: str = "") -> list[Comparison]:
    """Every variant against the baseline by the paper's votes, and its soft vote against its hard."""
    variants = [split for split in section.splits(refit) if split != "baseline"]
    baseline = Judge("baseline", "soft", refit)
    return [
        *(compare(section, Judge(s, v, refit), baseline, stage) for s in variants for v in TABLE_VOTES[:2]),
        *(compare(section, Judge(s, "soft", refit), Judge(s, "hard", refit), stage) for s in variants),
    ]


def _decisions(section: Section, judge: Judge, stage: str) -> tuple[dict[int, Decisions], dict[str, str]]:
    """Seed -> decisions, and what is missing."""
    found, holes = {}, section.holes(judge.split, judge.refit)
    for record in section.finished(judge.split, judge.refit):
        try:
            found[record.place.seed] = record.decisions(judge.vote, stage)
        except ValueError as error:
            holes[record.name] = str(error)
    return found, holes


def _same_images(one: Decisions, other: Decisions) -> bool:
    return np.array_equal(one.names, other.names) and np.array_equal(one.labels, other.labels)


def confusion(records: Sequence[RunRecord], vote: str, stage: str) -> np.ndarray | None:
    """Confusion counts [K, K] (true class, decision), summed over runs; None if no run has them."""
    counts = [np.array(figures["confusion_counts"]) for r in records if (figures := r.figures(vote, stage))]
    return np.sum(counts, axis=0) if counts else None


def recalls(records: Sequence[RunRecord], vote: str, stage: str) -> dict[str, float] | None:
    """Class -> recall, the mean over runs; None if no run has it."""
    found = [figures["recall"] for r in records if (figures := r.figures(vote, stage))]
    return {name: float(np.mean([recall[name] for recall in found])) for name in found[0]} if found else None
