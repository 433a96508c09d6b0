"""Low resolution: its resizes and its JPEG against Pillow's and OpenCV's, and both backends against each other."""

import io
import itertools
import math
from typing import Any

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
import torch.nn.functional as F
from helpers.composed import composed
from torch import Tensor

from fer_voting.data.augment.batched import BatchedAugment
from fer_voting.data.augment.by_albumentations import AlbumentationsAugment
from fer_voting.data.augment.low_resolution import DOWN, UP, _resize, jpeg, resize_matrices

SIDE = 48
VALUES: dict[str, Any] = {"probability": 1.0, "sides": [8, 48], "jpeg_probability": 0.3, "jpeg_quality": [30, 95]}
MANY = 3000


def keys(count: int) -> tuple[int, Tensor]:
    """Epoch and positions of a batch."""
    return 0, torch.arange(count)


def images(count: int) -> Tensor:
    """Coloured shapes with edges and some noise, uint8 [N, 3, S, S]."""
    generator = torch.Generator().manual_seed(0)
    coarse = F.interpolate(torch.rand(count, 3, 7, 7, generator=generator), (SIDE, SIDE), mode="nearest")
    fine = F.interpolate(torch.rand(count, 3, 16, 16, generator=generator), (SIDE, SIDE), mode="bicubic")
    return ((0.7 * coarse + 0.3 * fine).clamp(0, 1) * 255).round().to(torch.uint8)


def by_pillow(image: np.ndarray, side: int, kernel: str) -> np.ndarray:
    """uint8 [side, side, 3]; the area's mean, which Pillow lacks, by OpenCV."""
    if kernel == "area":
        return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(PIL.Image.fromarray(image).resize((side, side), PIL.Image.Resampling[kernel.upper()]))


@pytest.mark.parametrize("small", [8, 11, 16, 23, 24, 37, 47, 48])
def test_resizes_are_pillows(small: int) -> None:
    image = images(1)
    down, up = resize_matrices(SIDE, 8, 48, torch.device("cpu"))
    for kernel, name in enumerate(DOWN):
        framed = _resize(image.float(), down[kernel, small - 8][None])
        assert_levels(framed[..., :small, :small], by_pillow(as_array(image), small, name), name)
        assert (framed[..., small:, :] == framed[..., small - 1 : small, :]).all()  # as encoders of JPEG pad
        assert (framed[..., small:] == framed[..., small - 1 : small]).all()
    face = by_pillow(as_array(image), small, "bilinear")
    framed = torch.full((1, 3, SIDE, SIDE), 77.0)  # what lies beside the small image must not be seen
    framed[..., :small, :small] = torch.tensor(face).permute(2, 0, 1)
    for kernel, name in enumerate(UP):
        assert_levels(_resize(framed, up[kernel, small - 8][None]), by_pillow(face, SIDE, name), name)


def as_array(image: Tensor) -> np.ndarray:
    return image[0].permute(1, 2, 0).contiguous().numpy()


def assert_levels(ours: Tensor, expected: np.ndarray, name: str) -> None:
    """The same levels but for halves, which are rounded up or down."""
    difference = np.abs(as_array(ours) - expected.astype(np.float32))
    assert difference.max() <= 2, name
    assert difference.mean() < 0.3, name


@pytest.mark.parametrize("quality", [10, 30, 49, 50, 75, 95, 100])
def test_jpeg_is_pillows(quality: int) -> None:
    """Few levels differ, where a coefficient between two steps of the quantisation is rounded the other way."""
    many = images(20)
    ours = jpeg(many.float(), torch.full((20,), float(quality)))
    assert torch.equal(ours, ours.round())
    differences = []
    for image, changed in zip(many.permute(0, 2, 3, 1).contiguous().numpy(), ours, strict=True):
        file = io.BytesIO()
        PIL.Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=0)
        expected = np.asarray(PIL.Image.open(file)).astype(float)
        differences.append(np.abs(changed.permute(1, 2, 0).numpy() - expected))
    assert np.mean(differences) < 0.8
    assert np.quantile(differences, 0.9) <= 2


def test_jpeg_takes_a_quality_for_each_image() -> None:
    many, qualities = images(3).float(), torch.tensor([20.0, 90.0, 50.0])
    together = jpeg(many, qualities)
    for row in range(3):
        torch.testing.assert_close(jpeg(many[row : row + 1], qualities[row : row + 1])[0], together[row])


def test_each_image_depends_on_its_key_and_the_other_steps_do_not_change() -> None:
    augment, many = BatchedAugment(low_resolution=VALUES), images(64)
    changed = augment(many, *keys(64), seed=0)
    assert changed.dtype == torch.float32
    assert changed.shape == many.shape
    alone = torch.cat([augment(many[row : row + 1], 0, torch.tensor([row]), seed=0) for row in range(0, 64, 9)])
    torch.testing.assert_close(alone, changed[::9], rtol=0, atol=0)
    # With the paper's steps: the images that this one leaves out have the same bits as without it.
    paper = dict(composed(["augment=low_resolution"]).augment)
    half = {name: paper[name] for name in ("resized_crop", "color_jitter", "translation", "rotation", "erase")}
    without = BatchedAugment(**half)(many, *keys(64), seed=0)
    both = BatchedAugment(**half, low_resolution={**VALUES, "probability": 0.5})(many, *keys(64), seed=0)
    assert 0.25 < (both == without).all(dim=(1, 2, 3)).float().mean() < 0.75


@pytest.mark.parametrize("backend", [AlbumentationsAugment, BatchedAugment])
def test_a_side_of_eight_leaves_eight_pixels(backend: type) -> None:
    values = {**VALUES, "sides": [8, 8], "jpeg_probability": 0.0}
    many, positions = images(64), [(0, position) for position in range(64)]
    changed = through(backend, many, positions, {"low_resolution": values})
    blocks = changed.reshape(64, 8, 6, 8, 6, 3)
    nearest = (blocks == blocks[:, :, :1, :, :1]).all(axis=(1, 2, 3, 4, 5)).mean()
    assert 0.15 < nearest < 0.5  # a third of the images is brought up by repeating pixels


@pytest.mark.parametrize("backend", [AlbumentationsAugment, BatchedAugment])
def test_sides_above_the_images_own_count_as_its_own(backend: type) -> None:
    many, positions = images(4), [(0, position) for position in range(4)]
    values = {**VALUES, "sides": [96, 112], "jpeg_probability": 0.0}
    changed = through(backend, many, positions, {"low_resolution": values})
    assert (changed == many.permute(0, 2, 3, 1).numpy()).all()


# Statistics against albumentations --------------------------------------------------------------------------------


def through(backend: type, many: Tensor, positions: list[tuple[int, int]], steps: dict[str, Any]) -> np.ndarray:
    """[N, S, S, 3] after the backend's steps."""
    if backend is BatchedAugment:
        changed = BatchedAugment(**steps)(many, *keys(len(many)), seed=2)
        return changed.round().permute(0, 2, 3, 1).numpy()  # what is left out is not in whole levels
    return AlbumentationsAugment(**steps)(many.permute(0, 2, 3, 1).contiguous().numpy(), positions, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("jpeg_probability", [0.0, 1.0])
def test_both_backends_have_the_same_distribution(jpeg_probability: float) -> None:
    """Detail, error, extremes and repeated pixels of each image, by Kolmogorov and Smirnov at a level of 1e-5."""
    many = images(30).repeat(MANY // 30, 1, 1, 1)
    original = many.permute(0, 2, 3, 1).numpy().astype(float)
    values = {**VALUES, "probability": 0.7, "jpeg_probability": jpeg_probability}
    positions = [(0, position) for position in range(MANY)]
    ours, theirs = (
        through(backend, many, positions, {"low_resolution": values}).astype(float)
        for backend in (BatchedAugment, AlbumentationsAugment)
    )
    measures = {
        "detail across": lambda x: np.abs(np.diff(x, axis=2)).mean(axis=(1, 2, 3)),
        "detail down": lambda x: np.abs(np.diff(x, axis=1)).mean(axis=(1, 2, 3)),
        "error": lambda x: np.abs(x - original).mean(axis=(1, 2, 3)),
        "spread": lambda x: x.std(axis=(1, 2, 3)),
        "repeated": lambda x: (np.diff(x, axis=1) == 0).all(axis=3).mean(axis=(1, 2)),
    }
    limit = math.sqrt(-math.log(0.5e-5) / MANY)
    for name, measure in measures.items():
        samples = [np.sort(measure(x)) for x in (ours, theirs)]
        places = np.concatenate(samples)
        shares = [np.searchsorted(sample, places, side="right") / MANY for sample in samples]
        assert np.abs(shares[0] - shares[1]).max() < limit, name
    unchanged = [(x == original).all(axis=(1, 2, 3)).mean() for x in (ours, theirs)]
    assert all(0.26 < share < 0.36 for share in unchanged)


@pytest.mark.slow
def test_sides_and_kernels_are_drawn_as_documented() -> None:
    """The result for a single white pixel tells the side and both kernels: each combination as often as it should."""
    point = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    point[..., 20, 20] = 255
    values = {**VALUES, "sides": [8, 16], "jpeg_probability": 0.0}
    many = point.expand(MANY, -1, -1, -1)
    positions = [(0, position) for position in range(MANY)]
    expected: dict[bytes, float] = {}
    image = point[0].permute(1, 2, 0).contiguous().numpy()
    edges = np.clip(np.arange(7.5, 17), 8, 16)
    shares = np.diff(np.log(edges)) / math.log(2)
    for (down, up), (small, share) in itertools.product(
        itertools.product(DOWN, UP), zip(range(8, 17), shares, strict=True)
    ):
        result = by_pillow(by_pillow(image, small, down), SIDE, up).tobytes()
        expected[result] = expected.get(result, 0) + share / len(DOWN) / len(UP)
    theirs = through(AlbumentationsAugment, many, positions, {"low_resolution": values})
    counts: dict[bytes, int] = dict.fromkeys(expected, 0)
    for result in theirs:
        counts[result.tobytes()] += 1  # nothing else occurs
    for result, share in expected.items():
        error = math.sqrt(share * (1 - share) / MANY)
        assert abs(counts[result] / MANY - share) < 5 * error
