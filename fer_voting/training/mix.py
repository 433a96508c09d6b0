"""Mixing the images of a training batch, and their labels: the options of `conf/mix/`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_WORD = 0x6D6978
"""First word of the seeds, so that no other purpose shares these random numbers."""


def seed_for(purpose: int, seed: int, *place: int) -> int:
    """The seed of a generator of torch for the numbers of a run that are drawn in a place, e.g. (epoch, batch)."""
    (number,) = np.random.SeedSequence([purpose, seed % 2**64, *place]).generate_state(1, np.uint64)
    return int(number)


class Mix:
    """A transform of whole batches whose random numbers depend only on (seed, epoch, batch).

    A run that continues mixes as one that was not interrupted. All ranks draw the same numbers; each mixes the images
    of its own part of the batch.

    Args:
        transform: maps images `[B, 3, H, W]` and targets (class ids `[B]`, or probabilities `[B, K]`) to mixed images
            and probabilities; draws from torch's generator of the processor, as those of torchvision do.
        seed: of the run.
    """

    def __init__(self, transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]], seed: int) -> None:
        self.transform, self.seed = transform, seed

    def __call__(self, images: Tensor, targets: Tensor, epoch: int, batch_idx: int) -> tuple[Tensor, Tensor]:
        """Mixed images `[B, 3, H, W]` and class probabilities `[B, K]`; both of the batch's size."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_for(_WORD, self.seed, epoch, batch_idx))
            return self.transform(images, targets)
