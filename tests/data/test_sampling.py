import multiprocessing
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist

from fer_voting.data.sampling import EpochSampler, EvalSampler, cut, draw_epoch, target_count

LABELS = np.array([0] * 10 + [1] * 4 + [2] * 1)
POSITIONS = np.arange(100, 115)


@pytest.mark.parametrize(
    ("target", "expected"), [("mean", 5), ("median", 4), ("min", 1), ("max", 10), (7, 7), ("none", None)]
)
def test_target_counts(target: str | int, expected: int | None) -> None:
    assert target_count([10, 4, 1], target) == expected


@pytest.mark.parametrize("target", ["average", 0, -3, 2.5])
def test_an_unknown_target_is_an_error(target: Any) -> None:
    with pytest.raises(ValueError, match=rf"dataset.balance.target={target} is none of mean, median, min, max"):
        target_count([3], target)


@pytest.mark.parametrize("target", [None, 1, 3, 4, 6, 25])
def test_an_epoch_has_the_target_of_each_class(target: int | None) -> None:
    for epoch in range(4):
        counts = Counter(LABELS[draw_epoch(LABELS, target, seed=0, epoch=epoch)].tolist())
        assert counts == ({0: 10, 1: 4, 2: 1} if target is None else dict.fromkeys(range(3), target))


def test_no_image_is_used_twice_before_all_of_its_class_are_used_once() -> None:
    for target in (3, 4, 7, 15):
        used: Counter[int] = Counter()
        for epoch in range(30):
            used.update(draw_epoch(LABELS, target, seed=1, epoch=epoch).tolist())
            for label in range(3):
                times = [used[i] for i, other in enumerate(LABELS.tolist()) if other == label]
                assert max(times) - min(times) <= 1
                assert sum(times) == target * (epoch + 1)


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    draws = {(s, e): draw_epoch(LABELS, 4, s, e).tolist() for s in (0, 1) for e in (0, 1)}
    assert draws == {(s, e): draw_epoch(LABELS, 4, s, e).tolist() for e in (1, 0) for s in (1, 0)}
    assert len(set(map(tuple, draws.values()))) == 4


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    assert [len(batch) for batch in cut(np.arange(9), 4)] == [4, 5]
    assert [len(batch) for batch in cut(np.arange(10), 4)] == [4, 4, 2]
    assert [len(batch) for batch in cut(np.arange(8), 4)] == [4, 4]
    assert [len(batch) for batch in cut(np.arange(1), 4)] == [1]
    assert np.concatenate(cut(np.arange(9), 4)).tolist() == list(range(9))


def sampler(target: int | None = None, batch_size: int = 4) -> EpochSampler:
    return EpochSampler(POSITIONS, LABELS, batch_size=batch_size, seed=0, target=target)


def test_batches_carry_epoch_and_position_and_iterating_goes_to_the_next_epoch() -> None:
    batches = sampler()
    first, second = list(batches), list(batches)
    for epoch, drawn in enumerate((first, second)):
        assert len(drawn) == len(batches) == 4
        assert {e for batch in drawn for e, _ in batch} == {epoch}
        assert sorted(p for batch in drawn for _, p in batch) == POSITIONS.tolist()
    assert [p for _, p in first[0]] != [p for _, p in second[0]]


def test_setting_the_epoch_goes_on_as_if_the_ones_before_had_been_shown() -> None:
    shown, resumed = sampler(target=3), sampler(target=3)
    epochs = [list(shown) for _ in range(4)]
    resumed.set_epoch(2)
    assert [list(resumed), list(resumed)] == epochs[2:]


def test_an_iterator_that_is_not_used_does_not_count_as_an_epoch() -> None:
    batches = sampler()
    iter(batches)
    assert next(iter(batches))[0][0] == 0


def test_epoch_size_counts_balanced_images() -> None:
    assert sampler().epoch_size == 15
    assert sampler(target=6).epoch_size == 18
    assert sum(map(len, sampler(target=6))) == 18


def _rank(rank: int, world: int, store: Path, out: Any) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    try:
        balanced, whole = sampler(target=6), sampler(batch_size=7)
        out.put(
            {
                "rank": rank,
                "balanced": [[key for batch in balanced for key in batch] for _ in range(2)],
                "lengths": (len(balanced), len(list(balanced)), len(whole), [len(batch) for batch in whole]),
                "whole": [position for batch in whole for _, position in batch],
                "evaluated": [p for batch in EvalSampler(POSITIONS, batch_size=4) for _, p in batch],
            }
        )
    finally:
        dist.destroy_process_group()


def test_two_processes_share_the_draw_of_one(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    out = context.Queue()
    processes = [context.Process(target=_rank, args=(rank, 2, tmp_path / "store", out)) for rank in range(2)]
    for process in processes:
        process.start()
    parts = sorted((out.get(timeout=60) for _ in processes), key=lambda part: part["rank"])
    for process in processes:
        process.join()
        assert process.exitcode == 0
    one = sampler(target=6)
    for epoch in range(2):
        alone = [key for batch in one for key in batch]
        assert [part["balanced"][epoch] for part in parts] == [alone[0::2], alone[1::2]]
    # 9 each are batches of 4 and 5. Of 15 images, the first fills the gap, so that both have 8: 7 and one more.
    assert all(part["lengths"] == (2, 2, 1, [8]) for part in parts)
    together = Counter(position for part in parts for position in part["whole"])
    assert set(together) == set(POSITIONS.tolist())
    assert sorted(together.values()) == [1] * 14 + [2]
    # Evaluation counts every image once.
    assert sorted(p for part in parts for p in part["evaluated"]) == POSITIONS.tolist()
