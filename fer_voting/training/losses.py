"""What a training minimises: the crops' cross-entropy, and the distance from a teacher.

Shapes: B batch, V crops an image, K classes.
"""

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_voting.votes import VOTES, CropOutputs


def crop_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of every crop's FC output, never of the vote (section 3.3).

    Args:
        logits: `[B, V, K]`.
        targets: class ids `[B]` (int64), or class probabilities `[B, K]` (floating point).
        label_smoothing: share of each target that is spread evenly over the K classes (Szegedy et al. 2016,
            arXiv:1512.00567, section 7).
    """
    per_crop = targets.repeat_interleave(logits.shape[1], dim=0)
    return F.cross_entropy(logits.flatten(0, 1), per_crop, label_smoothing=label_smoothing)


class Distillation:
    """Soft targets from a trained network (Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2).

    No part of the module that is trained, so that neither its checkpoints nor copies of it hold the teacher.

    Args:
        teacher: maps the images of a training batch `[B, 3, H, W]` to crop logits `[B, V, K]` for the same classes; its
            V may differ from the trained network's. It is put into evaluation mode and stays as it is.
        temperature: divisor of the logits of both networks, above 0.
        hard_weight: weight of the labels' loss, 0 to 1; the teacher's has the rest.
        vote: the teacher's vote, whose probabilities are the targets of every crop.

    Raises ValueError for a value out of range or an unknown vote.
    """

    def __init__(self, teacher: nn.Module, *, temperature: float, hard_weight: float, vote: str) -> None:
        if not temperature > 0:
            raise ValueError(f"distillation.temperature={temperature} must be greater than 0")
        if not 0 <= hard_weight <= 1:
            raise ValueError(f"distillation.hard_weight={hard_weight} must be from 0 to 1")
        if vote not in VOTES:
            raise ValueError(f"distillation.vote={vote} must be one of {', '.join(VOTES)}")
        self.teacher = teacher.eval().requires_grad_(False)
        self.temperature, self.hard_weight, self.vote = temperature, hard_weight, VOTES[vote]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # it never changes, and copies of a module need no teacher of their own

    @torch.no_grad()
    def soft_targets(self, images: Tensor) -> Tensor:
        """The teacher's probabilities at the temperature, float32 `[B, K]`."""
        if next(self.teacher.parameters()).device != images.device:
            self.teacher.to(images.device)
        return self.vote.probabilities(CropOutputs(self.teacher(images).float() / self.temperature))

    def __call__(self, hard_loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """`hard_loss` and the Kullback-Leibler divergence of every crop from the teacher, weighted.

        The divergence differs from the source's cross-entropy by the teacher's entropy, a constant. It is multiplied by
        the squared temperature, so that the weights mean the same at any temperature.

        Args:
            hard_loss: of the labels.
            logits: of the trained network, `[B, V, K]`.
            images: the batch that it saw, `[B, 3, H, W]`.
        """
        targets = self.soft_targets(images)[:, None].expand_as(logits)
        own = F.log_softmax(logits.float() / self.temperature, dim=2)
        divergence = F.kl_div(own.flatten(0, 1), targets.flatten(0, 1), reduction="batchmean")
        soft_loss = self.temperature**2 * divergence
        return self.hard_weight * hard_loss + (1 - self.hard_weight) * soft_loss
