"""The weighted vote: a weight for each crop position, fitted on validation images.

Shapes: B or N images, V crops an image, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Self

from fer_voting.votes.vote import CropOutputs, Vote, fit_temperature

if TYPE_CHECKING:  # commands that only need the votes' names start without torch
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fer_voting.votes.adaptive import AdaptiveCost

WEIGHT_DEVIATION = 0.5
"""Standard deviation of the prior of a weight around 1/V, in units of 1/V. With few images the weights stay equal."""


@dataclass(frozen=True)
class WeightedVote(Vote):
    """Mean of the crops' FC outputs, each position with its weight."""

    weights: tuple[float, ...] | None = None
    """One for each crop position, not negative, sum to 1."""

    needs: ClassVar[tuple[str, ...]] = ("weights",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weights is None:
            return
        if not isinstance(self.weights, tuple) or not all(type(weight) in (int, float) for weight in self.weights):
            raise ValueError(f"`weights` (={self.weights!r}) must be a list of numbers")
        if not (all(weight >= 0 for weight in self.weights) and abs(sum(self.weights) - 1) < 1e-6):
            raise ValueError(f"`weights` (={self.weights}) must not be negative, and must sum to 1")

    def scores(self, outputs: CropOutputs) -> Tensor:
        weights = self.require_fitted().weights or ()
        if len(weights) != outputs.crops.shape[1]:
            raise ValueError(
                f"`weights` (={len(weights)} of them) must be one for each of the {outputs.crops.shape[1]} crops"
            )
        return (outputs.crops * outputs.crops.new_tensor(weights)[:, None]).sum(dim=1)

    def fit(self, outputs: CropOutputs, labels: Tensor | NDArray[np.int64], cost: AdaptiveCost | None = None) -> Self:
        """This vote with the weights and the temperature that validation images give; see `Vote.fit`."""
        if not len(labels):
            return super().fit(outputs, labels)  # refuses it
        weighted = replace(self, weights=fit_weights(outputs.crops, labels))
        return super(WeightedVote, weighted).fit(outputs, labels)


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
        """The negative logarithm of the posterior divided by N, and its gradient."""
        log_probabilities = log_softmax(np.einsum("v,nvk->nk", weights, logits), axis=1)
        excess = np.exp(log_probabilities)
        excess[rows, classes] -= 1
        apart = crops * weights - 1
        value = (apart @ apart / (2 * deviation**2) - log_probabilities[rows, classes].sum()) / images
        slope = (crops * apart / deviation**2 + np.einsum("nk,nvk->v", excess, logits)) / images
        return float(value), slope

    minimum = minimize(
        loss,
        np.full(crops, 1 / crops),
        jac=True,
        method="SLSQP",
        bounds=[(0, 1)] * crops,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 1000},
    )
    weights = np.clip(minimum.x, 0, None)
    return tuple((weights / weights.sum()).tolist())
