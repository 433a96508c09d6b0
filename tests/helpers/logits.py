"""Crop logits whose positions differ in noise."""

import numpy as np


def unequal_crops(images: int, noise: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Crop logits [N, V, 5] around the logits that the labels were drawn from, each position with its own noise."""
    rng = np.random.default_rng(seed)
    truth = 2 * rng.normal(size=(images, 5))
    labels = np.array([rng.choice(5, p=np.exp(row) / np.exp(row).sum()) for row in truth])
    errors = rng.normal(size=(images, len(noise), 5)) * np.array(noise)[:, None]
    return truth[:, None] + errors, labels
