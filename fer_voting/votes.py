"""Votes: from the logits of an image's crops to one decision (paper, section 3.1).

Every vote maps crop logits `[B, V, K]` (batch, crops, classes; floating point) to scores `[B, K]` of the same
dtype, whose argmax over K is the decision. To add a vote, write such a function, enter it in `VOTES`, and add
`conf/voting/<name>.yaml`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands that only need the votes' names start without torch
    from torch import Tensor

__all__ = ["VOTES", "hard_vote", "soft_vote", "softprob_vote", "vote_probabilities"]


def soft_vote(logits: Tensor) -> Tensor:
    """Mean of the crops' FC outputs: the paper's soft vote. `[B, V, K]` -> `[B, K]`."""
    return logits.mean(dim=1)


def softprob_vote(logits: Tensor) -> Tensor:
    """Mean of the crops' softmax, the other reading of "average of the predictions". `[B, V, K]` -> `[B, K]`."""
    return logits.softmax(dim=2).mean(dim=1)


def hard_vote(logits: Tensor) -> Tensor:
    """Share of the crops that decide for each class; ties go to the soft vote. `[B, V, K]` -> `[B, K]`.

    The paper leaves ties open. Here, of the classes with the most crops, the one with the highest soft vote is the
    decision (the first of them, if that is a tie too). The decision counts as half a crop more. So rows sum to 1 and
    the argmax is exact in every dtype.
    """
    from torch.nn.functional import one_hot

    crops, classes = logits.shape[1:]
    counts = one_hot(logits.argmax(dim=2), classes).sum(dim=1)
    by_soft_vote = soft_vote(logits).argsort(dim=1, descending=True, stable=True)
    decision = by_soft_vote.gather(1, counts.gather(1, by_soft_vote).argmax(dim=1, keepdim=True))
    return (counts + 0.5 * one_hot(decision[:, 0], classes)).to(logits.dtype) / (crops + 0.5)


VOTES: dict[str, Callable[[Tensor], Tensor]] = {
    "soft": soft_vote,
    "softprob": softprob_vote,
    "hard": hard_vote,
}


def vote_probabilities(logits: Tensor, vote: str, temperature: float = 1.0) -> Tensor:
    """Probabilities of the classes by a vote: `[B, V, K]` -> `[B, K]`, rows sum to 1, argmax is the vote's decision.

    The soft vote's scores are logits: their softmax, divided by `temperature` before (Guo et al. 2017,
    arXiv:1706.04599, section 4.2). The scores of the other votes are shares already, which no temperature changes.
    """
    scores = VOTES[vote](logits)
    return (scores / temperature).softmax(dim=1) if vote == "soft" else scores
