"""Ten overlapping crops of a feature map (paper, section 3.1 and Algorithm 1).

Shapes: B batch, C channels, H and W the map's sides, h and w the crop's.
"""

from fractions import Fraction

import torch
from torch import Tensor

__all__ = ["CROPS", "crop_corners", "crop_side", "ten_crops"]

CROPS = 10
"""Five positions, each also mirrored."""


def crop_side(side: int, fraction: float = 5 / 6, name: str = "side") -> int:
    """The crop's side in pixels: `fraction` of `side`, which must come out whole.

    The paper chose 5/6 because every module's output divides by six; rounding elsewhere would silently give
    another network, so a side that does not divide is an error.

    Raises ValueError if `fraction` is not in (0, 1], or `fraction * side` is not a whole number.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"`fraction` (={fraction}) must be greater than 0 and at most 1")
    exact = Fraction(fraction).limit_denominator(1000)
    crop = exact * side
    if crop.denominator != 1:
        raise ValueError(
            f"`{name}` (={side}) must be divisible by {exact.denominator}, "
            f"so that a crop of {exact} of it has whole pixels"
        )
    return int(crop)


def crop_corners(height: int, width: int, h: int, w: int) -> list[tuple[int, int]]:
    """(top, left) in pixels of the five positions: the four corners in reading order, then the centre."""
    bottom, right = height - h, width - w
    # torchvision's rounding (to even, on a half pixel) for the centre of an odd margin.
    return [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]


def ten_crops(x: Tensor, fraction: float = 5 / 6) -> Tensor:
    """Cut each map into ten overlapping crops: `[B, C, H, W]` -> `[B, 10, C, h, w]`, any dtype.

    The order is top left, top right, bottom left, bottom right, centre, then the same five positions of the
    horizontally mirrored map (Algorithm 1); equal, bit for bit, to `torchvision`'s `ten_crop`.

    Raises ValueError if H or W times `fraction` is not whole.

    >>> ten_crops(torch.zeros(2, 64, 48, 48)).shape
    torch.Size([2, 10, 64, 40, 40])
    """
    height, width = x.shape[-2:]
    h, w = crop_side(height, fraction, "height"), crop_side(width, fraction, "width")
    corners = crop_corners(height, width, h, w)
    crops = [m[..., top : top + h, left : left + w] for m in (x, x.flip(-1)) for top, left in corners]
    return torch.stack(crops, dim=1)
