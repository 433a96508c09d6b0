"""The votes: how the logits of an image's crops become one decision (paper, section 3.1).

Every vote maps crop logits `[B, V, K]` (batch, crops, classes; floating point) to scores `[B, K]` of the same
dtype, whose argmax over K is the decision. To add a vote, write such a function, enter it in `VOTES`, and add
`conf/voting/<name>.yaml`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["VOTES", "hard_vote", "soft_vote", "softprob_vote"]


def soft_vote(logits: Tensor) -> Tensor:
    """Mean of the crops' FC outputs: the paper's soft vote. `[B, V, K]` -> `[B, K]`."""
    return logits.mean(dim=1)


def softprob_vote(logits: Tensor) -> Tensor:
    """Mean of the crops' softmax, the other reading of "average of the predictions". `[B, V, K]` -> `[B, K]`."""
    return logits.softmax(dim=2).mean(dim=1)


def hard_vote(logits: Tensor) -> Tensor:
    """Share of the crops that decide for each class; ties go to the soft vote's favourite. `[B, V, K]` -> `[B, K]`.

    The paper leaves ties open. Two shares differ by at least 1/V, so adding the soft vote's softmax scaled to
    less than half of that orders the tied classes and changes nothing else; rows sum to 1 again afterwards.
    """
    votes = logits.shape[1]
    shares = torch.nn.functional.one_hot(logits.argmax(dim=2), logits.shape[2]).to(logits.dtype).mean(dim=1)
    tie_break = soft_vote(logits).softmax(dim=1)
    weight = 0.5 / votes
    return (shares + weight * tie_break) / (1 + weight)


VOTES: dict[str, Callable[[Tensor], Tensor]] = {
    "soft": soft_vote,
    "softprob": softprob_vote,
    "hard": hard_vote,
}
