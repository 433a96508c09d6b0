"""A pack on the device that trains: dealt out, balanced and changed there, with nothing to wait for."""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fer_voting.data.augment_batched import BatchedAugment
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
        augment: changes of training images.
        seed: of the run.
    """

    def __init__(self, images: Tensor, targets: NDArray[Any], augment: BatchedAugment | None, seed: int) -> None:
        self.images, self.augment, self.seed = images, augment, seed
        self.targets = torch.as_tensor(targets, device=images.device)

    def __getitem__(self, keys: Sequence[Key]) -> tuple[Tensor, Tensor, Tensor]:
        """Images `[B, 3, S, S]`, uint8 or changed and float32, 0 to 255; targets `[B]` or `[B, K]`; positions `[B]`."""
        on_device = torch.tensor(keys).to(self.images.device, non_blocking=True)
        positions = on_device[:, 1]
        images = self.images[positions].permute(0, 3, 1, 2)
        if self.augment is not None:
            images = self.augment(images, on_device, self.seed)
        return images, self.targets[positions], positions
