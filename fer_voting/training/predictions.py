"""The outputs of a network for a part of a data set, over all ranks.

Shapes: V crops an image, K classes, N images.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from fer_voting.votes import CropOutputs


@dataclass
class PartPredictions:
    """A network's outputs for N images, float32, on the CPU.

    Attributes:
        crops: logits of the crops, one for each output of the network, `[N, V, K]`.
        full_map: logits of the whole map `[N, K]`; None if the network takes no crops, or has numbers.
        labels: as the target has them (`targets.Target.labels`): of classes their ids `[N]`.
        positions: of the images in the pack `[N]`.
    """

    crops: Tensor
    full_map: Tensor | None
    labels: Tensor
    positions: Tensor

    @property
    def outputs(self) -> CropOutputs:
        """The logits as a vote takes them."""
        return CropOutputs(self.crops, self.full_map)

    @classmethod
    def gather(cls, batches: Iterable["PartPredictions"], positions: NDArray[np.int64]) -> "PartPredictions":
        """The predictions of all ranks in the order of `positions` (int64 [N], in the pack). Every rank must call it.

        Positions that were not evaluated (`trainer.limit_val_batches`, `limit_test_batches`) are left out.

        Raises ValueError if nothing was evaluated.
        """
        batches = list(batches)
        if dist.is_initialized():
            of_ranks = [batches] * dist.get_world_size()
            dist.all_gather_object(of_ranks, batches)
            batches = [batch for of_rank in of_ranks for batch in of_rank]
        if not batches:
            raise ValueError("no image was evaluated: trainer.limit_val_batches and limit_test_batches must be above 0")
        row_of = {position: row for row, position in enumerate(_joined(batches, "positions").tolist())}
        rows = torch.tensor([row_of[position] for position in positions.tolist() if position in row_of])
        full_map = None if batches[0].full_map is None else _joined(batches, "full_map")[rows]
        crops, labels, index = (_joined(batches, name)[rows] for name in ("crops", "labels", "positions"))
        return cls(crops, full_map, labels, index)


def _joined(batches: Iterable[PartPredictions], name: str) -> Tensor:
    return torch.cat([getattr(batch, name) for batch in batches])
