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


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Difference of two networks' accuracies on the same images after trainings from the same seeds, first - second.

    From ENOUGH_SEEDS on, the interval is for the mean over all seeds and images like these: half its width is the root
    of the sum of two squares, Student's quantile (S - 1 degrees of freedom) times the standard error over seeds, and
    the normal quantile times the standard error over images (Zou and Donner 2008, doi:10.1002/sim.3095). The standard
    errors are those of an analysis of variance of seeds x images. Few seeds make it wide, where seeds differ: the
    quantile of three is 4.3. A bootstrap of three seeds covers 79 to 87 % instead of 95 %.

    With fewer seeds the interval is over images only: for the mean of these very networks.

    Args:
        first, second: bool [S, N], whether the network of each seed was right about each image; N >= 2.
    """
    if first.shape != second.shape:
        raise ValueError(f"`first` {first.shape} and `second` {second.shape} must have one shape")
    seeds, images = first.shape
    outcomes = np.subtract(first, second, dtype=np.float64)  # 1: only the first is right; -1: only the second
    of_seeds, of_images = outcomes.mean(axis=1, keepdims=True), outcomes.mean(axis=0, keepdims=True)
    mean = float(outcomes.mean())
    image_variance = of_images.var(ddof=1) / images
    if seeds >= ENOUGH_SEEDS:
        rest = outcomes - of_seeds - of_images + mean
        rest_variance = (rest**2).sum() / ((seeds - 1) * (images - 1)) / (seeds * images)
        # Both contain the variance of what is peculiar to an image under a seed, which counts once.
        image_variance = max(image_variance - rest_variance, 0.0)
    half = half_interval(image_variance, of_seeds[:, 0])
    return Difference(mean, float(mean - half), float(mean + half))


def half_interval(image_variance: float, of_seeds: Sequence[float] | NDArray[np.float64]) -> float:
    """Half the width of the 95 % interval of a mean over seeds, as in `paired_difference`.

    Args:
        image_variance: variance of the mean over the choice of the images.
        of_seeds: the value of each seed, [S].
    """
    half = float(norm.ppf((1 + COVERAGE) / 2) * np.sqrt(image_variance))
    if (seeds := len(of_seeds)) < ENOUGH_SEEDS:
        return half
    return float(np.hypot(t.ppf((1 + COVERAGE) / 2, seeds - 1) * np.sqrt(np.var(of_seeds, ddof=1) / seeds), half))


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """P-value of McNemar's exact test, two-sided; 1 if the networks agree on every image.

    Args:
        first, second: bool [N], whether each of two networks was right about each image.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disputed = only_first + only_second
    return float(binomtest(only_first, disputed).pvalue) if disputed else 1.0


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
