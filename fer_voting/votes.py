"""Votes: from the logits of an image's crops to one decision (paper, section 3.1).

Every vote maps crop logits `[B, V, K]` (batch, crops, classes; floating point) to scores `[B, K]` of the same
dtype, whose argmax over K is the decision. To add a vote, write such a function, enter it in `VOTES`, and add
`conf/voting/<name>.yaml`. Scores are taken as logits, whose softmax gives the probabilities; a vote whose scores are
probabilities already (0 to 1, a row sums to 1) is also entered in `SHARES`.

What a vote takes from validation images is a `Fitted`: `fit_vote` finds it, `result.json` and exported files keep it,
`vote_scores` and `vote_probabilities` apply it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # commands that only need the votes' names start without torch
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


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


def certainty(logits: Tensor) -> Tensor:
    """The largest softmax probability, `[..., K]` -> `[...]`, 1/K to 1.

    The confidence of Hendrycks and Gimpel 2017 (arXiv:1610.02136), their "maximum softmax probability".
    """
    return logits.softmax(dim=-1).amax(dim=-1)


def confidence_vote(logits: Tensor) -> Tensor:
    """Mean of the crops' softmax, each crop weighted by its `certainty`. `[B, V, K]` -> `[B, K]`."""
    weights = certainty(logits)
    weights = weights / weights.sum(dim=1, keepdim=True)
    return (weights[..., None] * logits.softmax(dim=2)).sum(dim=1)


def weighted_vote(logits: Tensor, weights: tuple[float, ...]) -> Tensor:
    """Mean of the crops' FC outputs, each position with its weight. `[B, V, K]` -> `[B, K]`.

    Args:
        weights: V, not negative, sum to 1 (`fit_weights`).

    Raises ValueError if there are not V weights.
    """
    if len(weights) != logits.shape[1]:
        raise ValueError(f"`weights` (={len(weights)} of them) must be one for each of the {logits.shape[1]} crops")
    return (logits * logits.new_tensor(weights)[:, None]).sum(dim=1)


def adaptive_logits(whole: Tensor, crops: Tensor, threshold: float) -> Tensor:
    """The logits by which the adaptive vote decides: `[B, K]` and `[B, V, K]` -> `[B, V, K]`.

    Where the whole map's `certainty` is above the threshold, its logits, V times; elsewhere the crops'. The adaptive
    vote is the soft vote of these. At threshold 0 that is the decision of the whole map, at 1 the full soft vote.

    Args:
        whole: logits of the whole map.
        crops: crop logits.
        threshold: 0 to 1.
    """
    return whole[:, None].where((certainty(whole) > threshold)[:, None, None], crops)


VOTES: dict[str, Callable[[Tensor], Tensor]] = {
    "soft": soft_vote,
    "softprob": softprob_vote,
    "hard": hard_vote,
    "confidence": confidence_vote,
}
"""Votes of the crop logits alone. Training logs each one's accuracy and keeps the checkpoint of its best epoch."""

PAPER_VOTES = ("soft", "softprob", "hard")
"""The paper's two, and the other reading of its soft vote: what tables show of every run."""

FITTED_VOTES = ("weighted", "adaptive")
"""Votes that take parameters from validation images. They are fitted once, at the end of a training, by the network of
the soft vote's best epoch: figures of the images that they were fitted on select no epoch."""

ALL_VOTES = (*VOTES, *FITTED_VOTES)

SHARES = ("softprob", "hard", "confidence")
"""Votes whose scores are probabilities already."""


@dataclass(frozen=True)
class Fitted:
    """What a vote takes from validation images."""

    temperature: float = 1.0
    """Divisor of scores that are logits, before their softmax."""
    weights: tuple[float, ...] | None = None
    """Of the weighted vote: one for each crop position, not negative, sum to 1."""
    threshold: float | None = None
    """Of the adaptive vote, 0 to 1: up to this certainty of the whole map the crops are computed."""
    mean_gmacs: float | None = None
    """Of the adaptive vote: GMACs an image, mean over the validation images."""

    def __post_init__(self) -> None:
        """Raises ValueError for a value out of range."""
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"`temperature` (={self.temperature}) must be greater than 0")
        if self.weights is not None and not (
            all(weight >= 0 for weight in self.weights) and abs(sum(self.weights) - 1) < 1e-6
        ):
            raise ValueError(f"`weights` (={self.weights}) must not be negative, and must sum to 1")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise ValueError(f"`threshold` (={self.threshold}) must be from 0 to 1")
        if self.mean_gmacs is not None and not 0 <= self.mean_gmacs < math.inf:
            raise ValueError(f"`mean_gmacs` (={self.mean_gmacs}) must not be negative")

    def to_values(self) -> dict[str, Any]:
        """The values that are there, plain, by name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Fitted:
        """The inverse of `to_values`; other names are not looked at. Raises ValueError for a value of another form."""
        found = {field.name: values[field.name] for field in fields(cls) if values.get(field.name) is not None}
        for name, value in found.items():
            numbers = [value] if name != "weights" else value if isinstance(value, list | tuple) else []
            if not numbers or not all(type(number) in (int, float) for number in numbers):
                form = "a list of numbers" if name == "weights" else "a number"
                raise ValueError(f"`{name}` (={value!r}) must be {form}")
        if "weights" in found:
            found["weights"] = tuple(map(float, found["weights"]))
        return cls(**found)

    def check(self, vote: str) -> None:
        """Raises ValueError if `vote` is unknown, or needs a value that is not there."""
        if vote not in ALL_VOTES:
            raise ValueError(f"`vote` (={vote!r}) must be one of {', '.join(ALL_VOTES)}")
        needed = {"weighted": "weights", "adaptive": "threshold"}.get(vote)
        if needed is not None and getattr(self, needed) is None:
            raise ValueError(
                f"`vote` (={vote!r}) needs a {needed.removesuffix('s')} fitted on validation images: "
                f"use a finished run that has one (votes.{vote}.{needed} in its result.json)"
            )


UNFITTED = Fitted()


def vote_of_epoch(vote: str) -> str:
    """The vote by whose best epoch's checkpoint `vote` decides: itself, or the soft vote for `FITTED_VOTES`."""
    return "soft" if vote in FITTED_VOTES else vote


def vote_scores(logits: Tensor, vote: str, fitted: Fitted = UNFITTED) -> Tensor:
    """A vote's scores: `[B, V, K]` -> `[B, K]`. For the adaptive vote, `logits` are those of `adaptive_logits`."""
    if vote == "weighted":
        assert fitted.weights is not None  # Fitted.check
        return weighted_vote(logits, fitted.weights)
    return VOTES[vote_of_epoch(vote)](logits)


def vote_probabilities(logits: Tensor, vote: str, fitted: Fitted = UNFITTED) -> Tensor:
    """Probabilities of the classes by a vote: `[B, V, K]` -> `[B, K]`, rows sum to 1, argmax is the vote's decision.

    Scores that are logits become their softmax, divided by the temperature before (Guo et al. 2017, arXiv:1706.04599,
    section 4.2). Those of `SHARES` are probabilities already, which no temperature changes.
    """
    scores = vote_scores(logits, vote, fitted)
    return scores if vote in SHARES else (scores / fitted.temperature).softmax(dim=1)


TEMPERATURES = (0.05, 20.0)
"""Bounds of the fitted temperature: where every decision is right, the likelihood has no maximum above 0."""

WEIGHT_DEVIATION = 0.5
"""Standard deviation of the prior of a weight around 1/V, in units of 1/V. With few images the weights stay equal."""


def fit_vote(logits: Tensor | NDArray[np.floating], labels: Tensor | NDArray[np.int64], vote: str) -> Fitted:
    """What a vote takes from validation images: the weights of the weighted one, and the temperature.

    Args:
        logits: of the crops, [N, V, K]; of the adaptive vote, those of `adaptive_logits` at its threshold
            (`fit_threshold`), which is not fitted here.
        labels: class ids [N].
        vote: one of `ALL_VOTES`.

    Raises ValueError if the vote is unknown or there are no images.
    """
    import torch

    if vote not in ALL_VOTES:
        raise ValueError(f"`vote` (={vote!r}) must be one of {', '.join(ALL_VOTES)}")
    if not len(labels):
        raise ValueError("a vote needs at least one image to be fitted on")
    if vote in SHARES:
        return UNFITTED
    logits = torch.as_tensor(logits).double()
    fitted = Fitted(weights=fit_weights(logits, labels) if vote == "weighted" else None)
    return Fitted(fit_temperature(vote_scores(logits, vote, fitted), labels), fitted.weights)


def fit_temperature(scores: Tensor | NDArray[np.floating], labels: Tensor | NDArray[np.int64]) -> float:
    """The temperature at which scores that are logits make the labels most likely (Guo et al. 2017, section 4.2).

    No decision changes.

    Args:
        scores: [N, K], N >= 1.
        labels: class ids [N].
    """
    import numpy as np
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    scores = np.asarray(scores, np.float64)
    rows, classes = np.arange(len(labels)), np.asarray(labels)

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(scores / np.exp(log_temperature), axis=1)[rows, classes].mean())

    # Convex in 1 / temperature, so that there is one minimum.
    fitted = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(fitted.x))


def fit_weights(
    logits: Tensor | NDArray[np.floating], labels: Tensor | NDArray[np.int64], deviation: float = WEIGHT_DEVIATION
) -> tuple[float, ...]:
    """The weights of the crop positions that make the labels most likely: V numbers, not negative, sum to 1.

    The posterior's maximum on the simplex, at the soft vote's temperature, with a normal prior of the weights around
    1/V: the likelihood's logarithm is concave in the weights, so that there is one maximum, whatever the start.
    Deterministic, in float64.

    Args:
        logits: of the crops, [N, V, K], N >= 1.
        labels: class ids [N].
        deviation: of the prior, in units of 1/V.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    logits = np.asarray(logits, np.float64)
    logits = logits / fit_temperature(logits.mean(axis=1), labels)
    images, crops, _ = logits.shape
    rows, classes = np.arange(images), np.asarray(labels)

    def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """An image's share of the negative logarithm of the posterior, and its gradient."""
        log_probabilities = log_softmax(np.einsum("v,nvk->nk", weights, logits), axis=1)
        excess = np.exp(log_probabilities)
        excess[rows, classes] -= 1
        apart = crops * weights - 1
        value = (apart @ apart / (2 * deviation**2) - log_probabilities[rows, classes].sum()) / images
        slope = (crops * apart / deviation**2 + np.einsum("nk,nvk->v", excess, logits)) / images
        return float(value), slope

    found = minimize(
        loss,
        np.full(crops, 1 / crops),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * crops,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    weights = np.clip(found.x, 0, None)
    return tuple((weights / weights.sum()).tolist())


def fit_threshold(certainties: Tensor | NDArray[np.floating], share: float) -> float:
    """The threshold of the adaptive vote at which the crops of at most a share of the images are computed.

    Args:
        certainties: of the whole map, [N], N >= 1.
        share: wished, 0 to 1; as much of it is used as equal certainties allow.

    Raises ValueError if there are no images or `share` is not from 0 to 1.

    >>> import numpy as np
    >>> fit_threshold(np.array([0.25, 0.5, 0.75, 1.0]), 0.5)
    0.625
    """
    import numpy as np

    if not len(certainties):
        raise ValueError("a threshold needs at least one image to be fitted on")
    if not 0 <= share <= 1:
        raise ValueError(f"`share` (={share}) must be from 0 to 1")
    levels, counts = np.unique(np.asarray(certainties, np.float64), return_counts=True)
    unsure = np.cumsum(counts) <= share * len(certainties) + 1e-9
    if unsure.all():
        return 1.0
    if not unsure.any():
        return 0.0
    last = int(np.flatnonzero(unsure)[-1])
    return float((levels[last] + levels[last + 1]) / 2)  # halfway, so that rounding moves no image over it
