"""Calibration: how far a network's confidence agrees with its accuracy. Pure functions of arrays.

Shapes: N images, V crops an image, K classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Number of bins in Guo et al. 2017 (arXiv:1706.04599), whose definitions these are."""


@dataclass(frozen=True)
class Reliability:
    """Accuracy by confidence, in bins of equal width from 0 to 1.

    Attributes:
        counts: int64 [bins], images. A confidence on an edge belongs to the bin below; 0 to the first.
        confidence, accuracy: float64 [bins], means over the images of a bin; nan where it has none.
    """

    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]

    @property
    def error(self) -> float:
        """Expected calibration error: mean of abs(accuracy - confidence) over the bins, weighted by their images."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.nansum(self.counts * gaps) / self.counts.sum())

    def to_values(self) -> dict[str, Any]:
        """Plain numbers for JSON: `error`, mean `confidence`, and by bin `counts`, `confidences` and `accuracies`.

        A bin without images has None.
        """
        confidences, accuracies = (
            [None if np.isnan(value) else value for value in values.tolist()]
            for values in (self.confidence, self.accuracy)
        )
        return {
            "error": self.error,
            "confidence": float(np.nansum(self.counts * self.confidence) / self.counts.sum()),
            "counts": self.counts.tolist(),
            "confidences": confidences,
            "accuracies": accuracies,
        }


def reliability(confidences: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = BINS) -> Reliability:
    """How often the decisions of each confidence are right.

    torchmetrics 1.9 puts a confidence of exactly 1 into a bin of its own (its issue 3510); here it is in the last one.

    Args:
        confidences: floating point [N], the probability of each image's decision.
        correct: bool [N], whether the decision is the label.

    Raises ValueError if there are no images, or a confidence is not from 0 to 1.
    """
    if not len(confidences):
        raise ValueError("there are no images to compute a calibration error of")
    if not ((confidences >= 0) & (confidences <= 1 + 1e-6)).all():  # a float32 softmax may exceed 1 by its rounding
        raise ValueError(f"`confidences` ({confidences.min():.6g} to {confidences.max():.6g}) must be from 0 to 1")
    inner_edges = np.linspace(0, 1, bins + 1)[1:-1]
    positions = np.searchsorted(inner_edges, confidences)
    counts = np.bincount(positions, minlength=bins)
    with np.errstate(invalid="ignore"):
        means = [np.bincount(positions, weights, bins) / counts for weights in (confidences, correct)]
    return Reliability(counts, *means)
