"""The batched augmentation: each step against an independent one, and all of them against albumentations."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.callbacks import Operations
from torch import Tensor
from torchvision.transforms.v2 import functional as TF

from fer_voting.config import compose
from fer_voting.data.augment.batched import (
    _GAMMA,
    BITS,
    BatchedAugment,
    _Frame,
    _last_xor,
    _mix,
    _mix_number,
    _resample,
    random_bits,
)
from fer_voting.data.augment.by_albumentations import AlbumentationsAugment

SIDE = 48
PAPER = {key: value for key, value in compose(["augment=paper"]).augment.items() if isinstance(value, Mapping)}
ALWAYS = {name: {**values, "probability": 1.0} for name, values in PAPER.items()}
MANY = 3000


def keys(count: int, epoch: int = 0) -> tuple[int, Tensor]:
    """Epoch and positions of a batch."""
    return epoch, torch.arange(count)


def uniforms(seed: int, epoch: int, positions: Tensor, count: int) -> Tensor:
    """Random numbers in [0, 1), float32 `[B, count]`."""
    counters = torch.arange(1, count + 1)[:, None] * _GAMMA
    return random_bits(seed, epoch, positions, counters).T / 2.0**BITS


def noise(count: int, seed: int = 0) -> Tensor:
    pixels = torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed))
    return pixels.to(torch.uint8)


def smooth(count: int) -> Tensor:
    """Random images without fine detail, which interpolating once or twice would treat differently."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return (F.interpolate(coarse, (SIDE, SIDE), mode="bicubic").clamp(0, 1) * 255).round().to(torch.uint8)


# Random numbers ---------------------------------------------------------------------------------------------------


def test_random_numbers_are_splitmix64s() -> None:
    """The first numbers of the generator seeded with 1234567, as published with its reference implementation."""
    states = torch.full((5,), 1234567) + torch.arange(1, 6) * _GAMMA
    numbers = [number % 2**64 for number in _last_xor(_mix(states)).tolist()]
    assert numbers == [_mix_number(state) for state in states.tolist()]
    assert numbers == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_random_numbers_are_uniform_and_independent() -> None:
    numbers = uniforms(0, *keys(20_000), 8).double()
    assert 0 <= numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    torch.testing.assert_close(numbers.mean(0), torch.full((8,), 0.5).double(), rtol=0, atol=0.01)
    torch.testing.assert_close(numbers.var(0), torch.full((8,), 1 / 12).double(), rtol=0, atol=0.002)
    # Neighbours: in the row, in the position, in the epoch, in the seed.
    others = [uniforms(0, *keys(20_000, epoch=1), 8), uniforms(1, *keys(20_000), 8)]
    side_by_side = torch.cat([numbers, numbers.roll(1, dims=0), *(other.double() for other in others)], dim=1)
    correlation = side_by_side.T.corrcoef() - torch.eye(32)
    assert correlation.abs().max() < 0.04


def test_an_images_numbers_depend_on_its_key_alone() -> None:
    epoch, positions = keys(100)
    numbers = uniforms(3, epoch, positions, 5)
    assert torch.equal(uniforms(3, epoch, positions[17:18], 5)[0], numbers[17])
    assert torch.equal(uniforms(3, epoch, positions.flip(0), 9)[:, :5].flip(0), numbers)


# The whole --------------------------------------------------------------------------------------------------------


def test_each_image_depends_on_seed_epoch_and_position_alone() -> None:
    augment, images = BatchedAugment(**PAPER), noise(32)
    epoch, positions = keys(32)
    changed = augment(images, epoch, positions, seed=0)
    assert changed.dtype == torch.float32
    assert changed.shape == images.shape
    torch.testing.assert_close(augment(images[9:10], epoch, positions[9:10], seed=0), changed[9:10])
    torch.testing.assert_close(augment(images.flip(0), epoch, positions.flip(0), seed=0).flip(0), changed)
    channels_last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment(channels_last, epoch, positions, seed=0), changed)
    for others, seed in ((keys(32), 1), (keys(32, epoch=1), 0), ((epoch, positions.flip(0)), 0)):
        different = (augment(images, *others, seed) - changed).abs().amax(dim=(1, 2, 3)) > 1
        assert different.float().mean() > 0.9


def test_no_steps_leave_images_as_they_are() -> None:
    images = noise(8)
    torch.testing.assert_close(BatchedAugment()(images, *keys(8), 0), images.float(), rtol=0, atol=0.02)


def test_a_probability_of_zero_leaves_images_as_they_are() -> None:
    never = {name: {**values, "probability": 0.0} for name, values in PAPER.items()}
    images = noise(8)
    torch.testing.assert_close(BatchedAugment(**never)(images, *keys(8), 0), images.float(), rtol=0, atol=0.02)


VIEWS = {"select", "slice", "unsqueeze", "view", "unbind", "expand", "transpose", "permute", "detach", "_unsafe_view"}


def test_a_batch_is_few_operations_none_of_which_waits_for_the_host() -> None:
    augment, images = BatchedAugment(**PAPER), noise(4)
    augment(images, *keys(4), seed=0)  # makes what depends only on the configuration
    # A GPU launches nothing for views, and for what only takes memory.
    with Operations(VIEWS | {"new_empty"}) as launches:
        augment(images, *keys(4, epoch=1), seed=0)
    assert 50 < launches.count <= 90


@pytest.mark.slow
def test_steps_are_drawn_independently_with_their_probability() -> None:
    """Five steps, each in half of the images: each of the 32 combinations in a 32nd of them."""
    images = smooth(1).expand(MANY, -1, -1, -1)
    unchanged = BatchedAugment(**PAPER)(images, *keys(MANY), 0).sub(images).abs().amax(dim=(1, 2, 3)) < 0.1
    assert unchanged.float().mean().item() == pytest.approx(1 / 32, abs=0.012)


# Each step against an independent one -----------------------------------------------------------------------------


def frame(start: tuple = (0, 0), sides: tuple = (SIDE, SIDE), shift: tuple = (0, 0), degrees: float = 0) -> _Frame:
    columns = [torch.tensor(pair, dtype=torch.float32)[:, None] for pair in (start, sides, shift)]
    return _Frame(*columns, torch.tensor([math.radians(degrees)]))


def shown(image: Tensor, where: _Frame) -> Tensor:
    x, visible = _resample(image.float(), where, torch.arange(SIDE) - (SIDE - 1) / 2)
    return x * visible[:, None]


def test_resized_crop_is_torchs_interpolation() -> None:
    image = noise(1)
    left, top, width, height = 5, 3, 40, 36
    crop = image[..., top : top + height, left : left + width].float()
    expected = F.interpolate(crop, (SIDE, SIDE), mode="bilinear", align_corners=False)
    ours = shown(image, frame((left, top), (width, height)))
    # The outermost pixels lie between the crop and what is beside it, which interpolation of a crop can't see.
    torch.testing.assert_close(ours[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], rtol=0, atol=0.02)


@pytest.mark.parametrize(("right", "down"), [(4, 0), (-3, 2), (0, -4)])
def test_translation_moves_whole_pixels_and_fills_with_black(right: int, down: int) -> None:
    image = noise(1)
    padded = F.pad(image.float(), (SIDE, SIDE, SIDE, SIDE))
    expected = padded[..., SIDE - down : 2 * SIDE - down, SIDE - right : 2 * SIDE - right]
    torch.testing.assert_close(shown(image, frame(shift=(right, down))), expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("degrees", [-10, 7])
def test_rotation_is_opencvs(degrees: float) -> None:
    image = smooth(1)
    turn = cv2.getRotationMatrix2D(((SIDE - 1) / 2, (SIDE - 1) / 2), degrees, 1.0)
    expected = cv2.warpAffine(image[0].permute(1, 2, 0).float().numpy(), turn, (SIDE, SIDE))
    difference = shown(image, frame(degrees=degrees))[0].permute(1, 2, 0) - torch.from_numpy(expected)
    assert difference.abs().max() < 0.02


def test_all_three_in_albumentations_order() -> None:
    """First the crop, then the move, then the turn: step by step, with what each one cuts off."""
    image = smooth(1)
    crop = frame((4, 2), (42, 44))
    step_by_step = shown(image, crop)
    step_by_step = shown(step_by_step, frame(shift=(4, -3)))
    step_by_step = shown(step_by_step, frame(degrees=9))
    at_once = shown(image, frame((4, 2), (42, 44), (4, -3), 9))
    assert (at_once - step_by_step).abs().mean() < 0.5
    assert (at_once - step_by_step).abs().max() < 10


def test_colours_are_torchvisions_one_after_another() -> None:
    augment = BatchedAugment(color_jitter=ALWAYS["color_jitter"])
    images = smooth(64) // 2 + 64  # so that nothing is cut off at 0 or 255, where the order would count
    changed = augment(images, *keys(64), seed=0)
    for image, ours in zip(images, changed, strict=True):
        factors = _color_factors(image.float(), ours)
        assert all(0.8 - 1e-3 < factor < 1.2 + 1e-3 for factor in factors)
        steps = zip((TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation), factors, strict=True)
        for order in itertools.permutations(steps):
            x = image.float() / 255
            for adjust, factor in order:
                x = adjust(x, factor)
            torch.testing.assert_close(ours / 255, x, rtol=0, atol=1e-3)


def _color_factors(image: Tensor, changed: Tensor) -> list[float]:
    """Brightness, contrast and saturation, read off: they scale the mean grey, grey's spread, and colour's."""
    grey, changed_grey = (TF.rgb_to_grayscale(x)[0] for x in (image, changed))
    brightness = changed_grey.mean() / grey.mean()
    contrast = changed_grey.std() / grey.std() / brightness
    saturation = (changed - changed_grey).std() / (image - grey).std() / brightness / contrast
    return [brightness.item(), contrast.item(), saturation.item()]


def test_colours_end_at_black_and_white() -> None:
    augment = BatchedAugment(color_jitter={"probability": 1, "brightness": 1.5, "contrast": 1.5, "saturation": 1.5})
    changed = augment(noise(64), *keys(64), seed=0)
    assert changed.min() == 0
    assert changed.max() == 255


def test_erase_blackens_one_rectangle() -> None:
    white = torch.full((200, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    changed = BatchedAugment(erase=ALWAYS["erase"])(white, *keys(200), seed=0)
    for image in changed:
        rows, columns = (image[0] == 0).nonzero().T
        height, width = (int(line.max() - line.min()) + 1 for line in (rows, columns))
        assert len(rows) == height * width
        low, high = ALWAYS["erase"]["area"]
        assert low * 0.8 < len(rows) / SIDE**2 < high * 1.2  # sides are whole pixels
    for edge in (changed[..., 0, :], changed[..., -1, :], changed[..., 0], changed[..., -1]):
        assert (edge == 0).any()


# Statistics against albumentations --------------------------------------------------------------------------------


def both(images: Tensor, steps: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The same images [N, S, S, 3] through either, with different random numbers."""
    positions = [(0, position) for position in range(len(images))]
    images_BHWC = images.permute(0, 2, 3, 1).contiguous().numpy()
    theirs = AlbumentationsAugment(**steps)(images_BHWC, positions, seed=1)
    ours = BatchedAugment(**steps)(images, *keys(len(images)), seed=2)
    return ours.permute(0, 2, 3, 1).numpy(), theirs.astype(np.float32)


def assert_same_distribution(ours: np.ndarray, theirs: np.ndarray, name: str) -> None:
    """Two samples [N]: means within 4 standard errors, and no two distribution functions apart by more than chance."""
    error = math.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
    assert abs(ours.mean() - theirs.mean()) < 4 * error + 1e-6, name
    values = np.sort(np.concatenate([ours, theirs]))
    shares = [np.searchsorted(np.sort(sample), values, side="right") / len(sample) for sample in (ours, theirs)]
    # Kolmogorov-Smirnov at a level of 1e-5.
    limit = math.sqrt(-math.log(0.5e-5) / 2 * (1 / len(ours) + 1 / len(theirs)))
    assert np.abs(shares[0] - shares[1]).max() < limit, name


@pytest.fixture(scope="module")
def geometry() -> tuple[np.ndarray, np.ndarray]:
    """Either's affine maps, least squares from images whose colours tell where a pixel came from: [N, 3, 2]."""
    ramp = torch.linspace(40, 240, SIDE)
    image = torch.stack([ramp.expand(SIDE, SIDE), ramp[:, None].expand(SIDE, SIDE), torch.full((SIDE, SIDE), 250)])
    images = image.round().to(torch.uint8).expand(MANY, -1, -1, -1)
    steps = {name: ALWAYS[name] for name in ("resized_crop", "translation", "rotation")}
    ours, theirs = (np.stack([_affine(image) for image in images]) for images in both(images, steps))
    return ours, theirs


def _affine(image: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(image[..., 2] > 249)  # what is not, even in part, black
    seen = image[rows, columns, :2]
    came_from = (seen - 40) / 200 * (SIDE - 1) - (SIDE - 1) / 2
    here = np.stack([columns, rows, np.full_like(rows, (SIDE + 1) / 2)], axis=1) - (SIDE - 1) / 2
    return np.linalg.lstsq(here, came_from, rcond=None)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "measure"),
    [
        ("area shown", lambda m: np.abs(np.linalg.det(m[:, :2]))),
        ("aspect", lambda m: np.log(np.hypot(*m[:, :2, 0].T) / np.hypot(*m[:, :2, 1].T))),
        ("angle", lambda m: np.degrees(np.arctan2(m[:, 1, 0] - m[:, 0, 1], m[:, 0, 0] + m[:, 1, 1]))),
        ("across", lambda m: m[:, 2, 0]),
        ("down", lambda m: m[:, 2, 1]),
    ],
)
def test_same_geometry(geometry: tuple[np.ndarray, np.ndarray], name: str, measure: Any) -> None:
    # Crops and moves are by whole pixels. Read off images, theirs are not quite: so neither are.
    blur = np.random.default_rng(0).uniform(-0.05, 0.05, (2, MANY))
    ours, theirs = (measure(maps) for maps in geometry)
    scale = theirs.std()
    assert_same_distribution(ours / scale + blur[0], theirs / scale + blur[1], name)


@pytest.mark.slow
def test_same_colours() -> None:
    """Three measures of each image of two colours: they are brightness, contrast and saturation."""
    image = torch.tensor([150, 110, 90], dtype=torch.uint8)[:, None, None].repeat(1, SIDE, SIDE)
    image[:, :, 24:] = torch.tensor([100, 120, 60], dtype=torch.uint8)[:, None, None]
    images = image.expand(MANY, -1, -1, -1)
    ours, theirs = both(images, {"color_jitter": ALWAYS["color_jitter"]})
    for name, measure in {
        "mean": lambda x: x.mean(axis=(1, 2, 3)),
        "spread": lambda x: x.mean(axis=(1, 3))[:, 0] - x.mean(axis=(1, 3))[:, -1],
        "colour": lambda x: x[:, 0, 0, 0] - x[:, 0, 0, 2],
    }.items():
        rounding = np.random.default_rng(0).uniform(-0.5, 0.5, (2, MANY))  # theirs are whole levels
        assert_same_distribution(measure(ours) + rounding[0], measure(theirs) + rounding[1], name)


@pytest.mark.slow
def test_same_erased_areas_and_places() -> None:
    white = torch.full((MANY, 3, SIDE, SIDE), 255, dtype=torch.uint8)
    ours, theirs = both(white, {"erase": ALWAYS["erase"]})
    for name, measure in {
        "area": lambda black: black.mean(axis=(1, 2)),
        "height": lambda black: black.any(axis=2).sum(axis=1),
        "width": lambda black: black.any(axis=1).sum(axis=1),
        "top": lambda black: black.any(axis=2).argmax(axis=1),
        "left": lambda black: black.any(axis=1).argmax(axis=1),
    }.items():
        assert_same_distribution(*(measure(x[..., 0] == 0).astype(float) for x in (ours, theirs)), name)


@pytest.mark.slow
def test_same_images_on_the_whole() -> None:
    """All steps with their probabilities: mean, spread, black share and detail of each image, and the mean image."""
    images = smooth(50).repeat(MANY // 50, 1, 1, 1)
    ours, theirs = both(images, PAPER)
    for name, measure in {
        "mean": lambda x: x.mean(axis=(1, 2, 3)),
        "spread": lambda x: x.std(axis=(1, 2, 3)),
        "black": lambda x: (x.max(axis=3) == 0).mean(axis=(1, 2)),
        "detail": lambda x: np.abs(np.diff(x, axis=1)).mean(axis=(1, 2, 3)),
    }.items():
        assert_same_distribution(measure(ours), measure(theirs), name)
    assert np.abs(ours.mean(axis=0) - theirs.mean(axis=0)).max() < 8
