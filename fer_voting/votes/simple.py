"""Votes that need only the crop logits (paper, section 3.1).

Shapes: B images, V crops an image, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_voting.votes.vote import CropOutputs, Vote

if TYPE_CHECKING:  # commands that only need the votes' names start without torch
    from torch import Tensor


class SoftVote(Vote):
    """Mean of the crops' FC outputs: the paper's soft vote."""

    has_rule_for_numbers = True

    def scores(self, outputs: CropOutputs) -> Tensor:
        return outputs.crops.mean(dim=1)


class SoftprobVote(Vote):
    """Mean of the crops' softmax, the other reading of "average of the predictions"."""

    is_probability = True

    def scores(self, outputs: CropOutputs) -> Tensor:
        return outputs.crops.softmax(dim=2).mean(dim=1)


class HardVote(Vote):
    """Share of the crops that decide for each class; ties go to the soft vote.

    The paper leaves ties open. Here, of the classes with the most crops, the one with the highest soft vote is the
    decision (the first of them, if that is a tie too). The decision counts as half a crop more. So rows sum to 1 and
    the argmax is exact in every dtype.
    """

    is_probability = True
    is_continuous = False
    has_rule_for_numbers = True

    def scores(self, outputs: CropOutputs) -> Tensor:
        import torch
        from torch.nn.functional import one_hot

        logits = outputs.crops
        crops, classes = logits.shape[1:]
        counts = one_hot(logits.argmax(dim=2), classes).sum(dim=1)
        behind = counts < counts.amax(dim=1, keepdim=True)
        decision = logits.mean(dim=1).masked_fill(behind, -torch.inf).argmax(dim=1)  # the first of equals
        return (counts + 0.5 * one_hot(decision, classes)).to(logits.dtype) / (crops + 0.5)

    def numbers(self, crops: Tensor) -> Tensor:
        """The median, which is the mean of the middle two of an even number of crops."""
        ordered, crops_per_image = crops.sort(dim=1).values, crops.shape[1]
        return (ordered[:, (crops_per_image - 1) // 2] + ordered[:, crops_per_image // 2]) / 2


class ConfidenceVote(Vote):
    """Mean of the crops' softmax, each crop weighted by its `certainty`."""

    is_probability = True

    def scores(self, outputs: CropOutputs) -> Tensor:
        weights = certainty(outputs.crops)
        weights = weights / weights.sum(dim=1, keepdim=True)
        return (weights[..., None] * outputs.crops.softmax(dim=2)).sum(dim=1)


def certainty(logits: Tensor) -> Tensor:
    """The largest softmax probability, `[..., K]` -> `[...]`, 1/K to 1.

    The confidence of Hendrycks and Gimpel 2017 (arXiv:1610.02136), their "maximum softmax probability".
    """
    return logits.softmax(dim=-1).amax(dim=-1)


soft_vote = SoftVote("soft")
softprob_vote = SoftprobVote("softprob")
hard_vote = HardVote("hard")
confidence_vote = ConfidenceVote("confidence")
