"""Which images a part and an epoch contain, and in which order: pure functions of content, seed and epoch.

Every rank computes the same sample, independent of earlier epochs. So a resumed run and a run on several ranks use the
images that an uninterrupted run on one device uses.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch.utils.data import Sampler

from fer_voting.data.images import content_hash

Positions = NDArray[np.int64]
SampleKey = tuple[int, int]
"""(epoch, draw). A draw is a position in the pack, plus `AGAIN` for each earlier draw of it in the epoch, so that an
image which balancing draws several times is augmented anew each time."""
AGAIN = 2**32

# First word of each generator's seed, so that no two purposes share random numbers.
_ORDER, _CYCLE = range(2)


# Parts --------------------------------------------------------------------------------------------------------


def apportion(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers proportional to `weights` with sum `total` (largest remainder method).

    `apportion(10, [1, 1, 2]) == [3, 2, 5]`.
    """
    shares = np.asarray(weights) * total / sum(weights)
    counts = np.floor(shares).astype(int)  # a whole share that rounding leaves just below has the largest remainder
    order = np.argsort(-(shares - counts), kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return [int(count) for count in counts]


def sample_by_class(
    hashes: NDArray[np.void],
    labels: NDArray[np.int64],
    counts: Sequence[int],
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> Positions:
    """Positions of `counts[k]` images of each class k, ascending: [sum(counts)].

    Images are ranked by a hash of (seed, content), not by their place in a list: another layout of the same files,
    another file system or another release of NumPy gives the same result. Copies of an image are all taken or none:
    taken where most of them are still wanted. So a class with large groups may get some images more or fewer.

    Args:
        hashes: V16 [n], content of each image.
        labels: int64 [n], 0 to len(counts) - 1.
        groups: int64 [n], numbers of groups that stay together; None: those of equal content.
    """
    wanted, taken = np.array(counts, np.int64), []
    for rows in _ranked_groups(hashes, seed, groups):
        offered = np.bincount(labels[rows], minlength=len(wanted))
        used = np.minimum(offered, wanted)
        if 2 * used.sum() > len(rows):
            wanted -= used
            taken += rows.tolist()
    return np.array(sorted(taken), np.int64)


def _ranked_groups(hashes: NDArray[np.void], seed: int, groups: NDArray[np.int64] | None) -> list[Positions]:
    """The positions of each group, in the order of a hash of (seed, content); arguments as in `sample_by_class`."""
    salt = seed.to_bytes(8, "little", signed=True)
    ranks = [content_hash(salt, content.tobytes()) for content in hashes]
    if groups is None:
        groups = np.unique(hashes, return_inverse=True)[1]
    order = np.argsort(groups, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(groups[order])) + 1) if len(order) else []
    return sorted(members, key=lambda rows: min(ranks[row] for row in rows))


def fold_of_each(
    hashes: NDArray[np.void],
    labels: NDArray[np.int64],
    folds: int,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> NDArray[np.int64]:
    """The fold of each image, 0 to folds - 1: int64 [n]. Arguments as in `sample_by_class`.

    Groups, the largest first, go to the fold that has the smallest share of their classes so far, and of equal ones to
    the one with the fewest images: whole groups, stratified as far as they allow. Without groups, the folds' numbers of
    images of a class differ by at most one, but for copies.
    """
    ids = np.empty(len(labels), np.int64)
    totals = np.bincount(labels)
    # Whole numbers: a rounded share could tie on one machine and not on another.
    weights = 2**55 // np.maximum(totals.astype(np.int64), 1) ** 2
    images = np.zeros((folds, len(totals)), np.int64)  # of each fold and class
    for rows in sorted(_ranked_groups(hashes, seed, groups), key=len, reverse=True):
        counts = np.bincount(labels[rows], minlength=len(totals))
        fold = int(np.lexsort((images.sum(axis=1), (images * counts * weights).sum(axis=1)))[0])
        images[fold] += counts
        ids[rows] = fold
    return ids


def join_groups(hashes: NDArray[np.void], words: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of the smallest groups that contain all copies of an image (V16 [n]) and all images with one word, other
    than "": int64 [n]."""
    contents = np.unique(hashes, return_inverse=True)[1]
    alone = [word or f"\0{content}" for word, content in zip(words, contents, strict=True)]
    named = np.unique(np.array(alone), return_inverse=True)[1]
    size = len(contents) + len(named)
    edges = coo_array((np.ones(len(contents)), (contents, named + len(contents))), (size, size))
    return connected_components(edges, directed=False)[1][contents].astype(np.int64)


def sample_share(
    hashes: NDArray[np.void],
    labels: NDArray[np.int64],
    share: float,
    seed: int,
    groups: NDArray[np.int64] | None = None,
) -> Positions:
    """Positions of a stratified `share` of the images, ascending; arguments as in `sample_by_class`."""
    sizes = np.bincount(labels)
    return sample_by_class(hashes, labels, apportion(round(share * len(labels)), sizes.tolist()), seed, groups)


# Epochs -------------------------------------------------------------------------------------------------------


def target_count(counts: Sequence[int], target: str | int) -> int | None:
    """Images per class and epoch; None for `target` none, which keeps each class's own count.

    Args:
        counts: images of each class.
        target: mean, median, min or max of `counts`, a number, or none.

    Raises ValueError for another `target`.
    """
    if target == "none":
        return None
    if type(target) is int and target > 0:
        return target
    rules: dict[Any, Callable[..., Any]] = {"mean": np.mean, "median": np.median, "min": np.min, "max": np.max}
    if target not in rules:
        raise ValueError(f"dataset.balance.target={target} is none of mean, median, min, max, none or a number above 0")
    return max(1, round(float(rules[target](list(counts)))))


def sample_epoch(labels: NDArray[np.int64], target: int | None, seed: int, epoch: int) -> Positions:
    """Shuffled positions in `labels` of one epoch's images: [n], or [classes * target].

    Each class is an endless sequence of random permutations of its images; epoch e takes its elements e * target to
    (e + 1) * target. So every image of a class is used once before any is used twice, and their numbers of uses
    never differ by more than one.

    Args:
        labels: int64 [n] class of each image, not negative.
        target: images per class, or None for each class's own count.
    """
    parts = []
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        count = target or len(members)
        cycles, places = np.divmod(np.arange(epoch * count, (epoch + 1) * count), len(members))
        for cycle in np.unique(cycles).tolist():
            permuted = _generator(seed, _CYCLE, label, cycle).permutation(members)
            parts.append(permuted[places[cycles == cycle]])
    return _generator(seed, _ORDER, epoch).permutation(np.concatenate(parts))


def number_draws(positions: Positions) -> Positions:
    """The draws (`SampleKey`) of an epoch's positions: `number_draws([7, 3, 7]) == [7, 3, 7 + AGAIN]`."""
    order = np.argsort(positions, kind="stable")
    ascending = positions[order]
    draws = np.empty_like(positions)
    draws[order] = ascending + AGAIN * (np.arange(len(positions)) - np.searchsorted(ascending, ascending))
    return draws


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


# Batches ------------------------------------------------------------------------------------------------------


def rank_and_world() -> tuple[int, int]:
    """This process's rank and the number of ranks; (0, 1) without torch.distributed."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def images_per_rank(batch_size: int, world_size: int) -> int:
    """Each rank's share of a global batch.

    Raises ValueError if the batch does not divide, or leaves a rank fewer than the two images that BatchNorm needs.
    """
    share, rest = divmod(batch_size, world_size)
    if world_size > 1 and (rest or share < 2):
        near = max(2, share) * world_size
        raise ValueError(
            f"dataset.batch_size={batch_size} is the global batch, and must divide into {world_size} ranks "
            f"(trainer.devices x trainer.num_nodes) of at least 2 images each: e.g. dataset.batch_size={near} or "
            f"{near + world_size}"
        )
    return share


def global_batches(positions: Positions, batch_size: int) -> list[Positions]:
    """Batches of `batch_size`; a last batch of one image joins the one before, because BatchNorm needs two."""
    starts = list(range(0, len(positions), batch_size))
    if starts[-1:] == [len(positions) - 1]:
        starts.pop()
    return np.split(positions, starts[1:])


def training_share(batch: Positions, rank: int, world_size: int) -> Positions:
    """A rank's images of a global batch; all ranks get equally many, and at least two.

    If the batch does not divide, its first images are used again. Within a rank, no image is repeated.
    """
    if world_size == 1:
        return batch
    share = max(2, -(-len(batch) // world_size))
    return np.resize(batch, (world_size, share))[rank]


class EpochSampler(Sampler[list[SampleKey]]):
    """This rank's training batches as lists of (epoch, draw).

    An epoch's global batches do not depend on the number of ranks: any number makes the same optimizer steps over
    the same images, because each rank gets an equal share of every batch and DDP averages the ranks' gradients. The
    last batch is the exception if it does not divide: some of its images are used twice (`training_share`).

    Each iteration is the next epoch; `set_epoch` sets it when training resumes from a checkpoint.

    Args:
        positions: int64 [n] positions in the pack of the training images.
        labels: int64 [n] their classes.
        batch_size: images per global batch.
        target: images per class, None for each class's own count.
    """

    def __init__(
        self, positions: Positions, labels: NDArray[np.int64], *, batch_size: int, seed: int, target: int | None
    ) -> None:
        self.positions, self.labels = positions, labels
        self.batch_size, self.seed, self.target = batch_size, seed, target
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        self.epoch = epoch

    @property
    def epoch_size(self) -> int:
        """Images per epoch over all ranks, without repetitions in the last batch."""
        return len(self.positions) if self.target is None else self.target * len(np.unique(self.labels))

    def __iter__(self) -> Iterator[list[SampleKey]]:
        rank, world_size = rank_and_world()
        images_per_rank(self.batch_size, world_size)
        # A generator: the epoch advances with the first batch, because a loader with workers makes two iterators of
        # its sampler and uses one.
        epoch, self.epoch = self.epoch, self.epoch + 1
        draws = number_draws(self.positions[sample_epoch(self.labels, self.target, self.seed, epoch)])
        for batch in global_batches(draws, self.batch_size):
            yield [(epoch, draw) for draw in training_share(batch, rank, world_size).tolist()]

    def __len__(self) -> int:
        return len(global_batches(np.empty(self.epoch_size, np.int64), self.batch_size))


class EvalSampler(Sampler[list[SampleKey]]):
    """This rank's evaluation batches as lists of (0, position): its share of every global batch, in order.

    Every image is evaluated once. If the last batch does not divide, the first ranks get one image more, and a rank
    without any has one batch less.
    """

    def __init__(self, positions: Positions, *, batch_size: int) -> None:
        self.positions, self.batch_size = positions, batch_size

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return iter([[(0, position) for position in share.tolist()] for share in self._shares()])

    def __len__(self) -> int:
        return len(self._shares())

    def _shares(self) -> list[Positions]:
        rank, world_size = rank_and_world()
        batches = np.split(self.positions, range(self.batch_size, len(self.positions), self.batch_size))
        shares = (np.array_split(batch, world_size)[rank] for batch in batches)
        return [share for share in shares if len(share)]
