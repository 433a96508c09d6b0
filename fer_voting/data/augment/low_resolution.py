"""Low resolution of a whole batch: each image down to a side of its own, perhaps through JPEG there, and back up.

A resize along one axis is a product with a matrix that depends on the side and the kernel. The matrices of all sides
and kernels are computed once, and each image takes its own by index, so that no step is made image by image.

Shapes: B images of S x S pixels, P the frame that the small images lie in: the largest side, rounded up to whole blocks
of JPEG.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

DOWN = ("area", "bilinear", "bicubic", "lanczos")
"""Kernels that bring an image down, equally likely; all but the area's mean are widened by the scale, as in Pillow."""
UP = ("nearest", "bilinear", "bicubic")
"""Kernels that bring it back up, equally likely."""

NUMBERS = 6
"""Random numbers that an image needs."""

BLOCK = 8
"""Pixels a side of the blocks that JPEG transforms."""


def lower_resolution(
    x: Tensor,
    numbers: Tensor,
    probability: float,
    sides: Sequence[int],
    jpeg_probability: float,
    jpeg_quality: Sequence[int],
) -> Tensor:
    """The images, each with `probability` at a lower resolution: float32 `[B, 3, S, S]`, whole levels where changed.

    Args:
        x: float32 `[B, 3, S, S]` from 0 to 255.
        numbers: random in [0, 1), float32 `[6, B]`.
        probability: of the whole step.
        sides: least and largest side in pixels, drawn log-uniformly; a side above S counts as S.
        jpeg_probability: of compression at the small side.
        jpeg_quality: least and greatest quality, whole numbers from 1 to 100.
    """
    chosen = (numbers[0] < probability).nonzero()[:, 0]
    numbers = numbers[:, chosen]
    side = x.shape[-1]
    low, high = (min(value, side) for value in sides)
    down, up = resize_matrices(side, low, high, x.device)
    row = torch.exp(math.log(low) + math.log(high / low) * numbers[1]).round().long() - low
    small = _resize(x[chosen], down[(numbers[2] * len(DOWN)).long(), row])
    compressed = (numbers[4] < jpeg_probability).nonzero()[:, 0]
    quality = jpeg_quality[0] + (jpeg_quality[1] + 1 - jpeg_quality[0]) * numbers[5, compressed]
    small[compressed] = jpeg(small[compressed], quality.floor())
    return x.index_copy(0, chosen, _resize(small, up[(numbers[3] * len(UP)).long(), row]))


def _resize(x: Tensor, matrices: Tensor) -> Tensor:
    """Each image by its matrix `[B, N, M]`, across and then down, in whole levels each time, as in Pillow.

    Takes float32 `[B, 3, M, M]`, returns `[B, 3, N, N]`.
    """
    across = (x @ matrices[:, None].mT).round_().clamp_(0, 255)
    return (matrices[:, None] @ across).round_().clamp_(0, 255)


# Resizing ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def resize_matrices(side: int, low: int, high: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Matrices that resize from `side` to each side from `low` to `high`, and back.

    Returns float32 `[4, high - low + 1, P, side]` by kernel of `DOWN`, where rows from the small side on repeat
    the last one, as JPEG's encoders pad; and
    `[3, high - low + 1, side, P]` by kernel of `UP`, whose columns there are 0.
    """
    frame = math.ceil(high / BLOCK) * BLOCK
    down = torch.zeros(len(DOWN), high - low + 1, frame, side, dtype=torch.float64)
    up = torch.zeros(len(UP), high - low + 1, side, frame, dtype=torch.float64)
    for row, small in enumerate(range(low, high + 1)):
        for kernel, name in enumerate(DOWN):
            down[kernel, row, :small] = resize_matrix(name, side, small)
            down[kernel, row, small:] = down[kernel, row, small - 1]
        for kernel, name in enumerate(UP):
            up[kernel, row, :, :small] = resize_matrix(name, small, side)
    return down.to(device, torch.float32), up.to(device, torch.float32)


def resize_matrix(kernel: str, before: int, after: int) -> Tensor:
    """The resize of `before` pixels to `after` along one axis, with antialiasing: float64 `[after, before]`."""
    scale = before / after
    pixels = torch.arange(before, dtype=torch.float64)
    places = torch.arange(after, dtype=torch.float64)[:, None]
    if kernel == "nearest":
        weights = (pixels == ((places + 0.5) * scale).floor()).double()
    elif kernel == "area":  # the share of each pixel that a place covers
        weights = (torch.minimum(pixels + 1, (places + 1) * scale) - torch.maximum(pixels, places * scale)).clamp(min=0)
    else:
        weights = _KERNELS[kernel]((pixels + 0.5 - (places + 0.5) * scale) / max(scale, 1))
    return weights / weights.sum(dim=1, keepdim=True)


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x.abs()).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    """Keys' cubic convolution with a = -0.5, as in Pillow."""
    x = x.abs()
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, 0))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < 3, torch.sinc(x) * torch.sinc(x / 3), 0)


_KERNELS = {"bilinear": _bilinear, "bicubic": _bicubic, "lanczos": _lanczos}


# JPEG -------------------------------------------------------------------------------------------------------------

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Quantisation steps of the luminance at quality 50 (ITU-T T.81, table K.1)."""
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8 for _ in range(4)),
)
"""Likewise of both chrominances (table K.2)."""
YCC = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))
"""Luminance and chrominances of red, green and blue (JFIF 1.02)."""


def jpeg(x: Tensor, quality: Tensor) -> Tensor:
    """The images after JPEG with as many pixels for the colours as for the grey (4:4:4), in whole levels.

    What libjpeg loses by the quantisation is lost here likewise; it also rounds in between, so that few levels differ,
    and those by little.

    Args:
        x: float32 `[B, 3, P, P]` from 0 to 255, P a multiple of 8.
        quality: of each image, as libjpeg counts, 1 to 100: float32 `[B]`.
    """
    side = x.shape[-1]
    to_ycc, to_rgb, tables, cosines = (value.to(x.device) for value in _jpeg_constants(side))
    scale = torch.where(quality < 50, (5000 / quality).floor(), 200 - 2 * quality)
    steps = ((tables * scale[:, None, None, None] + 50) / 100).floor_().clamp_(1, 255)  # [B, 3, 8, 8]
    steps = steps.repeat(1, 1, side // BLOCK, side // BLOCK)
    ycc = (to_ycc @ x.flatten(2)).view_as(x)
    ycc[:, 0] -= 128
    coefficients = (cosines @ ycc.round_() @ cosines.mT).div_(steps).round_().mul_(steps)
    ycc = (cosines.mT @ coefficients @ cosines).round_()
    ycc[:, 0] += 128
    return (to_rgb @ ycc.flatten(2)).view_as(x).round_().clamp_(0, 255)


@lru_cache(maxsize=8)
def _jpeg_constants(side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colours `[3, 3]` and back, quantisation steps `[3, 8, 8]`, cosine transform of each block `[side, side]`."""
    tables = torch.tensor([LUMINANCE, CHROMINANCE, CHROMINANCE], dtype=torch.float32)
    frequency, pixel = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)
    cosines = torch.cos(math.pi / BLOCK * frequency * (pixel + 0.5)) * math.sqrt(2 / BLOCK)
    cosines[0] = math.sqrt(1 / BLOCK)
    to_ycc = torch.tensor(YCC)
    return to_ycc, to_ycc.inverse(), tables, torch.kron(torch.eye(side // BLOCK), cosines)
