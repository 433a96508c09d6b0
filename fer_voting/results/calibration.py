"""Calibration: how far a network's confidence agrees with its accuracy. Pure functions of arrays.

Shapes: N images, V crops an image, K classes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from torch import Tensor

from fer_voting.votes import VOTES, soft_vote

__all__ = ["BINS", "Reliability", "fit_temperature", "reliability"]

BINS = 15
"""As in Guo et al. 2017 (arXiv:1706.04599), whose definitions these are."""

TEMPERATURES = (0.05, 20.0)
"""Range of the search. Where every decision is right, the likelihood grows towards 0."""


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence, in bins of equal width.

    Attributes:
        edges: float64 [bins + 1], from 0 to 1. A confidence on an edge belongs to the bin below; 0 to the first.
        counts: int64 [bins], images.
        confidence, accuracy: float64 [bins], means over the images of a bin; nan where it has none.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean of |accuracy - confidence| over the bins, weighted by their images."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(self.counts * gaps) / self.counts.sum())


def reliability(probabilities: NDArray[np.floating], labels: NDArray[np.int64], bins: int = BINS) -> Reliability:
    """How often the decisions of each confidence are right.

    The confidence is the largest probability of a row, its class the decision. torchmetrics 1.9 puts a confidence of
    exactly 1 into a bin of its own (its issue 3510); here it is in the last one.

    Args:
        probabilities: floating point [N, K].
        labels: int64 [N].

    Raises ValueError if there are no images, or a probability is not from 0 to 1.
    """
    if not len(labels):
        raise ValueError("there are no images to compute a calibration error of")
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-6)).all():
        raise ValueError(
            f"`probabilities` (from {probabilities.min():.6g} to {probabilities.max():.6g}) must be from 0 to 1"
        )
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    of_bin = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)
    counts = np.bincount(of_bin, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(of_bin, weights, bins) / counts for weights in (confidence, correct)]
    return Reliability(edges, counts, *means)


def fit_temperature(logits: Tensor | NDArray[np.floating], labels: Tensor | NDArray[np.int64], vote: str) -> float:
    """The temperature at which the probabilities of a vote make the labels most likely (Guo et al. 2017, section 4.2).

    To be fitted on validation images, and then applied to others by `votes.vote_probabilities`: decisions and
    accuracy stay as they are. 1.0 for every vote but the soft one, whose scores alone are logits.

    Args:
        logits: of the crops, [N, V, K].
        labels: class ids [N].
        vote: a key of `votes.VOTES`.

    Raises ValueError if the vote is unknown or there are no images.
    """
    if vote not in VOTES:
        raise ValueError(f"`vote` (={vote!r}) must be one of {', '.join(VOTES)}")
    if not len(labels):
        raise ValueError("there are no images to fit a temperature on")
    if vote != "soft":
        return 1.0
    scores = soft_vote(torch.as_tensor(logits).double()).numpy()
    rows, classes = np.arange(len(labels)), np.asarray(labels)

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(scores / np.exp(log_temperature), axis=1)[rows, classes].mean())

    # Convex in 1 / temperature, so that there is one minimum.
    fitted = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(fitted.x))
