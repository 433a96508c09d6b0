"""A pack by whole batches, as a loader asks for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fer_voting.data.pack import Pack
from fer_voting.data.sampling import AGAIN, SampleKey

Batch = tuple[Tensor, Tensor, Tensor]
"""images, targets, positions in the pack; as a loader gives them, draws (`sampling.SampleKey`)"""
TrainingBatch: TypeAlias = tuple[Tensor, Tensor, Tensor, *tuple[Tensor, ...]]
"""a batch, and at most once the same images for a teacher, where these differ"""
Change: TypeAlias = Callable[[NDArray[np.uint8], Sequence[SampleKey], int], NDArray[np.uint8]]
"""(images uint8 [B, S, S, 3], keys, seed) -> uint8 [B, S, S, 3]: augmentation by albumentations, or a corruption"""


class BatchDataset(Dataset[Batch]):
    """A pack by whole batches: `dataset[[(epoch, draw), ...]]`.

    Args:
        images: the pack, read from its file, or all its images uint8 [N, S, S, 3] as a tensor on any device.
        targets: of each row, [N] or [N, K].
        change: of a pack's images.
        seed: of the change.
    """

    def __init__(
        self, images: Pack | Tensor, targets: NDArray[Any], change: Change | None = None, seed: int = 0
    ) -> None:
        self.images, self.change, self.seed = images, change, seed
        self.targets = torch.as_tensor(targets, device=images.device if isinstance(images, Tensor) else None)

    def __getitem__(self, keys: Sequence[SampleKey]) -> Batch:
        """images uint8 [B, 3, S, S] in channels_last order, targets [B] or [B, K], draws int64 [B]."""
        draws = torch.tensor([draw for _, draw in keys]).to(self.targets.device, non_blocking=True)
        positions = draws % AGAIN
        if isinstance(self.images, Tensor):
            images = self.images[positions]
        else:
            images_BHWC = self.images.images[positions.numpy()]
            images = torch.from_numpy(self.change(images_BHWC, keys, self.seed) if self.change else images_BHWC)
        return images.permute(0, 3, 1, 2), self.targets[positions], draws
