"""From frames to recognised frames: find the faces, recognise them in batches over many frames, keep the order.

Memory does not grow with the number of frames: at most `batch_size` faces or MAX_FRAMES frames wait for a batch.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from fer_voting.inference.faces import FOUND, FaceTracker, cut_face
from fer_voting.inference.frames import Frame, Unreadable, reason_of
from fer_voting.inference.recognizer import DetectedFaces, Recognizer

MAX_FRAMES = 32
"""At most so many frames wait for a batch, so that a video without faces gets its rows in time."""

Locate = Callable[[Frame], NDArray[np.floating[Any]]]
"""Maps a frame to its faces `[N, FOUND]`, as `find_faces` gives them."""


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


@dataclass
class _LocatedFrame:
    """A frame whose N faces wait to be recognised."""

    frame: Frame
    boxes: NDArray[np.floating[Any]]
    images: NDArray[np.uint8]
    face_ids: list[int]
    unreadable: list[Unreadable]


class Pipeline:
    """Recognises the faces of a stream of frames.

    Args:
        recognizer: network, margin and batch size.
        locate: finds faces; None: the recognizer's detector.
        squares: cut a box out as a square with the recognizer's margin; False: the box itself.
        track: number the faces of a video through its frames.
        keep_pixels: pass the frames' pixels on, to be drawn on.
        max_frames: frames at once; 1 for a camera, whose rows must not wait.

    Attributes:
        seconds: spent on `read`, `detect`, `recognize`, so far, and on what else was `timed`.
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
        self.locate = locate or (lambda frame: recognizer.find(frame.image))
        self.squares = squares
        self.track = track
        self.keep_pixels = keep_pixels
        self.max_frames = max_frames
        self.seconds: Counter[str] = Counter()
        self.frames = self.faces = 0

    def __call__(self, items: Iterable[Frame | Unreadable]) -> Iterator[RecognizedFrame | Unreadable]:
        """The frames in their order, each with its faces. Unreadable items are passed on unchanged.

        After Ctrl-C the frames whose faces were found already come first, then KeyboardInterrupt is raised.
        """
        waiting: list[Unreadable | _LocatedFrame] = []
        tracker, tracked = FaceTracker(), ("", "")
        iterator = iter(items)
        interrupt = None
        try:
            while True:
                with self.timed("read"):
                    item = next(iterator, None)
                if item is None:
                    break
                if isinstance(item, Unreadable):
                    waiting.append(item)
                else:
                    if (item.input, item.output) != tracked:
                        tracker, tracked = FaceTracker(), (item.input, item.output)
                    with self.timed("detect"):
                        try:
                            located = self._locate(item)
                        except ValueError:  # no detector, or it returns something else than boxes
                            raise
                        except Exception as error:  # a detector may raise anything: the other frames go on
                            waiting.append(Unreadable(item.input, item.index, f"no faces found: {reason_of(error)}"))
                        else:
                            if self.track and item.time_s is not None:
                                located.face_ids = tracker(located.boxes)
                            waiting.append(located)
                faces = sum(len(frame.boxes) for frame in waiting if isinstance(frame, _LocatedFrame))
                if faces >= self.recognizer.batch_size or len(waiting) >= self.max_frames:
                    recognized = list(self._recognize(waiting))
                    waiting = []
                    yield from recognized
        except KeyboardInterrupt as error:
            interrupt = error
        yield from self._recognize(waiting)
        if interrupt is not None:
            raise interrupt

    def _locate(self, frame: Frame) -> _LocatedFrame:
        boxes = np.asarray(self.locate(frame)).reshape(-1, FOUND)
        image = PIL.Image.fromarray(frame.image)
        size = self.recognizer.runtime.image_size
        kept, images, unreadable = [], [], []
        for position, box in enumerate(boxes):
            try:
                images.append(cut_face(image, box, size, self.recognizer.margin if self.squares else None))
                kept.append(position)
            except ValueError as error:
                unreadable.append(Unreadable(frame.input, frame.index, str(error)))
        if not self.keep_pixels:
            frame = replace(frame, image=np.zeros((0, 0, 3), np.uint8))
        stacked = np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)
        return _LocatedFrame(frame, boxes[kept], stacked, list(range(len(kept))), unreadable)

    def _recognize(self, waiting: Sequence[Unreadable | _LocatedFrame]) -> Iterator[RecognizedFrame | Unreadable]:
        located = [item for item in waiting if isinstance(item, _LocatedFrame)]
        if not located:
            yield from (item for item in waiting if isinstance(item, Unreadable))
            return
        with self.timed("recognize"):
            recognition = self.recognizer.classify(np.concatenate([frame.images for frame in located]))
        self.frames += len(located)
        self.faces += len(recognition)
        first = 0
        for item in waiting:
            if isinstance(item, Unreadable):
                yield item
                continue
            rows = slice(first, first + len(item.boxes))
            first = rows.stop
            faces = DetectedFaces.at(item.boxes, recognition, rows)
            yield RecognizedFrame(item.frame, faces, item.face_ids, item.images, item.unreadable)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the time in this context for `stage`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start  # type: ignore[assignment]


def whole_frame(frame: Frame) -> NDArray[np.float64]:
    """The whole frame as the one face that it shows: `[1, FOUND]`, without score and landmarks."""
    height, width = frame.image.shape[:2]
    return np.array([[0, 0, width, height, np.nan, 0, *[np.nan] * 10]])
