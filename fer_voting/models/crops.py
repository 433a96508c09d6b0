"""Ten overlapping crops of a feature map (paper, section 3.1 and Algorithm 1).

Shapes: B batch, C channels, H and W the map's sides, h and w the crop's.
"""

import functools
import logging
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

CROPS = 10
"""Five positions, each also mirrored."""


FRACTION = Fraction(5, 6)
"""Side of a crop as a share of the map's."""


def crop_side(side: int) -> int:
    """The crop's side in pixels: 5/6 of `side`, rounded to the nearest pixel; half a pixel is rounded up.

    The paper chose 5/6 because it divides every module's output of 48-pixel images; other sizes are rounded:
    `crop_side(48) == 40`, `crop_side(56) == 47`, `crop_side(9) == 8`.

    Raises ValueError if `side` is so small that the crop would be all of it.
    """
    crop = int(FRACTION * side + Fraction(1, 2))
    if crop == side:
        raise ValueError(
            f"a map of {side} pixels is too small for crops of {FRACTION} of its side ({crop} pixels): "
            "use larger images (dataset.size) or crop earlier (split)"
        )
    return crop


@functools.cache  # once for each size of a map
def _log_rounding(side: int, crop: int) -> None:
    if crop != FRACTION * side:
        log.info(f"crops of {crop} of {side} pixels, {crop / side:.4f} of the side: {FRACTION} is not a whole number")


def crop_corners(height: int, width: int, h: int, w: int) -> list[tuple[int, int]]:
    """(top, left) in pixels of the five positions: the four corners in reading order, then the centre."""
    bottom, right = height - h, width - w
    # torchvision's rounding (to even, on a half pixel) for the centre of an odd margin.
    return [(0, 0), (0, right), (bottom, 0), (bottom, right), (round(bottom / 2), round(right / 2))]


def ten_crops(x: Tensor) -> Tensor:
    """Ten overlapping crops of each map: `[B, C, H, W]` -> `[B, 10, C, h, w]`, any dtype.

    The order is top left, top right, bottom left, bottom right, centre, then the same five positions of the
    horizontally mirrored map (Algorithm 1); equal, bit for bit, to `torchvision`'s `ten_crop`. The crops have the
    memory format of `x`, `torch.channels_last` (the faster) or contiguous.

    Where 5/6 of H or W is not whole, it is rounded (`crop_side`), and the log says so once.

    Raises ValueError if H or W is too small.

    >>> ten_crops(torch.zeros(2, 64, 48, 48)).shape
    torch.Size([2, 10, 64, 40, 40])
    """
    height, width = x.shape[2:]
    h, w = crop_side(height), crop_side(width)
    if not torch.compiler.is_compiling():
        _log_rounding(height, h)
        _log_rounding(width, w)
    if torch.compiler.is_exporting():  # an exported file knows no operator of ours
        return _sliced(x, h, w)
    crops = _gather(x, h, w)
    return crops if x.is_contiguous(memory_format=torch.channels_last) else crops.contiguous()


def _sliced(x: Tensor, h: int, w: int) -> Tensor:
    """`[B, C, H, W]` -> `[B, 10, C, h, w]` by plain slices."""
    height, width = x.shape[2:]
    corners = crop_corners(height, width, h, w)
    return torch.stack(
        [view[..., top : top + h, left : left + w] for view in (x, x.flip(-1)) for top, left in corners], dim=1
    )


# The crops are one gather of pixels, all channels of a pixel at once, and their gradient is one sum. Ten slices and
# autograd's own backward, which fills ten maps with zeros and adds them, make a whole training step of m1 (width 16,
# batch 64, one thread) 13 % longer in bfloat16 and 19 % in float32, with other last bits. Here the gradient of a pixel
# is the sum over the crops' pixels that were read from it: an embedding bag, which reads every number once. These are
# custom operators, so that `torch.compile` does not trace them and the index plans below are made once per map size,
# not per call.


@torch.library.custom_op("fer_voting::ten_crops", mutates_args=())
def _gather(x: Tensor, h: int, w: int) -> Tensor:
    """`[B, C, H, W]` -> `[B, 10, C, h, w]`."""
    batch, channels, height, width = x.shape
    pixels = x.permute(0, 2, 3, 1).reshape(batch * height * width, channels)
    sources = _for_each_image(_sources(height, width, h, w, x.device), batch, stride=height * width)
    return pixels.index_select(0, sources).view(batch, CROPS, h, w, channels).permute(0, 1, 4, 2, 3)


@torch.library.custom_op("fer_voting::ten_crops_backward", mutates_args=())
def _scatter(gradient: Tensor, height: int, width: int) -> Tensor:
    """`[B, 10, C, h, w]` -> `[B, C, H, W]`, summed in float32 for shorter dtypes too."""
    batch, _, channels, h, w = gradient.shape
    pixels = gradient.permute(0, 1, 3, 4, 2).reshape(batch * CROPS * h * w, channels)
    readers, first_reader = _readers(height, width, h, w, gradient.device)
    readers, first_reader = (_for_each_image(p, batch, stride=CROPS * h * w) for p in (readers, first_reader))
    total = torch.embedding_bag(pixels, readers, first_reader)[0]
    return total.view(batch, height, width, channels).permute(0, 3, 1, 2)


@_gather.register_fake
def _(x: Tensor, h: int, w: int) -> Tensor:
    batch, channels = x.shape[:2]
    return x.new_empty(batch, CROPS, h, w, channels).permute(0, 1, 4, 2, 3)


@_scatter.register_fake
def _(gradient: Tensor, height: int, width: int) -> Tensor:
    batch, channels = gradient.shape[0], gradient.shape[2]
    return gradient.new_empty(batch, height, width, channels).permute(0, 3, 1, 2)


def _keep_size(ctx: Any, inputs: tuple[Tensor, int, int], output: Tensor) -> None:
    ctx.height, ctx.width = inputs[0].shape[2:]


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    return _scatter(gradient, ctx.height, ctx.width), None, None


_gather.register_autograd(_backward, setup_context=_keep_size)


@functools.cache
def _sources(height: int, width: int, h: int, w: int, device: torch.device) -> Tensor:
    """The map's pixel of each pixel of the crops, counted row by row: `[10 * h * w]` int32."""
    pixels = torch.arange(height * width, dtype=torch.int32, device=device).view(1, 1, height, width)
    return _sliced(pixels, h, w).flatten()


@functools.cache
def _readers(height: int, width: int, h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The inverse of `_sources`: the crops' pixels sorted by map pixel, and each map pixel's first one; int32."""
    sources = _sources(height, width, h, w, device)
    count = sources.bincount(minlength=height * width)
    return sources.argsort(stable=True).int(), (count.cumsum(0) - count).int()


def _for_each_image(plan: Tensor, batch: int, stride: int) -> Tensor:
    """An image's plan `[P]` repeated for a batch, `stride` added for each image: `[B * P]` int32."""
    starts = torch.arange(0, batch * stride, stride, dtype=torch.int32, device=plan.device)
    return (starts[:, None] + plan).flatten()
