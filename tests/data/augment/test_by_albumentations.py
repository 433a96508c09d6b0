import numpy as np
import pytest
from helpers.composed import composed
from helpers.datasets import class_image
from hydra.utils import instantiate

from fer_voting.data.augment.by_albumentations import AlbumentationsAugment

IMAGES = np.stack([np.asarray(class_image("happy", number).resize((48, 48))) for number in range(64)])
KEYS = [(3, position) for position in range(64)]
STEPS = {
    "resized_crop": {"probability": 1.0, "area": [0.5, 0.7], "aspect": [0.9, 1.1]},
    "color_jitter": {"probability": 1.0, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
    "translation": {"probability": 1.0, "share": 0.2},
    "rotation": {"probability": 1.0, "degrees": 20},
    "erase": {"probability": 1.0, "area": [0.1, 0.2], "aspect": [0.5, 2.0]},
}


def paper() -> AlbumentationsAugment:
    return instantiate(composed(["augment=paper", "augment.backend=albumentations"]).augment)


def test_each_image_depends_on_seed_epoch_and_position_alone() -> None:
    augment = paper()
    changed = augment(IMAGES, KEYS, seed=0)
    assert changed.dtype == np.uint8
    assert changed.shape == IMAGES.shape
    assert (paper()(IMAGES[10:11], KEYS[10:11], seed=0) == changed[10:11]).all()
    assert (augment(IMAGES[::-1].copy(), KEYS[::-1], seed=0)[::-1] == changed).all()
    for others, seed in ((KEYS, 1), ([(4, position) for _, position in KEYS], 0), (KEYS[::-1], 0)):
        different = (augment(IMAGES, others, seed) != changed).any(axis=(1, 2, 3))
        assert different.mean() > 0.9


def test_steps_are_drawn_independently() -> None:
    """One of five steps at a half each: an image that is left as it is has a chance of 1/32, not of 1/2."""
    same = IMAGES[:1].repeat(500, axis=0)
    unchanged = (paper()(same, [(0, position) for position in range(500)], 0) == same).all(axis=(1, 2, 3)).mean()
    assert 0 < unchanged < 0.08


@pytest.mark.parametrize("name", STEPS)
def test_a_step_alone_does_what_its_name_says(name: str) -> None:
    white = np.full((64, 48, 48, 3), 200, np.uint8)
    changed = AlbumentationsAugment(**{name: STEPS[name]})(white, KEYS, seed=0)
    black = (changed == 0).all(axis=-1).mean(axis=(1, 2))  # share of each image
    if name == "resized_crop":
        assert (changed == white).all()  # a part of a white image is white: nothing is filled in
        blocks = AlbumentationsAugment(**{name: STEPS[name]})(IMAGES, KEYS, seed=0)
        assert (blocks != IMAGES).any(axis=(1, 2, 3)).all()
    elif name == "color_jitter":
        assert (changed == changed[:, :1, :1]).all()  # each image stays of one colour
        levels = changed[:, 0, 0, 0].astype(int)
        assert levels.min() < 180
        assert levels.max() > 220
        assert not black.any()
    elif name == "translation":
        # Shifted by up to a fifth each way: an empty strip at up to two sides, and the rest untouched.
        assert 0.25 < black.max() <= 0.36
        assert black.mean() == pytest.approx(1 - 0.9**2, abs=0.04)
        assert (changed[:, 24, 24] == 200).all()
    elif name == "rotation":
        assert 0.05 < black.max() < 0.2  # corners only
        assert (changed[:, 24, 24] == 200).all()
        assert black.min() < 0.01
    else:
        assert black.min() > 0.08
        assert black.max() < 0.22
