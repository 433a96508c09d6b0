"""How often the 95 % interval of a difference holds the true one: simulated trainings whose true accuracies are known.

A network is right about an image if the sum of normal effects is above 0: of its kind, of its training's seed, of the
image (which both kinds share), of the image under this kind, and of the image under this seed. Its accuracy over all
seeds and images is then the normal distribution function of the kind's effect by the sum's standard deviation.
"""

import math
from statistics import NormalDist

import numpy as np
import pytest

from fer_voting.results.statistics import paired_difference

pytestmark = pytest.mark.slow

KINDS = (0.5, 0.4)
COMPARISONS = 1500
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
