"""Mixed batches against the formulas of their sources, and the same in any order of steps."""

import functools
from typing import Any

import pytest
import torch
from helpers.composed import composed
from torch import Tensor
from torchvision.transforms import v2

from fer_voting.training.mix import Mix

CLASSES = 3


def batch() -> tuple[Tensor, Tensor]:
    """Six images, each of one value, 1 to 6, and labels."""
    images = torch.arange(1.0, 7)[:, None, None, None].expand(6, 3, 8, 8).clone()
    return images, torch.tensor([0, 1, 2, 0, 1, 2])


def make(name: str, seed: int = 0) -> Mix:
    return Mix(option(name)(num_classes=CLASSES), seed)


@functools.cache  # Hydra takes a tenth of a second for each
def option(name: str) -> Any:
    from hydra.utils import instantiate

    return instantiate(composed([f"mix={name}"]).mix)


def test_mixup_is_the_formula_of_its_source() -> None:
    """Zhang et al., section 1: x = l x_i + (1 - l) x_j, and y likewise with the same l."""
    images, labels = batch()
    mixed, targets = make("mixup")(images, labels, epoch=0, batch_idx=0)
    one_hot = torch.nn.functional.one_hot(labels, CLASSES).float()
    weight = targets[0, 0].item()  # of image 0, whose partner is the last one, of another class
    assert 0 < weight < 1
    torch.testing.assert_close(mixed, weight * images + (1 - weight) * images.roll(1, 0))
    torch.testing.assert_close(targets, weight * one_hot + (1 - weight) * one_hot.roll(1, 0))


@pytest.mark.slow
def test_cutmix_is_the_formula_of_its_source() -> None:
    """Yun et al., section 3.1: a rectangle of the partner, and the label's share is the area's."""
    images, labels = batch()
    one_hot = torch.nn.functional.one_hot(labels, CLASSES).float()
    areas = set()
    for step in range(8):
        mixed, targets = make("cutmix")(images, labels, epoch=0, batch_idx=step)
        own = mixed == images
        assert torch.equal(mixed, torch.where(own, images, images.roll(1, 0)))
        columns, rows = (~own[0, 0]).any(dim=0), (~own[0, 0]).any(dim=1)
        assert torch.equal(~own[0, 0], rows[:, None] & columns)  # a rectangle, the same in each image
        assert bool((own == own[0, 0]).all())
        share = own[0, 0].float().mean().item()
        torch.testing.assert_close(targets, share * one_hot + (1 - share) * one_hot.roll(1, 0))
        areas.add(share)
    assert len(areas) > 2


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_random_numbers_depend_on_seed_epoch_and_batch_alone(name: str) -> None:
    def mixed(seed: int, epoch: int, step: int) -> Tensor:
        images, labels = batch()
        return make(name, seed)(images.repeat(1, 1, 4, 4), labels, epoch, step)[0]

    torch.manual_seed(1)
    first = mixed(0, 3, 5)
    torch.rand(7)
    state = torch.get_rng_state()
    assert torch.equal(mixed(0, 3, 5), first)
    assert torch.equal(torch.get_rng_state(), state)  # the training's own numbers are not used up
    others = [mixed(seed, epoch, step) for seed, epoch, step in ((1, 3, 5), (0, 4, 5), (0, 3, 6))]
    assert not any(torch.equal(other, first) for other in others)


def test_the_shares_follow_the_sources_distribution() -> None:
    """Mean and variance of Beta(0.2, 0.2): 1/2 and 1 / (4 (2 alpha + 1))."""
    mix = make("mixup")
    images, labels = torch.zeros(2, 3, 1, 1), torch.tensor([0, 1])
    shares = torch.stack([mix(images, labels, 0, step)[1][0, 0] for step in range(400)])
    assert shares.mean().item() == pytest.approx(0.5, abs=0.06)
    assert shares.var().item() == pytest.approx(1 / (4 * 1.4), rel=0.1)


def test_targets_may_be_shares_of_votes() -> None:
    images, _ = batch()
    votes = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]] * 3)
    transform: Any = functools.partial(v2.MixUp, alpha=1.0)(num_classes=CLASSES)
    _, targets = Mix(transform, 0)(images, votes, 0, 0)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(6))
    assert bool((targets[:, 1] > 0).all())
