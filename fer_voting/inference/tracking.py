"""Stable numbers of faces over the frames of a video, by the overlap of their boxes.

Boxes are `[N, 4]`: left, top, width, height in pixels.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def overlaps(
    boxes: NDArray[np.floating], others: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersection over union, and intersection over the smaller box, of every pair: two arrays `[N, M]`, 0 to 1."""
    a, b = np.asarray(boxes, np.float64)[:, None, :4], np.asarray(others, np.float64)[None, :, :4]
    ends = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = (ends - np.maximum(a[..., :2], b[..., :2])).clip(min=0).prod(-1)
    area_a, area_b = a[..., 2:].prod(-1), b[..., 2:].prod(-1)
    tiny = np.finfo(np.float64).tiny
    return shared / np.maximum(area_a + area_b - shared, tiny), shared / np.maximum(np.minimum(area_a, area_b), tiny)


class Tracker:
    """Numbers the faces of consecutive frames: a face that overlaps one of before has its number.

    The pairs of old and new boxes are those with the largest sum of intersections over unions. No motion is
    predicted, so a face that moves by more than about half its size between two frames gets a new number.

    Args:
        least_iou: a pair that overlaps less is none.
        max_missed: frames that a face may be missing from and still be found again.
    """

    def __init__(self, least_iou: float = 0.3, max_missed: int = 15) -> None:
        self.least_iou = least_iou
        self.max_missed = max_missed
        self._next_id = 0
        self._ids: list[int] = []
        self._missed: list[int] = []
        self._boxes = np.zeros((0, 4))

    def __call__(self, boxes: NDArray[np.floating]) -> list[int]:
        """The numbers of the next frame's N faces."""
        iou, _ = overlaps(self._boxes, boxes)
        known = {
            int(new): int(old)
            for old, new in zip(*linear_sum_assignment(iou, maximize=True), strict=True)
            if iou[old, new] >= self.least_iou
        }
        ids = []
        for new in range(len(boxes)):
            if new in known:
                ids.append(self._ids[known[new]])
            else:
                ids.append(self._next_id)
                self._next_id += 1
        lost = [
            old for old in range(len(self._ids)) if old not in known.values() and self._missed[old] < self.max_missed
        ]
        self._boxes = np.concatenate([np.asarray(boxes, np.float64)[:, :4].reshape(-1, 4), self._boxes[lost]])
        self._missed = [0] * len(boxes) + [self._missed[old] + 1 for old in lost]
        self._ids = ids + [self._ids[old] for old in lost]
        return ids
