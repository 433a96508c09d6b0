"""The paper's five augmentations (section 3.3), low resolution and flips, of a whole batch, on the images' device.

Same steps, values and distribution as by_albumentations.py, with two differences for speed. Resized crop, translation
and rotation interpolate once, where albumentations interpolates up to three times and rounds to whole levels in
between. The colours change first, so the mean that contrast refers to is the whole image's, not the crop's.

Shapes: B images of S x S pixels. Coordinates in an image are in pixels, 0 at the centre of the first one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_voting.data.augment import Step, Steps
from fer_voting.data.augment.low_resolution import NUMBERS, lower_resolution

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in OpenCV and torchvision."""

CROP_ATTEMPTS = 10
"""Number of random crops tried before the whole image is used, as in albumentations."""

NOTHING: dict[str, dict[str, Any]] = {
    "resized_crop": {"probability": 0.0, "area": (1.0, 1.0), "aspect": (1.0, 1.0)},
    "color_jitter": {"probability": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0},
    "translation": {"probability": 0.0, "share": 0.0},
    "rotation": {"probability": 0.0, "degrees": 0.0},
    "erase": {"probability": 0.0, "area": (0.0, 0.0), "aspect": (1.0, 1.0)},
}
"""Values of a step that changes no image: those of a step that is left out."""


class BatchedAugment(Steps):
    """Random changes of training images; arguments as in `augment.make_augment`.

    A GPU launches few operations a batch: the random numbers of all steps are scaled together, and all that depends
    only on the configuration lies on the device from the first batch on.
    """

    def __init__(self, **steps: Step) -> None:
        super().__init__(**steps)
        self._constants: dict[tuple[int, torch.device], _Constants] = {}

    @cached_property
    def at_full_resolution(self) -> BatchedAugment:
        """The same changes of the same images, without `low_resolution`."""
        # With the probability 0, not without the step: the numbers of the steps behind it stay what they are.
        return replace(self, low_resolution={**(self.low_resolution or {}), "probability": 0.0})

    def __call__(self, images: Tensor, epoch: int, positions: Tensor, seed: int) -> Tensor:
        """Changed images, float32 `[B, 3, S, S]` from 0 to 255, each determined only by (seed, epoch, position).

        Args:
            images: uint8 `[B, 3, S, S]`, in any memory format.
            positions: int64 `[B]`, draws (`sampling.SampleKey`) of the images, on their device.
            seed: of the run.
        """
        side = images.shape[-1]
        if (place := (side, images.device)) not in self._constants:
            self._constants[place] = _Constants(self, side, images.device)
        constants = self._constants[place]
        draws = _Draws(constants, random_bits(seed, epoch, positions, constants.counters))
        x = images.to(torch.float32, memory_format=torch.contiguous_format)
        shift_angle, factors = _shift_angle_and_factors(constants, draws)
        if self.color_jitter is not None:
            x = _change_colors(x, factors, constants)
        crop, start, erased = _draw_rectangles(side, constants, draws)
        x, visible = _resample(x, _Frame(start[0], crop, shift_angle[:2], shift_angle[2]), constants.from_middle)
        if self.erase is not None:
            visible.masked_fill_(_inside(start[1], erased, constants.pixels), 0)
        x.mul_(visible[:, None])
        if self.low_resolution is not None:
            x = lower_resolution(x, draws.rows("low_resolution"), **self.low_resolution)
        if self.flip is not None:
            x = torch.where(draws.rests("flip")[0, :, None, None, None], x, x.flip(3))
        return x


# Random numbers ---------------------------------------------------------------------------------------------------


def random_bits(seed: int, epoch: int, positions: Tensor, counters: Tensor) -> Tensor:
    """Random whole numbers from 0 to 2^24 - 1, int64 `[N, B]`, a pure function of seed, epoch, position and counter.

    SplitMix64 (Steele, Lea and Flood 2014): its state at any step can be computed directly, so an image's numbers do
    not depend on the batch or the device. float32 can hold as many bits.

    Args:
        seed: of the run.
        positions: int64 `[B]`.
        counters: int64 `[N, 1]`, each the number of a step, from 1 on, times `_GAMMA`.
    """
    by_image = _last_xor(_mix((positions ^ _state_of(seed, epoch)) + _GAMMA))
    return _shift_right(_mix(by_image + counters), 64 - BITS)


BITS = 24

_GAMMA, _FIRST, _SECOND = (  # as signed numbers, because torch has no unsigned 64-bit arithmetic
    number - 2**64 for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


def _state_of(seed: int, epoch: int) -> int:
    """The state that the images of a batch share, as a signed number."""
    state = _mix_number(seed + _GAMMA)
    return _signed(_mix_number((state ^ epoch) + _GAMMA))


def _mix_number(number: int) -> int:
    """`_mix` and `_last_xor` of one number, unsigned."""
    z = number % 2**64
    z = (z ^ (z >> 30)) * _FIRST % 2**64
    z = (z ^ (z >> 27)) * _SECOND % 2**64
    return z ^ (z >> 31)


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def _mix(z: Tensor) -> Tensor:
    """SplitMix64's mixing without its last step (`_last_xor`), which changes the lowest 33 bits only."""
    z = (z ^ _shift_right(z, 30)) * _FIRST
    return (z ^ _shift_right(z, 27)) * _SECOND


def _last_xor(z: Tensor) -> Tensor:
    return z ^ _shift_right(z, 31)


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift; torch's own is arithmetic."""
    return (z >> bits) & (2 ** (64 - bits) - 1)


@dataclass
class _Row:
    """A random number of an image, `[B]`.

    Attributes:
        counter: which of the image's numbers.
        low, high: it is uniform in [low, high).
        probability: of the step, where the number decides whether it happens.
    """

    counter: int
    low: float = 0.0
    high: float = 1.0
    probability: float = 0.0


class _Constants:
    """All that the steps take from the configuration, on the images' device.

    Attributes:
        slices: name -> its rows of the random numbers.
        counters: of `random_bits`, int64 `[N, 1]`.
        low, scale: float32 `[N, 1]`: `low + scale * bits` is uniform as a row says.
        threshold: float32 `[N, 1]`; a step rests where the bits are no less.
        neutral: values of shift right, shift down, angle, brightness, contrast and saturation that change nothing,
            `[6, 1]`; `units`, `[3, 1]`: what shifts and angle are multiplied by.
        pixels, from_middle: float32 `[S]`: 0, 1, ...; and the same from the image's middle.
    """

    def __init__(self, steps: Steps, side: int, device: torch.device) -> None:
        rows = self._rows(steps)
        self.slices: dict[str, slice] = {}
        flat: list[_Row] = []
        for name, group in rows.items():
            self.slices[name] = slice(len(flat), len(flat) + len(group))
            flat += group

        def column(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)[:, None]

        counters = [_signed((row.counter + 1) * _GAMMA % 2**64) for row in flat]
        self.counters = torch.tensor(counters, device=device)[:, None]
        self.low = column([row.low for row in flat])
        self.scale = column([row.high - row.low for row in flat]) * 2.0**-BITS
        self.threshold = column([row.probability for row in flat]) * 2.0**BITS
        self.neutral, self.units = column([0, 0, 0, 1, 1, 1]), column([side, side, math.pi / 180])
        self.pixels = torch.arange(side, device=device, dtype=torch.float32)
        self.from_middle = self.pixels - (side - 1) / 2
        self.one = torch.ones((), device=device)
        self.luma, self.eye = torch.tensor(LUMA, device=device), torch.eye(3, device=device)

    @staticmethod
    def _rows(steps: Steps) -> dict[str, list[_Row]]:
        """The random numbers by purpose. Counters follow the steps in their order; one that is left out has none."""
        first = 0

        def take(count: int, of: object) -> int:
            nonlocal first
            first += count if of is not None else 0
            return first - count

        values = {name: getattr(steps, name) or rest for name, rest in NOTHING.items()}
        color, crop = values["color_jitter"], values["resized_crop"]
        move, turn, erase = values["translation"], values["rotation"], values["erase"]
        of_color, of_crop = take(4, steps.color_jitter), take(2 * CROP_ATTEMPTS + 3, steps.resized_crop)
        of_move, of_turn = take(3, steps.translation), take(2, steps.rotation)
        of_erase = take(5, steps.erase)
        of_low, of_flip = take(NUMBERS, steps.low_resolution), take(1, steps.flip)
        low, high = (math.log(aspect) for aspect in crop["aspect"])
        largest = min(erase["area"][1], erase["aspect"][0], 1 / erase["aspect"][1])  # any aspect must fit
        tries = range(of_crop, of_crop + CROP_ATTEMPTS)
        move_happens, turn_happens, color_happens = (
            _Row(counter, probability=step["probability"])
            for counter, step in ((of_move, move), (of_turn, turn), (of_color, color))
        )
        return {
            "areas": [
                *(_Row(each, *crop["area"]) for each in tries),
                _Row(0, 1.0, 1.0),  # the whole image, if no try fits
                _Row(of_erase, erase["area"][0], max(erase["area"][0], largest)),
            ],
            "aspects": [
                *(_Row(each + CROP_ATTEMPTS, low, high) for each in tries),
                _Row(0, 0.0, 0.0),
                _Row(of_erase + 1, *erase["aspect"]),
            ],
            "start": [
                *(_Row(of_crop + 2 * CROP_ATTEMPTS + 1 + axis) for axis in range(2)),
                *(_Row(of_erase + 2 + axis) for axis in range(2)),
            ],
            "crop": [_Row(of_crop + 2 * CROP_ATTEMPTS, probability=crop["probability"])],
            "erase": [_Row(of_erase + 4, probability=erase["probability"])],
            # In the order of `neutral`, and whether each happens beside it.
            "values": [
                *(_Row(of_move + 1 + axis, -move["share"], move["share"]) for axis in range(2)),
                _Row(of_turn + 1, -turn["degrees"], turn["degrees"]),
                *(
                    _Row(of_color + 1 + place, max(0, 1 - color[name]), 1 + color[name])
                    for place, name in enumerate(("brightness", "contrast", "saturation"))
                ),
            ],
            "values happen": [move_happens, move_happens, turn_happens, *[color_happens] * 3],
            "low_resolution": [_Row(of_low + number) for number in range(NUMBERS)],
            "flip": [_Row(of_flip, probability=0.0 if steps.flip is None else steps.flip["probability"])],
        }


class _Draws:
    """The random numbers of a batch, by purpose."""

    def __init__(self, constants: _Constants, bits: Tensor) -> None:
        self._slices = constants.slices
        self._numbers = (bits * constants.scale).add_(constants.low)
        self._rests = bits >= constants.threshold

    def rows(self, name: str) -> Tensor:
        """Uniform numbers, float32 `[n, B]`."""
        return self._numbers[self._slices[name]]

    def rests(self, name: str) -> Tensor:
        """Whether a step leaves an image as it is, bool `[n, B]`."""
        return self._rests[self._slices[name]]


# The steps --------------------------------------------------------------------------------------------------------


def _shift_angle_and_factors(constants: _Constants, draws: _Draws) -> tuple[Tensor, Tensor]:
    """Shift right and down in whole pixels, as in albumentations, and the angle in radians, `[3, B]`; brightness,
    contrast and saturation, and 1 less the last two, `[5, B]`."""
    drawn = draws.rows("values")
    values = drawn.new_empty(8, drawn.shape[1])
    torch.where(draws.rests("values happen"), constants.neutral, drawn, out=values[:6])
    values[:3].mul_(constants.units)
    values[:2].trunc_()
    torch.sub(constants.one, values[4:6], out=values[6:])
    return values[:3], values[3:]


def _change_colors(x: Tensor, factors: Tensor, constants: _Constants) -> Tensor:
    """Brightness, contrast and saturation, which are linear and commute, as one matrix per image.

    Args:
        factors: as `_shift_angle_and_factors` returns them, `[5, B]`.
    """
    _, _, s, _, not_s = factors[:, :, None, None]
    bc, b_not_c = (factors[0] * factors[1:4:2])[:, :, None, None]
    pixels = x.flatten(2)
    mean_grey = constants.luma @ pixels.mean(dim=2, keepdim=True)  # [B, 1]
    matrix = bc * (s * constants.eye + not_s * constants.luma.expand(3, 3))
    return torch.baddbmm(b_not_c * mean_grey[:, None], matrix, pixels).clamp_(0, 255).view_as(x)


def _draw_rectangles(side: int, constants: _Constants, draws: _Draws) -> tuple[Tensor, Tensor, Tensor]:
    """Sides of the crop, `[2, B]`, first pixels of the crop and of the erased rectangle, `[2, 2, B]`, and the sides of
    that, `[2, B]`, 0 where nothing is erased."""
    areas, aspects = draws.rows("areas"), draws.rows("aspects")
    areas[:-1].mul_(side**2)
    aspects[:-1].exp_()
    sides = areas.new_empty(2, *areas.shape)
    torch.mul(areas, aspects, out=sides[0])
    torch.div(areas, aspects, out=sides[1])
    sides.sqrt_()
    sides[:, -1].mul_(side)
    sides.round_()
    tried = sides[:, :-1]  # [2, attempts + 1, B]
    fits = (tried.clamp(1, side) == tried).all(dim=0)
    first = fits.view(torch.uint8).argmax(dim=0)  # the first try that fits
    chosen = sides.new_empty(2, 2, sides.shape[2])
    torch.gather(tried, 1, first.expand(2, 1, -1), out=chosen[0].unsqueeze(1))
    chosen[0].masked_fill_(draws.rests("crop"), side)
    torch.clamp(sides[:, -1], max=side, out=chosen[1])
    start = (side + 1 - chosen).mul_(draws.rows("start").view_as(chosen)).floor_()
    chosen[1].masked_fill_(draws.rests("erase"), 0)
    return chosen[0], start, chosen[1]


def _inside(start: Tensor, sides: Tensor, pixels: Tensor) -> Tensor:
    """The pixels of rectangles, bool `[B, S, S]`, by their first pixels and sides `[2, B]`, x first."""
    along = (pixels >= start[..., None]) & (pixels < (start + sides)[..., None])  # [2, B, S]
    return along[1, :, :, None] & along[0, :, None, :]


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


def _resample(x: Tensor, frame: _Frame, from_middle: Tensor) -> tuple[Tensor, Tensor]:
    """Crop, resize, shift and rotate with one interpolation.

    Args:
        from_middle: places along an axis, in pixels from the image's middle, `[S]`.

    Returns the images `[B, 3, S, S]`, with the border repeated outside the image, and the share of each pixel that the
    image covers `[B, S, S]`, 0 to 1.
    """
    side = x.shape[-1]
    before_turn = _turn_back(frame.angle, from_middle)
    # After the shift, the image covers a range of pixels along each axis; beyond it, it fades over one pixel, as
    # interpolation with black does.
    middle = frame.shift / 2
    half_extent = (side + 1) / 2 - middle.abs()
    distance = (before_turn - middle[..., None, None]).abs_()
    covered = torch.sub(half_extent[..., None, None], distance, out=distance).clamp_(0, 1)
    visible = covered[0].mul_(covered[1])

    # `grid_sample` has -1 and 1 at the outer edges of the image.
    scale_offset = x.new_empty(2, *frame.sides.shape)
    scale = torch.div(frame.sides, side, out=scale_offset[0])
    middle_shown = torch.add(frame.start, frame.sides - side, alpha=0.5)
    torch.sub(middle_shown, scale * frame.shift, out=scale_offset[1])
    scale, offset = scale_offset.mul_(2 / side)[..., None, None]
    grid = before_turn.mul_(scale).add_(offset).movedim(0, -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False), visible


def _turn_back(angle: Tensor, from_middle: Tensor) -> Tensor:
    """Each pixel's x and y from the image's middle before a rotation by `angle` (`[B]`), `[2, B, S, S]`."""
    turn = angle.new_empty(4, len(angle))  # cos, sin of a column's distance; -sin, cos of a row's
    torch.cos(angle.expand(2, -1), out=turn[::3])
    torch.sin(angle, out=turn[1])
    torch.neg(turn[1], out=turn[2])
    from_column, from_row = turn.view(2, 2, -1, 1) * from_middle
    return from_column[:, :, None, :] + from_row[:, :, :, None]
