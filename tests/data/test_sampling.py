import hashlib
import pickle
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.distributed as dist
from helpers.processes import fork_server

from fer_voting.data.images import content_hash
from fer_voting.data.sampling import (
    AGAIN,
    EpochSampler,
    EvalSampler,
    apportion,
    fold_of_each,
    global_batches,
    images_per_rank,
    join_groups,
    number_draws,
    rank_and_world,
    sample_by_class,
    sample_epoch,
    sample_share,
    target_count,
    training_share,
)

# Parts --------------------------------------------------------------------------------------------------------


def hashes_of(contents: list[str]) -> np.ndarray:
    return np.array([content_hash(content.encode()) for content in contents], "V16")


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (10, [1, 1, 2], [3, 2, 5]),
        (0, [3, 4], [0, 0]),
        (7, [7], [7]),
        (12, [1, 2] * 20, [0, 1] * 12 + [0, 0] * 8),  # the first of equal remainders
        (100, [0.29, 0.71], [29, 71]),  # 0.29 * 100 is a little less than 29
        # RAF-DB's training images: a tenth is 1,227 of 12,271.
        (1227, [1290, 281, 717, 4772, 1982, 705, 2524], [129, 28, 72, 477, 198, 71, 252]),
    ],
)
def test_apportion(total: int, weights: list[float], expected: list[int]) -> None:
    assert apportion(total, weights) == expected
    assert sum(expected) == total


def test_sample_by_class_takes_so_many_of_each_class_and_no_position_twice() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 0])
    taken = sample_by_class(hashes_of([str(i) for i in range(10)]), labels, [3, 1, 0], seed=4)
    assert np.bincount(labels[taken], minlength=3).tolist() == [3, 1, 0]
    assert taken.tolist() == sorted(set(taken.tolist()))


def test_sample_by_class_depends_on_content_and_seed_not_on_order() -> None:
    contents = [f"image {i}" for i in range(50)]
    labels = np.arange(50) % 2
    taken = sample_by_class(hashes_of(contents), labels, [10, 10], seed=0)
    shuffled = np.random.default_rng(0).permutation(50)
    again = sample_by_class(hashes_of([contents[i] for i in shuffled]), labels[shuffled], [10, 10], seed=0)
    assert set(shuffled[again].tolist()) == set(taken.tolist())
    other = sample_by_class(hashes_of(contents), labels, [10, 10], seed=1)
    assert set(other.tolist()) != set(taken.tolist())


@pytest.mark.parametrize("seed", [0, 42, 2**63 - 1, -3])
def test_sample_by_class_takes_the_least_hashes_of_seed_and_content(seed: int) -> None:
    """A release that ranked images in another way would move them between the training and the validation part."""
    images = hashes_of([f"image {i}" for i in range(60)])
    salt = (seed % 2**64).to_bytes(8, "little")  # two's complement
    ranked = sorted(range(60), key=lambda i: hashlib.blake2b(salt + images[i].tobytes(), digest_size=16).digest())
    assert sample_by_class(images, np.zeros(60, np.int64), [20], seed).tolist() == sorted(ranked[:20])


@pytest.mark.parametrize("labels", [np.zeros(41, np.int64), np.arange(41) % 2])
def test_copies_of_an_image_stay_together_whatever_their_labels(labels: np.ndarray) -> None:
    contents = [f"image {i // 2}" for i in range(41)]
    for seed in range(20):
        counts = [11] if not labels.any() else [6, 6]
        taken = sample_by_class(hashes_of(contents), labels, counts, seed=seed)
        assert not {i // 2 for i in taken.tolist()} & {i // 2 for i in set(range(41)) - set(taken.tolist())}
        assert abs(len(taken) - sum(counts)) <= 1


def test_a_group_stays_together_and_so_do_copies_across_groups() -> None:
    """By hand: persons a, b, c and images of none; b's second image is a copy of c's first."""
    words = ["a", "a", "b", "b", "c", "c", "", ""]
    groups = join_groups(hashes_of(["1", "2", "3", "4", "4", "5", "6", "6"]), words)
    same = [[bool(groups[i] == groups[j]) for j in range(8)] for i in range(8)]
    sets = [{0, 1}, {2, 3, 4, 5}, {6, 7}]
    assert same == [[any({i, j} <= one for one in sets) for j in range(8)] for i in range(8)]
    labels = np.tile([0, 1], 30)
    persons = [f"person {i // 6}" for i in range(60)]
    hashes = hashes_of([str(i) for i in range(60)])
    taken = sample_share(hashes, labels, 0.3, 0, join_groups(hashes, persons)).tolist()
    assert not {i // 6 for i in taken} & {i // 6 for i in set(range(60)) - set(taken)}
    assert len(taken) == 18


def test_a_share_is_stratified() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 10])
    taken = sample_share(hashes_of([str(i) for i in range(150)]), labels, 0.1, seed=0)
    assert np.bincount(labels[taken]).tolist() == [10, 4, 1]
    none = sample_share(hashes_of(["a", "b"]), np.array([0, 1]), 0.0, seed=0)
    assert (len(none), none.dtype) == (0, np.int64)  # positions, with which one can index


@pytest.mark.parametrize("groups", [None, "persons"])
def test_folds_are_stratified_and_keep_groups_whatever_the_order(groups: str | None) -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 3], [300, 100, 50, 30])
    persons = None if groups is None else rng.integers(0, 60, len(labels))
    hashes = hashes_of([str(i) for i in range(len(labels))])
    ids = fold_of_each(hashes, labels, 5, 7, persons)
    counts = np.array([np.bincount(labels[ids == fold], minlength=4) for fold in range(5)])
    # Without groups every class is dealt out evenly; sixty persons leave a difference of a few images.
    assert np.ptp(counts, axis=0).max() <= (1 if persons is None else 6)
    if persons is not None:
        assert all(len(set(ids[persons == person])) == 1 for person in set(persons))
    order = rng.permutation(len(labels))
    shuffled = fold_of_each(hashes[order], labels[order], 5, 7, None if persons is None else persons[order])
    assert (shuffled == ids[order]).all()
    assert (fold_of_each(hashes, labels, 5, 8, persons) != ids).any()


def test_each_fold_gets_a_group_while_there_are_any() -> None:
    labels, groups = np.array([0] * 20 + [1, 2]), np.array([0] * 18 + [1, 1, 2, 2])
    ids = fold_of_each(hashes_of([str(i) for i in range(22)]), labels, 3, 0, groups)
    assert sorted(set(ids.tolist())) == [0, 1, 2]


# Epochs -------------------------------------------------------------------------------------------------------

LABELS = np.array([0] * 10 + [1] * 4 + [2] * 1)
POSITIONS = np.arange(100, 115)


@pytest.mark.parametrize(
    ("target", "expected"), [("mean", 5), ("median", 4), ("min", 1), ("max", 10), (7, 7), (1, 1), ("none", None)]
)
def test_target_counts(target: str | int, expected: int | None) -> None:
    assert target_count([10, 4, 1], target) == expected


@pytest.mark.parametrize("target", ["average", 0, -3, 2.5, True])
def test_an_unknown_target_is_an_error(target: Any) -> None:
    with pytest.raises(ValueError, match=rf"dataset.balance.target={target} is none of mean, median, min, max"):
        target_count([3], target)


@pytest.mark.parametrize("target", [None, 1, 3, 4, 6, 25])
def test_an_epoch_has_the_target_of_each_class(target: int | None) -> None:
    for epoch in range(4):
        counts = Counter(LABELS[sample_epoch(LABELS, target, seed=0, epoch=epoch)].tolist())
        assert counts == ({0: 10, 1: 4, 2: 1} if target is None else dict.fromkeys(range(3), target))


def test_no_image_is_used_twice_before_all_of_its_class_are_used_once() -> None:
    for target in (3, 4, 7, 15):
        used: Counter[int] = Counter()
        for epoch in range(30):
            used.update(sample_epoch(LABELS, target, seed=1, epoch=epoch).tolist())
            for label in range(3):
                times = [used[i] for i, other in enumerate(LABELS.tolist()) if other == label]
                assert max(times) - min(times) <= 1
                assert sum(times) == target * (epoch + 1)


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    draws = {(s, e): sample_epoch(LABELS, 4, s, e).tolist() for s in (0, 1) for e in (0, 1)}
    assert draws == {(s, e): sample_epoch(LABELS, 4, s, e).tolist() for e in (1, 0) for s in (1, 0)}
    assert len(set(map(tuple, draws.values()))) == 4


@pytest.mark.parametrize("target", [None, 3, 5, 12])
def test_an_epoch_is_the_next_piece_of_each_class_in_an_order_of_its_own(target: int | None) -> None:
    """Against whole sequences. A release that drew otherwise would continue an interrupted run on other images."""
    labels = np.array([0, 2, 0, 1, 2, 0, 1, 0, 2, 2])  # two classes of equal size, which draw independently
    seed = 6
    pieces: list[list[int]] = [[], [], [], []]
    for label in range(3):
        members = np.flatnonzero(labels == label)
        cycles = [np.random.default_rng((seed, 1, label, cycle)).permutation(members) for cycle in range(30)]
        sequence, count = np.concatenate(cycles).tolist(), target or len(members)
        for epoch, piece in enumerate(pieces):
            piece += sequence[epoch * count : (epoch + 1) * count]
    for epoch, piece in enumerate(pieces):
        expected = np.random.default_rng((seed, 0, epoch)).permutation(piece).tolist()
        assert sample_epoch(labels, target, seed, epoch).tolist() == expected


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    assert [len(batch) for batch in global_batches(np.arange(9), 4)] == [4, 5]
    assert [len(batch) for batch in global_batches(np.arange(10), 4)] == [4, 4, 2]
    assert [len(batch) for batch in global_batches(np.arange(8), 4)] == [4, 4]
    assert [len(batch) for batch in global_batches(np.arange(1), 4)] == [1]
    assert np.concatenate(global_batches(np.arange(9), 4)).tolist() == list(range(9))


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


def test_what_balancing_draws_again_has_a_key_of_its_own() -> None:
    assert number_draws(np.array([7, 3, 7, 9, 7, 3])).tolist() == [7, 3, 7 + AGAIN, 9, 7 + 2 * AGAIN, 3 + AGAIN]
    keys = [key for batch in sampler(target=12) for key in batch]
    assert len(set(keys)) == len(keys) == 36
    assert Counter(LABELS[draw % AGAIN - 100] for _, draw in keys) == dict.fromkeys(range(3), 12)


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


def test_evaluation_has_every_image_once_in_order() -> None:
    batches = EvalSampler(POSITIONS[:13], batch_size=6)
    assert [[p for _, p in batch] for batch in batches] == [[*range(100, 106)], [*range(106, 112)], [112]]
    assert {epoch for batch in batches for epoch, _ in batch} == {0}
    assert len(batches) == 3


# Ranks --------------------------------------------------------------------------------------------------------


@pytest.fixture
def join(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], None]]:
    """Makes this process a rank of a group whose others never come, which is enough for what exchanges nothing."""
    monkeypatch.setenv("TORCH_GLOO_LAZY_INIT", "1")  # or it would wait for them

    def init(rank: int, world: int) -> None:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=rank, world_size=world)

    yield init
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_rank_has_its_share(join: Callable[[int, int], None]) -> None:
    assert rank_and_world() == (0, 1)
    one = list(sampler(target=6, batch_size=8))
    join(1, 2)
    assert rank_and_world() == (1, 2)
    # 18 images: batches of 8, 8 and 2, of which each rank needs both.
    assert list(sampler(target=6, batch_size=8)) == [one[0][4:], one[1][4:], one[2]]
    evaluation = EvalSampler(POSITIONS[:13], batch_size=6)
    assert list(evaluation) == [[(0, 103), (0, 104), (0, 105)], [(0, 109), (0, 110), (0, 111)]]
    assert len(evaluation) == 2
    with pytest.raises(ValueError, match=r"dataset\.batch_size=7 is the global batch"):
        next(iter(sampler(batch_size=7)))


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("images", [2, 3, 5, 8, 9, 15, 16, 17, 24, 41])
def test_ranks_share_every_batch_of_one_rank(images: int, world: int) -> None:
    """The union over the ranks of batch k is the single-rank batch k, with repetitions in the last one only."""
    batches = global_batches(np.arange(images), 8)
    for number, batch in enumerate(batches):
        shares = [training_share(batch, rank, world) for rank in range(world)]
        assert len({len(share) for share in shares}) == 1  # DDP averages the ranks' means
        assert all(len(set(share.tolist())) == len(share) >= 2 for share in shares)  # BatchNorm needs two images
        together = np.concatenate(shares)
        assert set(together.tolist()) == set(batch.tolist())
        if number < len(batches) - 1 or (len(batch) % world == 0 and len(batch) >= 2 * world):
            assert together.tolist() == batch.tolist()


def test_a_last_batch_that_does_not_divide_uses_its_first_images_again() -> None:
    assert [training_share(np.arange(5), rank, 2).tolist() for rank in range(2)] == [[0, 1, 2], [3, 4, 0]]
    assert [training_share(np.arange(3), rank, 4).tolist() for rank in range(4)] == [[0, 1], [2, 0], [1, 2], [0, 1]]


@pytest.mark.parametrize(("batch_size", "world", "share"), [(135, 1, 135), (135, 3, 45), (8, 4, 2), (1, 1, 1)])
def test_images_per_rank(batch_size: int, world: int, share: int) -> None:
    assert images_per_rank(batch_size, world) == share


@pytest.mark.parametrize(
    ("batch_size", "world", "told"),
    [
        (135, 2, r"dataset\.batch_size=135 .* 2 ranks .*: e\.g\. dataset\.batch_size=134 or 136"),
        (4, 4, r"dataset\.batch_size=4 .* 4 ranks .* at least 2 images each: e\.g\. dataset\.batch_size=8 or 12"),
    ],
)
def test_a_batch_that_ranks_cannot_share_is_refused(batch_size: int, world: int, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        images_per_rank(batch_size, world)


def _rank(rank: int, world: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=world)
    try:
        training = sampler(target=6, batch_size=8)
        evaluation = EvalSampler(POSITIONS[:13], batch_size=6)
        try:
            next(iter(sampler(batch_size=7)))
            refused = ""
        except ValueError as error:
            refused = str(error)
        part = {
            "training": [list(training) for _ in range(2)],
            "evaluation": list(evaluation),
            "lengths": (len(training), len(evaluation)),
            "refused": refused,
        }
        (folder / f"rank{rank}").write_bytes(pickle.dumps(part))
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_share_the_batches_of_one(tmp_path: Path) -> None:
    processes = [fork_server().Process(target=_rank, args=(rank, 2, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    first, second = (pickle.loads((tmp_path / f"rank{rank}").read_bytes()) for rank in range(2))
    one = sampler(target=6, batch_size=8)
    for epoch in range(2):
        shares = zip(first["training"][epoch], second["training"][epoch], strict=True)
        *whole, last = list(one)  # 18 images: batches of 8, 8 and 2, of which each rank needs both
        assert [a + b for a, b in shares] == [*whole, last + last]
    assert len(first["training"][0]) == len(one) == 3
    # 13 images: batches of 6, 6 and 1, which only the first rank evaluates.
    assert [[p for _, p in batch] for batch in first["evaluation"]] == [[100, 101, 102], [106, 107, 108], [112]]
    assert [[p for _, p in batch] for batch in second["evaluation"]] == [[103, 104, 105], [109, 110, 111]]
    assert (first["lengths"], second["lengths"]) == ((3, 3), (3, 2))
    assert "dataset.batch_size=7 is the global batch" in first["refused"]
    assert first["refused"] == second["refused"]
