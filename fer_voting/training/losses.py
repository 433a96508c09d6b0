"""Losses: the options of `conf/loss/`, and the distance from a teacher.

Shapes: B batch, V crops an image, K classes, n numbers.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_voting.targets import NUMBERS, Target
from fer_voting.votes import VOTES, CropOutputs


class CropLoss(nn.Module, ABC):
    """A loss of each crop's FC output, averaged; never of the vote (section 3.3).

    A loss of one's own is a subclass with `per_crop`, named by a file of a folder `loss`. In evaluation mode, in which
    Lightning validates, a loss leaves out what only regularises.
    """

    of: ClassVar[str] = "classes"
    """The outputs that it judges: `classes`, `numbers` or `both`."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch, a number.

        Args:
            logits: `[B, V, K]`, floating point.
            targets: class ids `[B]` (int64), or class probabilities `[B, K]` (floating point); of numbers `[B, n]`,
                where the logits are `[B, V, n]`.
        """
        return self.per_crop(logits.flatten(0, 1), targets.repeat_interleave(logits.shape[1], dim=0))

    @abstractmethod
    def per_crop(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over N crops with logits `[N, K]` and targets `[N]` or `[N, K]`."""


class CrossEntropy(CropLoss):
    """Cross-entropy, the paper's loss.

    Args:
        label_smoothing: share of each target that is spread evenly over the K classes, in training (Szegedy et al.
            2016, arXiv:1512.00567, section 7); at least 0 and below 1.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"loss.label_smoothing={label_smoothing} must be at least 0 and below 1")
        self.label_smoothing = label_smoothing

    def per_crop(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, label_smoothing=self.label_smoothing if self.training else 0.0)


class GeneralizedCrossEntropy(CropLoss):
    """(1 - p^q) / q with the probability p of the target's class (Zhang and Sabuncu 2018, arXiv:1805.07836, section 3).

    Targets of probabilities weight the classes.

    Args:
        q: above 0, where the limit is the cross-entropy, to 1, half of the mean absolute error.
    """

    def __init__(self, q: float = 0.7) -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise ValueError(f"loss.q={q} must be above 0 and at most 1")
        self.q = q

    def per_crop(self, logits: Tensor, targets: Tensor) -> Tensor:
        # exp(q log p): the power of a probability that underflows to 0 has no finite gradient.
        missed = (1 - (self.q * logits.log_softmax(dim=1)).exp()) / self.q
        return _expected(missed, targets)


class FocalLoss(CropLoss):
    """-(1 - p)^gamma log p with the probability p of the target's class (Lin et al. 2017, arXiv:1708.02002, section 3).

    Targets of probabilities weight the classes.

    Args:
        gamma: at least 0, where it is the cross-entropy.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"loss.gamma={gamma} must be at least 0")
        self.gamma = gamma

    def per_crop(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=1)
        # Above 0: a root has no finite gradient at 0.
        missed = (-log_p.expm1()).clamp_min(torch.finfo(log_p.dtype).tiny)
        return _expected(-(missed**self.gamma) * log_p, targets)


def _expected(values: Tensor, targets: Tensor) -> Tensor:
    """Mean over N crops of the values `[N, K]` of the target's class, or weighted by the target's probabilities."""
    if targets.ndim == 1:
        return values.gather(1, targets[:, None]).mean()
    return (values * targets).sum(dim=1).mean()


class SquaredError(CropLoss):
    """Mean squared error of the numbers of every crop, the loss of AffectNet's paper for valence and arousal."""

    of = "numbers"

    def per_crop(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.mse_loss(logits, targets.to(logits.dtype))


class ConcordanceLoss(CropLoss):
    """1 - Lin's concordance correlation of predicted and labelled numbers over all crops of a batch, mean over numbers.

    2 cov / (var + var + difference of the means squared); of numbers that don't vary the correlation is 0.
    """

    of = "numbers"

    def per_crop(self, logits: Tensor, targets: Tensor) -> Tensor:
        targets = targets.to(logits.dtype)
        own, labelled = logits - logits.mean(dim=0), targets - targets.mean(dim=0)
        apart = (logits.mean(dim=0) - targets.mean(dim=0)).square()
        spread = own.square().mean(dim=0) + labelled.square().mean(dim=0) + apart
        return (1 - 2 * (own * labelled).mean(dim=0) / spread.clamp_min(1e-8)).mean()


class WeightedSum(CropLoss):
    """A loss of the classes and one of the numbers, each times its weight.

    Args:
        classes, numbers: losses of these outputs.
        class_weight, number_weight: at least 0.
    """

    of = "both"

    def __init__(self, classes: CropLoss, numbers: CropLoss, class_weight: float, number_weight: float) -> None:
        super().__init__()
        if (classes.of, numbers.of) != ("classes", "numbers"):
            raise ValueError(f"loss.classes is of {classes.of}, and loss.numbers of {numbers.of}")
        if min(class_weight, number_weight) < 0:
            raise ValueError(
                f"loss.class_weight={class_weight} and loss.number_weight={number_weight} must be at least 0"
            )
        self.classes, self.numbers = classes, numbers
        self.class_weight, self.number_weight = class_weight, number_weight

    def per_crop(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Args: logits `[N, K + 2]` and targets `[N, K + 2]`, probabilities of the classes first."""
        classes = logits.shape[1] - len(NUMBERS)
        of_classes = self.classes.per_crop(logits[:, :classes], targets[:, :classes])
        of_numbers = self.numbers.per_crop(logits[:, classes:], targets[:, classes:])
        return self.class_weight * of_classes + self.number_weight * of_numbers


LOSSES = {"classes": "cross_entropy", "numbers": "mse or concordance", "both": "both"}


def check_loss(loss: nn.Module, target: Target, option: str) -> None:
    """Raises ValueError if a loss is of other outputs than a target's network has.

    Args:
        option: of the group `loss`, for the message.
    """
    outputs = "classes" if not target.numbers else "both" if target.has_classes else "numbers"
    if (of := getattr(loss, "of", outputs)) != outputs:
        kinds = {"both": "classes and numbers"}
        raise ValueError(
            f"loss={option} is of {kinds.get(of, of)}, and the target of {kinds.get(outputs, outputs)}: "
            f"loss={LOSSES[outputs]}"
        )


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
            images: of the batch, for the teacher, `[B, 3, H, W]`.
        """
        targets = self.soft_targets(images)[:, None].expand_as(logits)
        own = F.log_softmax(logits.float() / self.temperature, dim=2)
        divergence = F.kl_div(own.flatten(0, 1), targets.flatten(0, 1), reduction="batchmean")
        soft_loss = self.temperature**2 * divergence
        return self.hard_weight * hard_loss + (1 - self.hard_weight) * soft_loss
