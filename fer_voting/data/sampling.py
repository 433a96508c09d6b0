"""Which images an epoch shows, in which order: pure functions of (seed, epoch), and the sampler that deals them out.

An epoch's draw is the same on every process and does not depend on the epochs before it, so that a resumed training
and one of several processes see exactly the images they should.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from torch.utils.data import Sampler

__all__ = ["EpochSampler", "EvalSampler", "Key", "Positions", "draw_epoch", "rank_and_world", "target_count"]

Positions = NDArray[np.int64]
Key = tuple[int, int]
"""(epoch, position in the pack)"""

# The first word of every generator's key, so that no two purposes share random numbers.
_ORDER, _CYCLE = range(2)


def target_count(counts: Sequence[int], target: str | int) -> int | None:
    """Images a class and epoch: `target` is mean, median, min, max, a number, or none (then None: leave as it is).

    Raises:
        ValueError: another `target`.
    """
    if target == "none":
        return None
    if isinstance(target, int) and target > 0:
        return target
    rules: Mapping[str, Callable[[list[int]], Any]] = {
        "mean": np.mean,
        "median": np.median,
        "min": np.min,
        "max": np.max,
    }
    if target not in rules:
        raise ValueError(f"dataset.balance.target={target} is none of mean, median, min, max, none or a number above 0")
    return max(1, round(float(rules[str(target)](list(counts)))))


def draw_epoch(labels: NDArray[np.int64], target: int | None, seed: int, epoch: int) -> Positions:
    """Positions in `labels` that one epoch shows, shuffled: [n], or [classes * target].

    Each class is an endless deck: its images in random order, then all of them in another random order, and so on.
    Epoch e takes cards e * target to (e + 1) * target. So every image of a downsampled class is used before any is
    used twice, and an image of an oversampled class is used once more or once less than another.

    Args:
        labels: int64 [n] class of each image; negative numbers can't occur.
        target: images a class, or None for each class's own count.
    """
    drawn = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = target or len(members)
        first, stop = epoch * count, (epoch + 1) * count
        decks = range(first // len(members), -(-stop // len(members)))
        cards = np.concatenate([_generator(seed, _CYCLE, int(label), deck).permutation(members) for deck in decks])
        start = first - decks[0] * len(members)
        drawn.append(cards[start : start + count])
    return _generator(seed, _ORDER, epoch).permutation(np.concatenate(drawn))


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def rank_and_world() -> tuple[int, int]:
    """This process's number and how many there are: (0, 1) unless several train together."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def cut(positions: Positions, batch_size: int) -> list[Positions]:
    """Batches of `batch_size`; a last batch of one joins the one before it, because BatchNorm can't train on one."""
    starts = list(range(0, len(positions), batch_size))
    if len(starts) > 1 and len(positions) - starts[-1] == 1:
        starts.pop()
    return np.split(positions, starts[1:])


class EpochSampler(Sampler[list[Key]]):
    """Training batches as lists of (epoch, position); each process gets its own part, and all parts are as long.

    Every new iteration is the next epoch; `set_epoch` says which, where training goes on from a checkpoint. Where
    the draw can't be shared out evenly, its first images fill the gap.

    Args:
        positions: int64 [n] positions in the pack of the training images.
        labels: int64 [n] their classes.
        target: images a class and epoch, None for all as they are.
    """

    def __init__(
        self,
        positions: Positions,
        labels: NDArray[np.int64],
        *,
        batch_size: int,
        seed: int,
        target: int | None,
    ) -> None:
        self.positions, self.labels = positions, labels
        self.batch_size, self.seed, self.target = batch_size, seed, target
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """The epoch that the next iteration shows."""
        self.epoch = epoch

    @property
    def epoch_size(self) -> int:
        """Images an epoch, over all processes, before the gap is filled."""
        return len(self.positions) if self.target is None else self.target * len(np.unique(self.labels))

    def _batches(self, epoch: int) -> list[Positions]:
        rank, world = rank_and_world()
        drawn = self.positions[draw_epoch(self.labels, self.target, self.seed, epoch)]
        return cut(np.resize(drawn, -(-len(drawn) // world) * world)[rank::world], self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        # The epoch counts when the first batch is asked for, because a loader with workers makes two iterators of
        # its sampler and uses one.
        epoch, self.epoch = self.epoch, self.epoch + 1
        for batch in self._batches(epoch):
            yield [(epoch, position) for position in batch.tolist()]

    def __len__(self) -> int:
        _, world = rank_and_world()
        return len(cut(np.empty(-(-self.epoch_size // world), np.int64), self.batch_size))


class EvalSampler(Sampler[list[Key]]):
    """Every position once, in order, shared out over the processes without filling gaps; the epoch is always 0."""

    def __init__(self, positions: Positions, *, batch_size: int) -> None:
        self.positions, self.batch_size = positions, batch_size

    def _starts(self) -> tuple[Positions, range]:
        rank, world = rank_and_world()
        mine = self.positions[rank::world]
        return mine, range(0, len(mine), self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        mine, starts = self._starts()
        return iter([[(0, int(i)) for i in mine[start : start + self.batch_size]] for start in starts])

    def __len__(self) -> int:
        return len(self._starts()[1])
