"""Statistics of comparisons, against hand-computed values and direct re-computation."""

import math

import numpy as np
import pytest

from fer_voting.results.statistics import mcnemar_p, mean_std, paired_difference, pareto_front


def test_mean_and_sample_standard_deviation() -> None:
    assert mean_std([2, 4, 4, 4, 5, 5, 7, 9]) == (5.0, pytest.approx(math.sqrt(32 / 7)))
    assert mean_std([0.25]) == (0.25, None)
    assert mean_std([]) == (None, None)


def disputed(only_first: int, only_second: int, agreed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    first = np.array([True] * only_first + [False] * only_second + [True] * agreed)
    second = np.array([False] * only_first + [True] * only_second + [True] * agreed)
    return first, second


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (3, 1, 2 * (1 + 4) / 2**4),
        (1, 3, 2 * (1 + 4) / 2**4),
        (5, 0, 2 / 2**5),
        (4, 4, 1.0),
        (0, 0, 1.0),
        (20, 6, 2 * sum(math.comb(26, k) for k in range(7)) / 2**26),
    ],
)
def test_mcnemar_counts_only_what_the_two_dispute(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar_p(*disputed(only_first, only_second)) == pytest.approx(p)
    assert mcnemar_p(*disputed(only_first, only_second, agreed=500)) == pytest.approx(p)


def test_difference_is_the_mean_over_images_and_seeds() -> None:
    first = np.array([[True, True, False, True], [True, True, True, True]])
    second = np.array([[True, False, False, False], [True, True, False, False]])
    assert paired_difference(first, second).mean == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert paired_difference(second, first).mean == pytest.approx(-0.5)


def test_interval_is_that_of_a_bootstrap_image_by_image() -> None:
    """Against the plain loop that draws every image, and every seed, by itself."""
    rng = np.random.default_rng(1)
    first, second = rng.random((3, 200)) < 0.7, rng.random((3, 200)) < 0.6
    outcomes = first.astype(int) - second
    drawn = []
    for _ in range(4000):
        seeds, images = rng.integers(0, 3, 3), rng.integers(0, 200, 200)
        drawn.append(outcomes[np.ix_(seeds, images)].mean())
    low, high = np.quantile(drawn, [0.025, 0.975])
    interval = paired_difference(first, second)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=0.008), pytest.approx(high, abs=0.008))
    assert interval.low < interval.mean < interval.high


def test_interval_of_one_seed_is_the_normal_one_for_many_images() -> None:
    first, second = disputed(400, 300, agreed=4300)
    outcomes = first.astype(int) - second
    error = outcomes.std() / math.sqrt(len(outcomes))
    interval = paired_difference(first[None], second[None])
    assert interval.mean == pytest.approx(0.02)
    assert interval.low == pytest.approx(0.02 - 1.96 * error, abs=0.0006)
    assert interval.high == pytest.approx(0.02 + 1.96 * error, abs=0.0006)


def test_seeds_that_disagree_widen_the_interval() -> None:
    agree = np.repeat(disputed(20, 10, agreed=970)[0][None], 2, axis=0)
    theirs = np.repeat(disputed(20, 10, agreed=970)[1][None], 2, axis=0)
    swapped = theirs.copy()
    swapped[1, :30] = ~agree[1, :30]
    disagree = agree.copy()
    disagree[1, :30], swapped[1, :30] = theirs[1, :30], agree[1, :30]
    narrow, wide = paired_difference(agree, theirs), paired_difference(disagree, swapped)
    assert wide.mean == 0
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)


def test_interval_repeats_itself() -> None:
    first, second = (side[None] for side in disputed(9, 4))
    assert paired_difference(first, second) == paired_difference(first, second)


def test_pareto_front_is_what_nothing_beats() -> None:
    costs, gains = [10.0, 15.0, 40.0, 23.0, 23.0], [62.3, 61.0, 63.7, 63.5, 63.5]
    assert pareto_front(costs, gains) == [0, 3, 4, 2]
    assert pareto_front([1, 1], [2, 3]) == [1]
    assert pareto_front([], []) == []
