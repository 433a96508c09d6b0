"""Pictures that occur more than once: the same content, or nearly the same look."""

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.sampling import Positions

__all__ = ["near_pairs", "perceptual_hashes", "same_content"]

_HASH_BITS = 64
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def same_content(hashes: NDArray[np.void]) -> list[Positions]:
    """Groups of two or more positions whose content hashes (V16 [N]) are equal, in order of their first position."""
    _, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    return sorted((positions for positions in members if len(positions) > 1), key=lambda positions: positions[0])


def perceptual_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """64 bits a picture, most of which pictures that look alike have in common: [N, S, S, 3] -> [N].

    The lowest 8x8 spatial frequencies of the picture's grey (discrete cosine transform), each above or below their
    median: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.1.
    """
    side = images.shape[1]
    # The constant term is left out: it says how bright a picture is, not what it shows.
    frequencies = np.arange(1, 9)[:, None] * np.pi * (np.arange(side) + 0.5) / side
    cosines = np.cos(frequencies).astype(np.float32)
    spectrum = (cosines @ (images @ _GREY) @ cosines.T).reshape(len(images), _HASH_BITS)
    bits = spectrum > np.median(spectrum, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def near_pairs(hashes: NDArray[np.uint64], max_bits: int) -> NDArray[np.int64]:
    """Pairs of positions (first < second) whose hashes (uint64 [N]) differ in `max_bits` bits at most: [M, 2].

    Cut into max_bits + 1 bands, two such hashes agree in at least one band: only those are compared.
    """
    bands = np.array_split(np.arange(_HASH_BITS, dtype=np.uint64), max_bits + 1)
    found = [np.empty((0, 2), np.int64)]
    for band in bands:
        key = (hashes >> band[0]) & np.uint64(2 ** len(band) - 1)
        order = np.argsort(key, kind="stable")
        _, starts, sizes = np.unique(key[order], return_index=True, return_counts=True)
        for start, size in zip(starts[sizes > 1], sizes[sizes > 1], strict=True):
            members = order[start : start + size]
            for row, first in enumerate(members[:-1]):
                others = members[row + 1 :]
                near = others[np.bitwise_count(hashes[others] ^ hashes[first]) <= max_bits]
                if len(near):
                    found.append(np.stack([np.full_like(near, first), near], axis=1))
    return np.unique(np.concatenate(found), axis=0)
