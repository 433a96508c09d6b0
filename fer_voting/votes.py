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

__all__ = ["VOTES", "hard_vote", "soft_vote", "softprob_vote"]


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
    import torch
    from torch.nn.functional import one_hot

    crops, classes = logits.shape[1:]
    counts = one_hot(logits.argmax(dim=2), classes).sum(dim=1)
    behind = counts < counts.amax(dim=1, keepdim=True)
    decision = soft_vote(logits).masked_fill(behind, -torch.inf).argmax(dim=1)  # of equals, the first
    return (counts + 0.5 * one_hot(decision, classes)).to(logits.dtype) / (crops + 0.5)


VOTES: dict[str, Callable[[Tensor], Tensor]] = {
    "soft": soft_vote,
    "softprob": softprob_vote,
    "hard": hard_vote,
}
