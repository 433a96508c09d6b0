"""How often the 95 % interval of a difference holds the true one: simulated trainings whose true accuracies are known.

A network is right about an image if the sum of normal effects is above 0: of its kind, of its training's seed, of the
image (which both kinds share), of the image under this kind, and of the image under this seed. Its accuracy over all
seeds and images is then the normal distribution function of the kind's effect by the sum's standard deviation.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest

from fer_voting.results.evaluation import counts_of_groups, metric_intervals
from fer_voting.results.statistics import mcnemar_p, paired_difference

pytestmark = pytest.mark.slow

KINDS = (0.5, 0.4)
COMPARISONS = 1000
IMAGE = 1.0
"""Standard deviation of the image's effect."""


def coverage(seeds: int, images: int, of_seed: float, of_kind: float, of_both: float) -> float:
    """Share of the intervals that hold the true difference.

    Args:
        of_seed, of_kind, of_both: standard deviations of the effects of the training's seed, of the image under a kind
            of network, and of the image under a seed.
    """
    deviation = math.sqrt(of_seed**2 + IMAGE**2 + of_kind**2 + of_both**2)
    first, second = (NormalDist().cdf(kind / deviation) for kind in KINDS)
    rng = np.random.default_rng(0)
    holds = 0
    for _ in range(COMPARISONS):
        image = rng.normal(0, IMAGE, images)
        right = [
            kind
            + rng.normal(0, of_seed, (seeds, 1))
            + image
            + rng.normal(0, of_kind, images)
            + rng.normal(0, of_both, (seeds, images))
            > 0
            for kind in KINDS
        ]
        interval = paired_difference(*right)
        holds += interval.low <= first - second <= interval.high
    return holds / COMPARISONS


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(
    "effects",
    [
        pytest.param((0.3, 0.3, 0.5), id="seeds dominate"),
        pytest.param((0.03, 0.3, 0.5), id="both count"),
        pytest.param((0.0, 0.6, 0.1), id="images dominate"),
        pytest.param((0.0, 0.3, 0.5), id="the image under a seed dominates"),
    ],
)
def test_the_interval_holds_the_truth_in_95_percent(seeds: int, effects: tuple[float, float, float]) -> None:
    assert 0.935 <= coverage(seeds, 600, *effects) <= 0.98


# Images of people -----------------------------------------------------------------------------------------------------


def people(number: int, rng: np.random.Generator) -> np.ndarray:
    """The person of each image, [N]: from 6 to 42 images each."""
    return np.repeat(np.arange(number), rng.integers(6, 43, number))


@pytest.mark.parametrize("seeds", [1, 3])
@pytest.mark.parametrize("number", [10, 40])
def test_the_interval_over_people_holds_the_truth_where_images_alone_do_not(number: int, seeds: int) -> None:
    """A person's images are easier or harder for one kind of network than for the other."""
    rng = np.random.default_rng(0)
    of_kind, of_both = 0.6, 0.4
    deviation = math.sqrt(2 * IMAGE**2 + of_kind**2 + of_both**2)
    first, second = (NormalDist().cdf(kind / deviation) for kind in KINDS)
    holds, rejected = np.zeros(2), np.zeros(2)
    comparisons = 400
    for _ in range(comparisons):
        person = people(number, rng)
        shared = rng.normal(0, IMAGE, number)[person] + rng.normal(0, IMAGE, len(person))
        right = [
            kind + shared + rng.normal(0, of_kind, number)[person] + rng.normal(0, of_both, (seeds, len(person))) > 0
            for kind in KINDS
        ]
        for place, groups in enumerate((person, None)):
            interval = paired_difference(*right, groups=groups)
            holds[place] += interval.low <= first - second <= interval.high
        same = [shared + rng.normal(0, of_kind, number)[person] > 0 for _ in KINDS]
        for place, groups in enumerate((person, None)):
            rejected[place] += mcnemar_p(*same, groups=groups) < 0.05
    over_people, over_images = holds / comparisons
    assert 0.93 <= over_people <= 0.985
    if seeds == 1:
        assert over_images < 0.85
        assert rejected[0] <= 0.065 * comparisons
        assert rejected[1] > 0.15 * comparisons


@pytest.mark.parametrize(("number", "least"), [(10, 0.89), (20, 0.92), (40, 0.93)])
def test_the_interval_of_an_accuracy_over_people_holds_the_truth(number: int, least: float) -> None:
    """A person's share of right decisions is skewed: with few people the interval is a little too narrow."""
    rng = np.random.default_rng(0)
    truth, trials = NormalDist().cdf(0.8 / math.sqrt(2)), 700
    holds = 0
    for _ in range(trials):
        person = people(number, rng)
        right = 0.8 + rng.normal(size=number)[person] + rng.normal(size=len(person)) > 0
        labels = rng.integers(0, 3, len(person))
        decisions = np.where(right, labels, (labels + 1) % 3)
        of_groups = counts_of_groups(labels, decisions, 3, person.astype(np.str_))
        assert of_groups is not None
        low, high = metric_intervals(of_groups.sum(axis=0), of_groups)["accuracy"]
        holds += low <= truth <= high
    assert least <= holds / trials <= 0.975
