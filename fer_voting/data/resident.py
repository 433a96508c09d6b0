"""A pack on the device that trains: dealt out there, with nothing to wait for."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fer_voting.data.pack import Pack
from fer_voting.data.sampling import Key

__all__ = ["ResidentImages", "fits", "load"]

SHARE_OF_FREE_MEMORY = 0.25
"""What a pack may take on a GPU; the rest is for the network. AffectNet at 48 pixels is 2 GB."""


def fits(pack: Pack, device: torch.device) -> bool:
    """Whether a pack is worth keeping on `device`: on a GPU with room for it. In the CPU's memory it is anyway."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return pack.images.nbytes <= SHARE_OF_FREE_MEMORY * free


def load(pack: Pack, device: torch.device) -> Tensor:
    """All pictures of a pack on `device`: uint8 `[N, S, S, 3]`."""
    return torch.tensor(pack.images, device=device)


class ResidentImages(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """`base.PackedImages` on a device: `dataset[[(epoch, position), ...]]` is a whole batch.

    Args:
        images: as `load` gives them.
        targets: of each picture, `[N]` or `[N, K]`.
    """

    def __init__(self, images: Tensor, targets: NDArray[Any]) -> None:
        self.images = images
        self.targets = torch.as_tensor(targets, device=images.device)

    def __getitem__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor, Tensor]:
        """Images uint8 `[B, 3, S, S]` in channels_last order, targets `[B]` or `[B, K]`, positions int64 `[B]`."""
        positions = torch.tensor([position for _, position in keys]).to(self.images.device, non_blocking=True)
        return self.images[positions].permute(0, 3, 1, 2), self.targets[positions], positions
