"""Statistics of accuracies and of differences between two networks: pure functions of arrays.

Shapes: S seeds, N images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
COVERAGE = 0.95
ENOUGH_SEEDS = 3
"""Fewer seeds say nothing about the training's randomness: intervals are then over images only."""


@dataclass(frozen=True)
class Difference:
    """Difference of two accuracies, each a share of 1, and the ends of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def paired_difference(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> Difference:
    """Difference of two networks' accuracies on the same images after trainings from the same seeds, first - second.

    Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13) over images and,
    from ENOUGH_SEEDS on, over seeds: the interval then covers the randomness of the test set and of the training.
    `scipy.stats.bootstrap` gives the same interval more slowly, and refuses a single seed.

    Args:
        first, second: bool [S, N], whether the network of each seed was right about each image.
    """
    assert first.shape == second.shape
    seeds, images = first.shape
    outcomes = np.subtract(first, second, dtype=np.int8)  # 1: only the first is right; -1: only the second
    # Images with the same outcome under every seed are interchangeable, so drawing images is drawing how often
    # each pattern of outcomes comes up: the same distribution, for a few patterns instead of thousands of images.
    patterns, counts = np.unique(outcomes, axis=1, return_counts=True)  # [S, P], [P]
    rng = np.random.default_rng(0)  # the same interval each time
    drawn_images = rng.multinomial(images, counts / images, size=RESAMPLES)  # [R, P]
    drawn_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) if seeds >= ENOUGH_SEEDS else 1
    drawn = ((drawn_images @ patterns.T) * drawn_seeds).sum(axis=1) / (images * seeds)  # [R, S] -> [R]
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Difference(float(outcomes.mean()), float(low), float(high))


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
