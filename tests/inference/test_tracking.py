"""Overlaps of boxes, and numbers that faces keep."""

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from fer_voting.inference.tracking import Tracker, overlaps


def boxes(*lefts_tops: tuple[float, float], side: float = 10) -> np.ndarray:
    return np.array([[left, top, side, side] for left, top in lefts_tops]).reshape(-1, 4)


def test_overlaps_are_torchvisions():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 50, (6, 4)), rng.uniform(1, 50, (4, 4))
    iou, _ = overlaps(a, b)

    def corners(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([x[:, :2], x[:, :2] + x[:, 2:]], 1))

    np.testing.assert_allclose(iou, box_iou(corners(a), corners(b)).numpy())


def test_overlaps_by_hand():
    iou, inside = overlaps(np.array([[0, 0, 10, 10]]), np.array([[5, 0, 10, 10], [2, 2, 4, 5], [10, 0, 5, 5]]))
    assert iou[0].tolist() == pytest.approx([50 / 150, 20 / 100, 0])
    assert inside[0].tolist() == [0.5, 1, 0]
    assert overlaps(np.zeros((0, 4)), np.ones((3, 4)))[0].shape == (0, 3)


def test_numbers_stay_when_the_detectors_order_changes():
    track = Tracker()
    assert track(boxes((0, 0), (50, 0))) == [0, 1]
    assert track(boxes((52, 1), (1, 1))) == [1, 0]
    assert track(boxes((100, 0), (54, 2), (2, 2))) == [2, 1, 0]


def test_the_sum_of_overlaps_decides_and_not_the_first_face():
    """Both new boxes overlap the old one at 0 most; one of them also fits the other old one."""
    track = Tracker(least_iou=0.1)
    assert track(boxes((0, 0), (8, 0))) == [0, 1]
    # IoU of the box at 3 with those at 0 and 8: 7/13 and 5/15; of the box at 1: 9/11 and 3/17.
    assert track(boxes((3, 0), (1, 0))) == [1, 0]


def test_a_face_may_be_missed_for_a_while():
    track = Tracker(max_missed=2)
    assert track(boxes((0, 0))) == [0]
    assert track(boxes()) == []
    assert track(boxes()) == []
    assert track(boxes((1, 0))) == [0]
    for _ in range(3):
        track(boxes())
    assert track(boxes((1, 0))) == [1]


def test_a_face_elsewhere_is_another():
    track = Tracker()
    assert track(boxes((0, 0))) == [0]
    assert track(boxes((8, 0))) == [1]  # IoU 2/18
    assert track(boxes((8, 0), (0, 0))) == [1, 0]


def test_memory_does_not_grow():
    track = Tracker(max_missed=3)
    for step in range(200):
        track(boxes((1000 * step, 0)))
    assert len(track._ids) == len(track._missed) == len(track._boxes) == 4
