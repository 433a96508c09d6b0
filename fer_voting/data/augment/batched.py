"""The paper's five augmentations (section 3.3), low resolution and flips, of a whole batch, on the images' device.

Same steps, values and distribution as by_albumentations.py, with two differences for speed. Resized crop, translation
and rotation interpolate once, where albumentations interpolates up to three times and rounds to whole levels in
between. The colours change first, so the mean that contrast refers to is the whole image's, not the crop's.

Shapes: B images of S x S pixels. Coordinates in an image are in pixels, 0 at the centre of the first one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_voting.data.augment import Steps
from fer_voting.data.augment.low_resolution import NUMBERS, lower_resolution
from fer_voting.data.sampling import SampleKey

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in OpenCV and torchvision."""

CROP_ATTEMPTS = 10
"""Number of random crops tried before the whole image is used, as in albumentations."""

NUMBERS_PER_IMAGE = 2 * CROP_ATTEMPTS + 20 + NUMBERS + 1
"""Upper bound of the random numbers that the steps use."""


class BatchedAugment(Steps):
    """Random changes of training images; arguments as in `augment.make_augment`."""

    def __call__(self, images: Tensor, keys: Sequence[SampleKey] | Tensor, seed: int) -> Tensor:
        """Changed images, float32 `[B, 3, S, S]` from 0 to 255, each determined only by (seed, epoch, position).

        Args:
            images: uint8 `[B, 3, S, S]`, in any memory format.
            keys: int64 `[B, 2]`: epoch and position of each image.
            seed: of the run.
        """
        side = images.shape[-1]
        draws = _Draws(uniforms(seed, torch.as_tensor(keys, device=images.device), NUMBERS_PER_IMAGE))
        x = images.to(torch.float32, memory_format=torch.contiguous_format)
        if self.color_jitter is not None:
            x = _change_colors(x, draws, **self.color_jitter)
        frame = _Frame.whole(len(x), side, x.device)
        if self.resized_crop is not None:
            frame.start, frame.sides = _draw_crop(side, draws, **self.resized_crop)
        if self.translation is not None:
            frame.shift = _draw_shift(side, draws, **self.translation)
        if self.rotation is not None:
            frame.angle = _draw_angle(draws, **self.rotation)
        x, visible = _resample(x, frame)
        if self.erase is not None:
            visible *= _draw_mask(side, draws, **self.erase)
        x.mul_(visible[:, None])
        if self.low_resolution is not None:
            x = lower_resolution(x, draws.uniform(0, 1, NUMBERS), **self.low_resolution)
        if self.flip is not None:
            x = torch.where(draws.happens(**self.flip)[:, None, None, None], x.flip(3), x)
        return x


# Random numbers ---------------------------------------------------------------------------------------------------


def uniforms(seed: int, keys: Tensor, count: int) -> Tensor:
    """Random numbers in [0, 1), float32 `[B, count]`, a pure function of seed, key and column.

    SplitMix64 (Steele, Lea and Flood 2014): its state at any step can be computed directly, so an image's numbers do
    not depend on the batch or the device.

    Args:
        seed: of the run.
        keys: int64 `[B, 2]`, any pair of numbers.
    """
    state = _mix(torch.full_like(keys[:, 0], seed) + _GAMMA)
    for word in keys.unbind(dim=1):
        state = _mix((state ^ word) + _GAMMA)
    bits = _mix(state[:, None] + torch.arange(1, count + 1, device=keys.device) * _GAMMA)
    return _shift_right(bits, 40).float() * 2.0**-24  # as many bits as float32 can hold


_GAMMA, _FIRST, _SECOND = (  # as signed numbers, because torch has no unsigned 64-bit arithmetic
    number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _FIRST
    z = (z ^ _shift_right(z, 27)) * _SECOND
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own is arithmetic."""
    return (z >> bits) & (2 ** (64 - bits) - 1)


class _Draws:
    """Random numbers `[B, N]` for the steps; every call uses new ones and returns `[*shape, B]`."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers = numbers.T.contiguous()
        self._used = 0

    def uniform(self, low: float, high: float | Tensor, *shape: int) -> Tensor:
        numbers = self._numbers[self._used : self._used + math.prod(shape)]
        self._used += len(numbers)
        return low + (high - low) * numbers.view(*shape, -1)

    def integer(self, high: Tensor, *shape: int) -> Tensor:
        """Integers from 0 to `high` inclusive."""
        return self.uniform(0, high + 1, *shape).floor_()

    def happens(self, probability: float) -> Tensor:
        return self.uniform(0, 1, 1)[0] < probability


# The steps --------------------------------------------------------------------------------------------------------


def _change_colors(
    x: Tensor, draws: _Draws, probability: float, brightness: float, contrast: float, saturation: float
) -> Tensor:
    """Brightness, contrast and saturation, which are linear and commute, as one matrix per image."""
    happens = draws.happens(probability)
    b, c, s = (
        torch.where(happens, draws.uniform(max(0, 1 - value), 1 + value, 1)[0], 1)[:, None, None]
        for value in (brightness, contrast, saturation)
    )
    luma = x.new_tensor(LUMA)
    pixels = x.flatten(2)
    mean_grey = luma @ pixels.mean(dim=2, keepdim=True)  # [B, 1]
    matrix = b * c * (s * torch.eye(3, device=x.device) + (1 - s) * luma.expand(3, 3))
    offset = b * (1 - c) * mean_grey[:, None]
    return torch.baddbmm(offset, matrix, pixels).clamp_(0, 255).view_as(x)


def _draw_crop(
    side: int, draws: _Draws, probability: float, area: Sequence[float], aspect: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """First pixel and sides of the crop, `[2, B]` each."""
    areas = draws.uniform(area[0], area[1], CROP_ATTEMPTS) * side**2
    aspects = draws.uniform(math.log(aspect[0]), math.log(aspect[1]), CROP_ATTEMPTS).exp()
    sides = torch.stack([areas * aspects, areas / aspects]).sqrt().round()  # [2, attempts, B]
    fits = ((sides > 0) & (sides <= side)).all(dim=0)
    first = fits.float().argmax(dim=0)  # the first that fits
    chosen = sides.gather(1, first.expand(2, 1, -1))[:, 0]
    chosen = torch.where(fits.any(dim=0) & draws.happens(probability), chosen, side)
    return draws.integer(side - chosen, 2), chosen


def _draw_shift(side: int, draws: _Draws, probability: float, share: float) -> Tensor:
    """Shift right and down in whole pixels, as in albumentations, `[2, B]`."""
    return torch.where(draws.happens(probability), (draws.uniform(-share, share, 2) * side).trunc(), 0)


def _draw_angle(draws: _Draws, probability: float, degrees: float) -> Tensor:
    """Angle of rotation in radians `[B]`."""
    return torch.where(draws.happens(probability), draws.uniform(-degrees, degrees, 1)[0] * (math.pi / 180), 0)


def _draw_mask(side: int, draws: _Draws, probability: float, area: Sequence[float], aspect: Sequence[float]) -> Tensor:
    """0 in the erased rectangle, 1 elsewhere, `[B, S, S]`."""
    largest = min(area[1], aspect[0], 1 / aspect[1])  # any aspect must fit
    areas = draws.uniform(area[0], max(area[0], largest), 1)[0]
    aspects = draws.uniform(aspect[0], aspect[1], 1)[0]
    sides = (torch.stack([areas * aspects, areas / aspects]).sqrt() * side).round().clamp_(max=side)
    start = draws.integer(side - sides, 2)
    sides = torch.where(draws.happens(probability), sides, 0)
    pixels = torch.arange(side, device=sides.device)
    inside = (pixels >= start[..., None]) & (pixels < (start + sides)[..., None])  # [2, B, S]
    return (~(inside[1, :, :, None] & inside[0, :, None, :])).float()


@dataclass
class _Frame:
    """The geometric transform of each image; a row for x and a row for y in each `[2, B]`."""

    start: Tensor
    """First pixel of the crop, which is resized to the whole image, `[2, B]`."""
    sides: Tensor
    """Sides of the crop in pixels, `[2, B]`."""
    shift: Tensor
    """Shift right and down in pixels, after the crop, `[2, B]`."""
    angle: Tensor
    """Rotation about the centre in radians, after the shift, `[B]`."""

    @classmethod
    def whole(cls, batch: int, side: int, device: torch.device) -> _Frame:
        nothing = torch.zeros(2, batch, device=device)
        return cls(nothing, nothing + side, nothing, nothing[0])


def _resample(x: Tensor, frame: _Frame) -> tuple[Tensor, Tensor]:
    """Crop, resize, shift and rotate with one interpolation.

    Returns the images `[B, 3, S, S]`, with the border repeated outside the image, and the share of each pixel that the
    image covers `[B, S, S]`, 0 to 1.
    """
    side = x.shape[-1]
    before_turn = _turn_back(frame.angle, side)
    # After the shift, the image covers a range of pixels along each axis; beyond it, it fades over one pixel, as
    # interpolation with black does.
    middle, half_extent = frame.shift / 2, (side + 1 - frame.shift.abs()) / 2
    from_middle = (before_turn - middle[..., None, None]).abs_()
    covered = from_middle.neg_().add_(half_extent[..., None, None]).clamp_(0, 1)
    visible = covered[0].mul_(covered[1])

    scale = frame.sides / side
    middle_shown = frame.start + (frame.sides - side) / 2
    offset = middle_shown - scale * frame.shift
    # `grid_sample` has -1 and 1 at the outer edges of the image.
    source = before_turn.mul_((2 / side * scale)[..., None, None]).add_((2 / side * offset)[..., None, None])
    grid = source.movedim(0, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False), visible


def _turn_back(angle: Tensor, side: int) -> Tensor:
    """Each pixel's x and y from the image's middle before a rotation by `angle` (`[B]`), `[2, B, S, S]`."""
    pixels = torch.arange(side, device=angle.device) - (side - 1) / 2
    cos, sin = angle.cos(), angle.sin()
    from_column = torch.stack([cos, sin])[..., None] * pixels
    from_row = torch.stack([-sin, cos])[..., None] * pixels
    return from_column[:, :, None, :] + from_row[:, :, :, None]
