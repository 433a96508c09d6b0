"""Statistics of accuracies and of differences between two networks: pure functions of arrays.

Shapes: S seeds, N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, norm, t

RESAMPLES = 10_000
"""Draws of a bootstrap over images."""
COVERAGE = 0.95
ENOUGH_SEEDS = 3
"""Fewer seeds say nothing about the training's randomness: intervals are then over images only."""


@dataclass(frozen=True)
class Difference:
    """Difference of two accuracies, each a share of 1, and the ends of its 95 % interval (`paired_difference`)."""

    mean: float
    low: float
    high: float


def group_ids(words: Sequence[str] | NDArray[np.str_] | None) -> NDArray[np.int64] | None:
    """Number of each image's group from 0, [N]; "" is a group of its own. None without two groups: one only says
    nothing about others, and the images are then taken for independent."""
    if words is None:
        return None
    ids = np.unique(np.asarray(words, dtype=np.str_), return_inverse=True)[1].astype(np.int64)
    own = np.flatnonzero(np.asarray(words) == "")
    ids[own] = len(words) + np.arange(len(own))
    numbers = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    return numbers if numbers.max(initial=0) else None


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], *, groups: NDArray[np.int64] | None = None
) -> Difference:
    """Difference of two networks' accuracies on the same images after trainings from the same seeds, first - second.

    From ENOUGH_SEEDS on, the interval is for the mean over all seeds and images like these: half its width is the root
    of the sum of two squares, Student's quantile (S - 1 degrees of freedom) times the standard error over seeds, and
    the normal quantile times the standard error over images (Zou and Donner 2008, doi:10.1002/sim.3095). The standard
    errors are those of an analysis of variance of seeds x images. Few seeds make it wide, where seeds differ: the
    quantile of three is 4.3. A bootstrap of three seeds covers 79 to 87 % instead of 95 %.

    Images of a group, e.g. of a person, are not independent: with `groups`, the standard error over images is the
    jackknife's that leaves out a group at a time, and its quantile is Student's (G - 1 degrees of freedom). Where each
    image is a group of its own, that standard error is the one over images.

    With fewer seeds the interval is over images (or groups) only: for the mean of these very networks.

    Args:
        first, second: bool [S, N], whether the network of each seed was right about each image; N >= 2.
        groups: int64 [N], number of each image's group from 0 (`group_ids`); two or more.
    """
    if first.shape != second.shape:
        raise ValueError(f"`first` {first.shape} and `second` {second.shape} must have one shape")
    images = first.shape[1]
    outcomes = np.subtract(first, second, dtype=np.float64)  # 1: only the first is right; -1: only the second
    of_seeds, mean = outcomes.mean(axis=1), float(outcomes.mean())
    ids = np.arange(images) if groups is None else groups
    sizes = np.bincount(ids)
    rows = zip(outcomes, of_seeds, strict=True)
    losses = np.stack([np.bincount(ids, row - of_seed) for row, of_seed in rows]) / (images - sizes)
    half = half_interval(group_variance(losses), of_seeds, None if groups is None else len(sizes))
    return Difference(mean, float(mean - half), float(mean + half))


def group_variance(losses: NDArray[np.float64]) -> float:
    """Variance of a mean over seeds by the choice of the groups of images: the jackknife's.

    Args:
        losses: by how much the value of each seed falls without the images of each group, [S, G].
    """
    seeds, groups = losses.shape
    jackknife = (groups - 1) / groups
    of_groups = losses.mean(axis=0)
    variance = jackknife * float((of_groups**2).sum())
    if seeds >= ENOUGH_SEEDS:
        # Effects peculiar to a group under a seed are in the variance over seeds too, and count once.
        rest = losses - of_groups
        variance = max(variance - jackknife * float((rest**2).sum()) / ((seeds - 1) * seeds), 0.0)
    return variance


def half_interval_without(values: NDArray[np.float64]) -> float:
    """Half the width of the 95 % interval of one network's value over groups of images.

    Args:
        values: the value without the images of each group, [G].
    """
    return half_interval(group_variance((values.mean() - values)[None]), (), len(values))


def half_interval(
    image_variance: float, of_seeds: Sequence[float] | NDArray[np.float64], groups: int | None = None
) -> float:
    """Half the width of the 95 % interval of a mean over seeds, as in `paired_difference`.

    Args:
        image_variance: variance of the mean over the choice of the images.
        of_seeds: the value of each seed, [S].
        groups: their number, if the variance is over groups.
    """
    quantile = (1 + COVERAGE) / 2
    half = float((t.ppf(quantile, groups - 1) if groups else norm.ppf(quantile)) * np.sqrt(image_variance))
    if (seeds := len(of_seeds)) < ENOUGH_SEEDS:
        return half
    return float(np.hypot(t.ppf(quantile, seeds - 1) * np.sqrt(np.var(of_seeds, ddof=1) / seeds), half))


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_], *, groups: NDArray[np.int64] | None = None) -> float:
    """P-value of McNemar's exact test, two-sided; 1 if the networks agree on every image.

    It asks how often a difference is as large if the networks are equally good: then each image on which they disagree
    is as likely to be the one's as the other's. With `groups`, the images of a group are exchanged together.

    Args:
        first, second: bool [N], whether each of two networks was right about each image.
        groups: int64 [N], number of each image's group from 0.
    """
    won = np.subtract(first, second, dtype=np.float64)
    if groups is None:
        only_first, disputed = int((won > 0).sum()), int((won != 0).sum())
        return float(binomtest(only_first, disputed).pvalue) if disputed else 1.0
    of_groups = np.abs(np.bincount(groups, won)).astype(np.int64)
    most, observed = int(of_groups.sum()), abs(int(won.sum()))
    chances = np.zeros(2 * most + 1)  # of each sum from -most to most
    chances[most] = 1.0
    for size in of_groups[of_groups > 0]:
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2  # what is rolled over the ends is 0
    return min(1.0, float(chances[np.abs(np.arange(-most, most + 1)) >= observed].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number, in the order given: 0.01, 0.04, 0.03 -> 0.03, 0.06, 0.06.

    Holm, A simple sequentially rejective multiple test procedure, 1979: the probability of one or more false
    rejections among all of them stays below the level, whatever their dependence.
    """
    corrected, least = list(p_values), 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        corrected[i] = least = max(least, min(1.0, (len(p_values) - rank) * p_values[i]))
    return corrected


@dataclass(frozen=True)
class CostPoint:
    """A split's accuracy (%), its standard deviation over seeds, and what an image costs: MiB that a forward pass in
    training keeps, and giga multiply-accumulates; None where nothing was measured."""

    split: str
    accuracy: float
    std: float | None
    forward_mib: float | None
    gmacs: float | None


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Positions of the points that no other dominates (as cheap and as good, and better in one), by rising cost."""
    return [
        i
        for i in sorted(range(len(costs)), key=lambda i: costs[i])
        if not any(
            costs[k] <= costs[i] and gains[k] >= gains[i] and (costs[k], gains[k]) != (costs[i], gains[i])
            for k in range(len(costs))
        )
    ]
