"""Calibration: how far a network's confidence agrees with its accuracy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15
"""Number of bins in Guo et al. 2017 (arXiv:1706.04599), whose definitions these are."""


def reliability(confidences: NDArray[np.floating], correct: NDArray[np.bool_], bins: int = BINS) -> dict[str, Any]:
    """How often the decisions of each confidence are right, as plain numbers for JSON.

    `error` is the expected calibration error, the mean of abs(accuracy - confidence) over the bins, weighted by their
    images; `confidence` the mean over all images. By bin, of equal width from 0 to 1: the `counts` of images, and the
    means `confidences` and `accuracies`, None where there are none. A confidence on an edge belongs to the bin below;
    0 to the first. (torchmetrics 1.9 puts a confidence of exactly 1 into a bin of its own, its issue 3510.)

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
        confidence, accuracy = (np.bincount(positions, weights, bins) / counts for weights in (confidences, correct))
    return {
        "error": float(np.nansum(counts * np.abs(accuracy - confidence)) / counts.sum()),
        "confidence": float(np.nansum(counts * confidence) / counts.sum()),
        "counts": counts.tolist(),
        "confidences": [None if np.isnan(value) else value for value in confidence.tolist()],
        "accuracies": [None if np.isnan(value) else value for value in accuracy.tolist()],
    }
