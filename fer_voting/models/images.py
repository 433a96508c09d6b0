"""Images as a network takes them."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

MEAN, STD = 0.5, 0.25
"""Mean and standard deviation of `normalise`, for pixels from 0 to 1."""


def normalise(images: Tensor) -> Tensor:
    """uint8 0 to 255 -> float32 (x / 255 - 0.5) / 0.25, i.e. -2 to 2; shape and memory format stay."""
    return images.to(torch.float32).div_(255 * STD).sub_(MEAN / STD)


def as_grey(images: Tensor) -> Tensor:
    """RGB uint8 `[..., 3]` -> the same shape with three equal channels, by Pillow's weights (`convert("L")`).

    Whole numbers, so that every runtime gives the same, and grey images stay what they are in every bit.
    """
    red, green, blue = images.to(torch.int32).unbind(-1)
    grey = torch.div(19595 * red + 38470 * green + 7471 * blue + 32768, 65536, rounding_mode="trunc")
    return torch.stack([grey.to(torch.uint8)] * 3, dim=-1)


class Grey(nn.Module):
    """Normalised images `[B, 3, H, W]` -> grey ones, by the weights of `as_grey`."""

    def forward(self, images: Tensor) -> Tensor:
        red, green, blue = images.unbind(1)
        return ((19595 * red + 38470 * green + 7471 * blue) / 65536)[:, None].expand_as(images)


class InputNormalisation(nn.Module):
    """Normalised images `[B, 3, H, W]` -> the same, normalised by a backbone's own mean and standard deviation.

    Args:
        mean, std: of pixels 0 to 1, by channel.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ValueError(f"`mean` (={list(mean)}) and `std` (={list(std)}) must be three numbers, std above 0")
        # Not persistent: they belong to the architecture, not to the weights.
        scale, shift = ([STD / s for s in std], [(MEAN - m) / s for m, s in zip(mean, std, strict=True)])
        self.register_buffer("scale", torch.tensor(scale).view(3, 1, 1), persistent=False)
        self.register_buffer("shift", torch.tensor(shift).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return images * self.scale + self.shift
