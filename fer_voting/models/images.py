"""Images as a network takes them."""

import torch
from torch import Tensor

__all__ = ["normalise"]


def normalise(images: Tensor) -> Tensor:
    """uint8 0 to 255 -> float32 (x / 255 - 0.5) / 0.25, i.e. -2 to 2; shape and memory format stay."""
    return images.to(torch.float32).div_(255 * 0.25).sub_(2.0)
