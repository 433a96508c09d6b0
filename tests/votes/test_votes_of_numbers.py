"""Votes of the crops' numbers, and which votes a network with numbers takes."""

import numpy as np
import pytest
import torch

from fer_voting.votes import ALL_VOTES, CropOutputs


@pytest.mark.parametrize("crops", [1, 9, 10])
def test_soft_is_the_mean_and_hard_the_median(crops: int) -> None:
    numbers = torch.randn(5, crops, 2, generator=torch.Generator().manual_seed(0))
    reference = numbers.numpy().astype(np.float64)
    np.testing.assert_allclose(ALL_VOTES["soft"].numbers(numbers), reference.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(ALL_VOTES["hard"].numbers(numbers), np.median(reference, axis=1), atol=1e-6)


def test_the_median_ignores_how_far_a_crop_is() -> None:
    crops = torch.tensor([[[0.1], [0.2], [0.4], [9.0]]])
    assert ALL_VOTES["hard"].numbers(crops).tolist() == [[pytest.approx(0.3)]]


def test_outputs_are_split_behind_the_classes() -> None:
    crops = torch.arange(24.0).reshape(1, 4, 6)
    classes, numbers = CropOutputs(crops, crops[:, 0]).split(4)
    assert torch.equal(classes.crops, crops[..., :4])
    assert torch.equal(numbers, crops[..., 4:])
    assert not classes.has_full_map


@pytest.mark.parametrize(
    ("classes", "numbers", "taken"),
    [
        (7, 0, set(ALL_VOTES)),
        (7, 2, {"soft", "softprob", "hard", "confidence", "weighted"}),
        (0, 2, {"soft", "hard"}),
    ],
)
def test_votes_that_a_network_takes(classes: int, numbers: int, taken: set[str]) -> None:
    assert {name for name, vote in ALL_VOTES.items() if vote.takes(classes, numbers)} == taken
