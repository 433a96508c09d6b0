import numpy as np
import pytest

from fer_voting.data.division import apportion, draw, draw_share
from fer_voting.data.pack import content_hash


def hashes_of(contents: list[str]) -> np.ndarray:
    return np.array([content_hash(content.encode()) for content in contents], "V16")


@pytest.mark.parametrize(
    ("total", "weights", "expected"),
    [
        (10, [1, 1, 2], [3, 2, 5]),
        (0, [3, 4], [0, 0]),
        (7, [7], [7]),
        # RAF-DB's training images: a tenth is 1,227 of 12,271.
        (1227, [1290, 281, 717, 4772, 1982, 705, 2524], [129, 28, 72, 477, 198, 71, 252]),
    ],
)
def test_apportion(total: int, weights: list[float], expected: list[int]) -> None:
    assert apportion(total, weights) == expected
    assert sum(expected) == total


def test_draw_takes_so_many_of_each_class_and_no_position_twice() -> None:
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 0])
    drawn = draw(hashes_of([str(i) for i in range(10)]), labels, [3, 1, 0], seed=4)
    assert np.bincount(labels[drawn], minlength=3).tolist() == [3, 1, 0]
    assert drawn.tolist() == sorted(set(drawn.tolist()))


def test_draw_depends_on_content_and_seed_not_on_order() -> None:
    contents = [f"picture {i}" for i in range(50)]
    labels = np.arange(50) % 2
    drawn = draw(hashes_of(contents), labels, [10, 10], seed=0)
    shuffled = np.random.default_rng(0).permutation(50)
    again = draw(hashes_of([contents[i] for i in shuffled]), labels[shuffled], [10, 10], seed=0)
    assert set(shuffled[again].tolist()) == set(drawn.tolist())
    other = draw(hashes_of(contents), labels, [10, 10], seed=1)
    assert set(other.tolist()) != set(drawn.tolist())


def test_copies_of_a_picture_stay_together_but_for_one_at_the_border() -> None:
    contents = [f"picture {i // 2}" for i in range(40)]
    drawn = draw(hashes_of(contents), np.zeros(40, np.int64), [11], seed=0)
    parted = {i // 2 for i in drawn.tolist()} & {i // 2 for i in set(range(40)) - set(drawn.tolist())}
    assert len(parted) == 1


def test_a_share_is_stratified() -> None:
    labels = np.repeat([0, 1, 2], [100, 40, 10])
    drawn = draw_share(hashes_of([str(i) for i in range(150)]), labels, 0.1, seed=0)
    assert np.bincount(labels[drawn]).tolist() == [10, 4, 1]
