"""From frames to rows: find the faces, recognise them in batches over many frames, pass the frames on in order.

Memory does not grow with the number of frames: at most `batch_size` faces or MAX_FRAMES frames wait for a batch.
"""

import csv
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from fer_voting.data.images import prepare_image
from fer_voting.data.index import open_table
from fer_voting.inference.frames import Frame, Unreadable
from fer_voting.inference.recognizer import DetectedFaces, Recognizer, face_square
from fer_voting.inference.rows import Row, probability_columns
from fer_voting.inference.tracking import Tracker
from fer_voting.system.text import escape

MAX_FRAMES = 32
"""Frames that wait for a batch at most: a video without faces gets its rows at least that often."""

Locate = Callable[[Frame], NDArray[np.floating[Any]]]
"""A frame's faces `[N, 5]`: left, top, width, height in pixels, score (NaN: none)."""


@dataclass(frozen=True, eq=False)
class RecognizedFrame:
    """A frame with its N faces."""

    frame: Frame
    """Without its pixels (0 x 0) unless the pipeline keeps them."""
    faces: DetectedFaces
    face_ids: list[int]
    """Position in the frame, or in a tracked video the same number for the same face."""
    images: NDArray[np.uint8]
    """`[N, S, S, 3]`, as the network saw the faces."""
    unreadable: list[Unreadable] = field(default_factory=list)
    """Boxes that lie outside of the frame."""


class Pipeline:
    """Recognises the faces of a stream of frames.

    Args:
        recognizer: network, margin and batch size.
        locate: finds faces; None: the recognizer's detector.
        squares: cut a box out as a square with the recognizer's margin; False: the box itself.
        track: number the faces of a video through its frames.
        keep_pixels: hand the frames' pixels on, to be drawn on.
        max_frames: frames at once; 1 for a camera, whose rows shall not wait.

    Attributes:
        seconds: spent on `read`, `detect`, `recognize`, so far.
        frames, faces: how many, so far.
    """

    def __init__(
        self,
        recognizer: Recognizer,
        locate: Locate | None = None,
        *,
        squares: bool = True,
        track: bool = False,
        keep_pixels: bool = False,
        max_frames: int = MAX_FRAMES,
    ) -> None:
        self.recognizer = recognizer
        self.locate = locate or (lambda frame: recognizer.detector(frame.image))
        self.squares = squares
        self.track = track
        self.keep_pixels = keep_pixels
        self.max_frames = max_frames
        self.seconds: Counter[str] = Counter()
        self.frames = self.faces = 0

    def __call__(self, items: Iterable[Frame | Unreadable]) -> Iterator[RecognizedFrame | Unreadable]:
        """The frames in their order, each with its faces; what cannot be read comes through as it is.

        After Ctrl-C the frames whose faces were found already come first, then KeyboardInterrupt is raised.
        """
        waiting: list[Unreadable | _Located] = []
        tracker, tracked = Tracker(), None
        iterator = iter(items)
        interrupt = None
        try:
            while True:
                with self._timed("read"):
                    item = next(iterator, None)
                if item is None:
                    break
                if isinstance(item, Unreadable):
                    waiting.append(item)
                else:
                    if item.input != tracked:
                        tracker, tracked = Tracker(), item.input
                    with self._timed("detect"):
                        located = self._locate(item)
                    if self.track and item.time_s is not None:
                        located.face_ids = tracker(located.boxes)
                    waiting.append(located)
                faces = sum(len(one.boxes) for one in waiting if isinstance(one, _Located))
                if faces >= self.recognizer.batch_size or len(waiting) >= self.max_frames:
                    recognized = list(self._recognize(waiting))
                    waiting = []
                    yield from recognized
        except KeyboardInterrupt as error:
            interrupt = error
        yield from self._recognize(waiting)
        if interrupt is not None:
            raise interrupt

    def _locate(self, frame: Frame) -> "_Located":
        boxes = np.asarray(self.locate(frame)).reshape(-1, 5)
        image = PIL.Image.fromarray(frame.image)
        size = self.recognizer.runtime.image_size
        kept, images, unreadable = [], [], []
        for position, box in enumerate(boxes):
            try:
                if self.squares:
                    region = face_square(box, self.recognizer.margin, image.width, image.height)
                    images.append(prepare_image(image.crop(region), size))
                else:
                    left, top, width, height = (float(value) for value in box[:4])
                    images.append(prepare_image(image, size, (left, top, left + width, top + height)))
                kept.append(position)
            except ValueError as error:
                unreadable.append(Unreadable(frame.input, frame.index, str(error)))
        if not self.keep_pixels:
            frame = Frame(frame.input, frame.index, frame.time_s, np.zeros((0, 0, 3), np.uint8))
        stacked = np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)
        return _Located(frame, boxes[kept], stacked, list(range(len(kept))), unreadable)

    def _recognize(self, waiting: "Sequence[Unreadable | _Located]") -> Iterator[RecognizedFrame | Unreadable]:
        located = [one for one in waiting if isinstance(one, _Located)]
        if not located:
            yield from (one for one in waiting if isinstance(one, Unreadable))
            return
        with self._timed("recognize"):
            found = self.recognizer.classify(np.concatenate([one.images for one in located]))
        self.frames += len(located)
        self.faces += len(found)
        first = 0
        for one in waiting:
            if isinstance(one, Unreadable):
                yield one
                continue
            rows = slice(first, first + len(one.boxes))
            first = rows.stop
            faces = DetectedFaces(
                found.class_names,
                found.probabilities[rows],
                found.crop_logits[rows],
                one.boxes[:, :4],
                one.boxes[:, 4],
            )
            yield RecognizedFrame(one.frame, faces, one.face_ids, one.images, one.unreadable)

    def _timed(self, stage: str) -> "_Timer":
        return _Timer(self.seconds, stage)


@dataclass
class _Located:
    frame: Frame
    boxes: NDArray[np.floating[Any]]
    images: NDArray[np.uint8]
    face_ids: list[int]
    unreadable: list[Unreadable]


class _Timer:
    def __init__(self, seconds: Counter[str], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] += time.perf_counter() - self._start  # type: ignore[assignment]


def whole_frame(frame: Frame) -> NDArray[np.float64]:
    """The frame as the one face that it shows: `[1, 5]`, without a score."""
    height, width = frame.image.shape[:2]
    return np.array([[0, 0, width, height, np.nan]])


def rows_of(item: RecognizedFrame | Unreadable) -> list[Row]:
    """The rows of a frame, at least one."""
    if isinstance(item, Unreadable):
        return [{"input": item.input, "frame": item.index, "status": f"unreadable: {escape(item.reason)}"}]
    frame, faces = item.frame, item.faces
    where = {
        "input": frame.input,
        "frame": frame.index,
        "time_s": None if frame.time_s is None else round(frame.time_s, 6),
    }
    rows: list[Row] = []
    names = probability_columns(faces.class_names)
    for face, face_id, probabilities in zip(faces, item.face_ids, faces.probabilities, strict=True):
        rows.append(
            where
            | {"face_id": face_id}
            | {side: round(value, 2) for side, value in zip(("left", "top", "width", "height"), face.box, strict=True)}
            | {"face_score": None if np.isnan(face.face_score) else round(face.face_score, 4)}
            | {"class": face.class_name, "confidence": _rounded(face.confidence)}
            | {name: _rounded(value) for name, value in zip(names, probabilities, strict=True)}
            | {"vote_agreement": round(face.agreement, 4), "status": "ok"}
        )
    for problem in item.unreadable:
        rows += [{**row, **where} for row in rows_of(problem)]
    return rows or [where | {"status": "no_face"}]


def _rounded(probability: Any) -> float:
    return round(float(probability), 6)


def read_boxes(path: Path) -> Locate:
    """A function of a frame that returns its faces as a CSV file lists them.

    The file has the columns input, left, top, width, height (pixels), and may have frame (default 0), face_score and
    others: a file that `predict` wrote is one. Its rows without a box are left out. A relative `input` counts from
    the working directory or, where there is no such file, from the CSV file's folder.

    Raises FileNotFoundError, or ValueError that names the line of what is not a box.
    """
    boxes: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    with open_table(path) as file:
        reader = csv.DictReader(file)
        lacking = {"input", "left", "top", "width", "height"} - set(reader.fieldnames or ())
        if lacking:
            raise ValueError(f"{path} lacks the columns {', '.join(sorted(lacking))}")
        for row in reader:
            if row.get("status") not in (None, "", "ok"):
                continue
            try:
                box = [float(row[side]) for side in ("left", "top", "width", "height")]
                frame = int(row.get("frame") or 0)
                score = float(row.get("face_score") or "nan")
                if not np.isfinite(box).all():
                    raise ValueError("a number of the box is not finite")
                file_of_row = _same_file(row["input"], path.parent)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{path}, line {reader.line_num}: {error}") from error
            boxes[file_of_row, frame].append([*box, score])

    def locate(frame: Frame) -> NDArray[np.float64]:
        return np.array(boxes.get((_same_file(frame.input, path.parent), frame.index), np.zeros((0, 5))))

    return locate


def _same_file(name: str, folder: Path) -> str:
    path = Path(name)
    return str(path.resolve() if path.exists() else (folder / path).resolve())
