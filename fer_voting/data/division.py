"""Which image trains, validates or tests where a data set leaves that open: pure functions of content and seed.

Images are drawn in the order of a hash of (seed, content), not of their place in a list, so that another layout of
the same files, another file system's order or another release of NumPy gives the same division.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.pack import content_hash
from fer_voting.data.sampling import Positions

__all__ = ["apportion", "draw", "draw_share"]


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to `weights` that sum to `total`: rounded down, the largest remainders up.

    `apportion(10, [1, 1, 2]) == [3, 2, 5]`.
    """
    shares = np.asarray(weights, float) * total / sum(weights)
    counts = np.floor(shares + 1e-9).astype(int)
    order = np.argsort(-(shares - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def draw(hashes: NDArray[np.void], labels: NDArray[np.int64], counts: Sequence[int], seed: int) -> Positions:
    """`counts[k]` positions of each class k, in ascending order: [sum(counts)].

    Copies of one picture follow each other in the draw, so that the division seldom parts them.

    Args:
        hashes: V16 [n], content of each image.
        labels: int64 [n], 0 to len(counts) - 1.
    """
    key = seed.to_bytes(8, "little", signed=True)
    ranks = np.array([content_hash(key, content.tobytes())[:8] for content in hashes], "V8").view(">u8")
    order = np.lexsort((np.arange(len(ranks)), ranks))
    drawn = [order[labels[order] == label][:count] for label, count in enumerate(counts)]
    return np.sort(np.concatenate(drawn))


def draw_share(hashes: NDArray[np.void], labels: NDArray[np.int64], share: float, seed: int) -> Positions:
    """`share` of the images, of each class in proportion (stratified): positions in ascending order."""
    sizes = np.bincount(labels)
    return draw(hashes, labels, apportion(round(share * len(labels)), sizes.tolist()), seed)
