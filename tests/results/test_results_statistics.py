"""Statistics of comparisons, against hand-computed values and direct re-computation."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import norm, t, ttest_1samp

from fer_voting.results.statistics import group_ids, holm, mcnemar_p, paired_difference, pareto_front


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


def test_interval_where_only_seeds_vary_is_students() -> None:
    gains = np.array([0.25, 0.05, -0.1, 0.2])
    only_first = np.round(100 * np.maximum(gains, 0)).astype(int)
    only_second = np.round(100 * np.maximum(-gains, 0)).astype(int)
    first, second = (np.arange(100) < counts[:, None] for counts in (only_first, only_second))
    rng = np.random.default_rng(0)  # images in another order under each seed, so that none is better than another
    order = [rng.permutation(100) for _ in gains]
    first, second = (np.stack([side[i][order[i]] for i in range(4)]) for side in (first, second))
    student = ttest_1samp(gains, 0).confidence_interval(0.95)
    interval = paired_difference(first, second)
    assert interval.mean == pytest.approx(gains.mean())
    assert (interval.low, interval.high) == (
        pytest.approx(student.low, abs=0.01),
        pytest.approx(student.high, abs=0.01),
    )


def test_interval_where_only_images_vary_is_the_normal_one() -> None:
    """Every seed gives the same network: more of them say nothing more."""
    first, second = disputed(400, 300, agreed=4300)
    one, five = (
        paired_difference(first[None], second[None]),
        paired_difference(*(np.tile(side, (5, 1)) for side in (first, second))),
    )
    assert (five.mean, five.low, five.high) == pytest.approx((one.mean, one.low, one.high))


def test_interval_by_an_analysis_of_variance() -> None:
    """The standard errors against sums over seeds and images, one by one."""
    rng = np.random.default_rng(1)
    first, second = (rng.normal(size=(3, 60)) + rng.normal(0, 2, 60) > shift for shift in (-0.3, 0.2))
    y = (first.astype(int) - second).tolist()
    mean = sum(map(sum, y)) / 180
    of_seeds, of_images = [sum(row) / 60 for row in y], [sum(column) / 3 for column in zip(*y, strict=True)]
    seeds = 60 * sum((each - mean) ** 2 for each in of_seeds) / 2
    images = 3 * sum((each - mean) ** 2 for each in of_images) / 59
    rest = sum((y[s][i] - of_seeds[s] - of_images[i] + mean) ** 2 for s in range(3) for i in range(60)) / (2 * 59)
    assert images > rest
    half = math.sqrt((4.302653**2 * seeds + 1.959964**2 * (images - rest)) / 180)
    interval = paired_difference(first, second)
    assert (interval.mean, interval.low, interval.high) == pytest.approx((mean, mean - half, mean + half), rel=1e-5)


def test_interval_of_one_seed_is_the_normal_one_for_many_images() -> None:
    first, second = disputed(400, 300, agreed=4300)
    outcomes = first.astype(int) - second
    error = outcomes.std() / math.sqrt(len(outcomes))
    interval = paired_difference(first[None], second[None])
    assert interval.mean == pytest.approx(0.02)
    assert interval.low == pytest.approx(0.02 - 1.96 * error, abs=0.0006)
    assert interval.high == pytest.approx(0.02 + 1.96 * error, abs=0.0006)


def disagreeing(seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """Networks [S, N] of which, of every two seeds, one seed's gain is the other's loss."""
    first, second = disputed(60, 10, agreed=930)
    pairs = [(first, second) if seed % 2 else (second, first) for seed in range(seeds)]
    return np.stack([pair[0] for pair in pairs]), np.stack([pair[1] for pair in pairs])


def test_seeds_that_disagree_widen_the_interval() -> None:
    agree = [np.repeat(side[None], 4, axis=0) for side in disputed(60, 10, agreed=930)]
    narrow, wide = paired_difference(*agree), paired_difference(*disagreeing(4))
    assert wide.mean == 0
    assert wide.high - wide.low > 1.3 * (narrow.high - narrow.low)


def test_two_seeds_are_too_few_to_draw_from() -> None:
    """The interval is over images only: each image's outcomes cancel, whichever images are drawn."""
    interval = paired_difference(*disagreeing(2))
    assert (interval.mean, interval.low, interval.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        ([], []),
        ([0.2], [0.2]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x 0.01; 2 x 0.03; max(1 x 0.04, 0.06)
        ([0.01, 0.02, 0.03, 0.04, 0.05], [0.05, 0.08, 0.09, 0.09, 0.09]),  # 5, 4, 3, 2, 1 times, never falling
        ([0.6, 0.9], [1.0, 1.0]),  # at most 1
        ([0.02, 0.02], [0.04, 0.04]),
    ],
)
def test_holm_against_values_computed_by_hand(p_values: list[float], corrected: list[float]) -> None:
    assert holm(p_values) == pytest.approx(corrected)


def test_pareto_front_is_what_nothing_beats() -> None:
    costs, gains = [10.0, 15.0, 40.0, 23.0, 23.0], [62.3, 61.0, 63.7, 63.5, 63.5]
    assert pareto_front(costs, gains) == [0, 3, 4, 2]
    assert pareto_front([1, 1], [2, 3]) == [1]  # as cheap, and better
    assert pareto_front([1, 2], [3, 3]) == [0]  # as good, and cheaper
    assert pareto_front([], []) == []


# Groups of images -----------------------------------------------------------------------------------------------------


def test_an_image_without_a_group_is_one_of_its_own() -> None:
    ids = group_ids(["anna", "", "ben", "anna", ""])
    assert ids[0] == ids[3]
    assert sorted(set(ids.tolist())) == [0, 1, 2, 3]


@pytest.mark.parametrize("seeds", [1, 2, 3, 5])
def test_groups_of_one_image_are_images(seeds: int) -> None:
    """The variance is the same; only the quantile of few groups is wider."""
    rng = np.random.default_rng(seeds)
    image = rng.normal(size=400)
    first, second = (image + rng.normal(0, 0.5, (seeds, 400)) > level for level in (-0.5, -0.3))
    plain, grouped = paired_difference(first, second), paired_difference(first, second, groups=rng.permutation(400))
    assert grouped.mean == plain.mean
    assert (grouped.low, grouped.high) == (pytest.approx(plain.low, abs=3e-4), pytest.approx(plain.high, abs=3e-4))
    if seeds < 3:
        wider = t.ppf(0.975, 399) / norm.ppf(0.975)
        assert grouped.high - grouped.mean == pytest.approx(wider * (plain.high - plain.mean))


def test_the_interval_over_groups_leaves_out_one_at_a_time() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(7), [3, 9, 2, 5, 5, 14, 1])
    first, second = (rng.random(len(groups)) < 0.3 + 0.6 * rng.random(7)[groups] for _ in range(2))
    outcomes = first.astype(float) - second
    without = np.array([outcomes[groups != group].mean() for group in range(7)])
    half = t.ppf(0.975, 6) * math.sqrt(6 / 7 * ((without - outcomes.mean()) ** 2).sum())
    interval = paired_difference(first[None], second[None], groups=groups)
    assert (interval.low, interval.high) == (
        pytest.approx(outcomes.mean() - half),
        pytest.approx(outcomes.mean() + half),
    )


def test_p_values_of_groups_are_those_of_every_exchange() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        groups = rng.integers(0, 8, 40)
        first, second = rng.random((2, 40)) < 0.6
        won = np.array([(first.astype(int) - second)[groups == group].sum() for group in range(8)])
        sums = [abs(won @ signs) for signs in itertools.product((-1, 1), repeat=8)]
        assert mcnemar_p(first, second, groups=groups) == pytest.approx(np.mean(np.array(sums) >= abs(won.sum())))


@pytest.mark.parametrize(("only_first", "only_second"), [(3, 1), (5, 0), (4, 4), (0, 0), (20, 6)])
def test_the_p_value_of_groups_of_one_image_is_mcnemars(only_first: int, only_second: int) -> None:
    pair = disputed(only_first, only_second)
    assert mcnemar_p(*pair, groups=np.arange(len(pair[0]))) == pytest.approx(mcnemar_p(*pair))
