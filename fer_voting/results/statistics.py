"""What a difference between two networks is worth: pure functions of arrays.

Shapes: S seeds, N images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

__all__ = ["Difference", "mcnemar_p", "mean_std", "paired_difference", "pareto_front"]

RESAMPLES = 10_000
COVERAGE = 0.95


def mean_std(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation of the sample (divisor n - 1); None where there are too few values for it."""
    if not values:
        return None, None
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


@dataclass(frozen=True)
class Difference:
    """Difference of two accuracies, each a share of 1, and the ends of its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def paired_difference(
    first: NDArray[np.bool_], second: NDArray[np.bool_], resamples: int = RESAMPLES, seed: int = 0
) -> Difference:
    """Accuracy of `first` minus that of `second`, which judged the same images after training from the same seeds.

    A bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13: percentiles) draws images
    with replacement, and the seeds too, so that the interval covers the luck of the test set as well as that of the
    training. With one seed it covers the images alone.

    Args:
        first, second: bool [S, N], whether the network of each seed was right about each image.
        resamples: of the bootstrap.
        seed: of the bootstrap's random numbers.
    """
    assert first.shape == second.shape
    seeds, images = first.shape
    outcomes = first.astype(np.int8) - second.astype(np.int8)  # 1: only the first is right; -1: only the second
    # Images with the same outcome under every seed are interchangeable, so drawing images is drawing how often
    # each pattern of outcomes comes up: the same distribution, for a few patterns instead of thousands of images.
    patterns, counts = np.unique(outcomes, axis=1, return_counts=True)  # [S, P], [P]
    rng = np.random.default_rng(seed)
    drawn_images = rng.multinomial(images, counts / images, size=resamples)  # [R, P]
    drawn_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples)  # [R, S]
    drawn = ((drawn_images @ patterns.T) * drawn_seeds).sum(axis=1) / (images * seeds)
    low, high = np.quantile(drawn, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return Difference(float(outcomes.mean()), float(low), float(high))


def mcnemar_p(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """McNemar's exact test, two-sided: how likely so uneven a split of the disputed images is by chance.

    Args:
        first, second: bool [N], whether each of two networks was right about each image.

    Returns 1 if they agree everywhere.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    disputed = only_first + only_second
    return float(binomtest(only_first, disputed).pvalue) if disputed else 1.0


def pareto_front(costs: Sequence[float], gains: Sequence[float]) -> list[int]:
    """Positions, by rising cost, of what nothing else beats: no other is as cheap and as good, and better in one."""
    return [
        i
        for i in sorted(range(len(costs)), key=lambda i: costs[i])
        if not any(
            costs[k] <= costs[i] and gains[k] >= gains[i] and (costs[k], gains[k]) != (costs[i], gains[i])
            for k in range(len(costs))
        )
    ]
