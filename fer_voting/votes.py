"""Votes: from the logits of an image's crops to one decision (paper, section 3.1).

Every vote maps crop logits `[B, V, K]` (batch, crops, classes; floating point) to scores `[B, K]` of the same
dtype, whose argmax over K is the decision. To add a vote, write such a function, enter it in `VOTES`, and add
`conf/voting/<name>.yaml`. If its scores are not shares that sum to 1, `vote_probabilities` must say how they become
probabilities.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # commands that only need the votes' names start without torch
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["VOTES", "fit_temperature", "hard_vote", "soft_vote", "softprob_vote", "vote_probabilities"]


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

TEMPERATURES = (0.05, 20.0)
"""Bounds of the fitted temperature: where every decision is right, the likelihood has no maximum above 0."""


def vote_probabilities(logits: Tensor, vote: str, temperature: float = 1.0) -> Tensor:
    """Probabilities of the classes by a vote: `[B, V, K]` -> `[B, K]`, rows sum to 1, argmax is the vote's decision.

    The soft vote's scores are logits: their softmax, divided by `temperature` before (Guo et al. 2017,
    arXiv:1706.04599, section 4.2). The scores of the other votes are shares already, which no temperature changes.
    """
    scores = VOTES[vote](logits)
    return (scores / temperature).softmax(dim=1) if vote == "soft" else scores


def fit_temperature(logits: Tensor | NDArray[np.floating], labels: Tensor | NDArray[np.int64], vote: str) -> float:
    """The temperature at which `vote_probabilities` makes the labels most likely (Guo et al. 2017, section 4.2).

    To be fitted on validation images, and then applied to others; no decision changes. 1.0 for every vote but the
    soft one, whose scores alone are logits.

    Args:
        logits: of the crops, [N, V, K].
        labels: class ids [N].
        vote: a key of `VOTES`.

    Raises ValueError if the vote is unknown or there are no images.
    """
    import numpy as np
    import torch
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    if vote not in VOTES:
        raise ValueError(f"`vote` (={vote!r}) must be one of {', '.join(VOTES)}")
    if not len(labels):
        raise ValueError("a temperature needs at least one image to be fitted on")
    if vote != "soft":
        return 1.0
    scores = soft_vote(torch.as_tensor(logits).double()).numpy()
    rows, classes = np.arange(len(labels)), np.asarray(labels)

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(scores / np.exp(log_temperature), axis=1)[rows, classes].mean())

    # Convex in 1 / temperature, so that there is one minimum.
    fitted = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(fitted.x))
