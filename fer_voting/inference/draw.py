"""Annotated photos and videos: every face's box, expression and probability, drawn on the frame."""

import logging
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

from fer_voting.inference.pipeline import RecognizedFrame
from fer_voting.inference.recognizer import Face
from fer_voting.system.text import fitting

log = logging.getLogger("fer_voting.predict")

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
BOX_COLOR, TEXT_COLOR = (255, 214, 0), (0, 0, 0)
BT_709, LIMITED_RANGE = 1, 1
"""FFmpeg's numbers of a colour space, its primaries and transfer, and of a range."""
TICKS_PER_S = 90_000
"""Resolution of an annotated video's time stamps, as in MPEG transport streams."""


def annotate(
    frame: NDArray[np.uint8], faces: Iterable[Face], face_ids: Iterable[int] | None = None
) -> NDArray[np.uint8]:
    """A copy of a frame (uint8 `[H, W, 3]`, RGB) with boxes and labels: `happy 93 %`, `3: happy 93 %, valence 0.41`."""
    image = PIL.Image.fromarray(frame)
    draw = PIL.ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 400))
    font = PIL.ImageFont.load_default(max(12, round(max(image.size) / 55)))
    faces = list(faces)
    for face, face_id in zip(faces, [None] * len(faces) if face_ids is None else face_ids, strict=True):
        left, top, width, height = face.box
        draw.rectangle((left, top, left + width, top + height), outline=BOX_COLOR, width=line)
        said = [f"{face.class_name} {face.confidence:.0%}"] if face.class_name else []
        label = ", ".join([*said, *(f"{name} {value:.2f}" for name, value in face.numbers.items())])
        if face_id is not None:
            label = f"{face_id}: {label}"
        # Above the box, else below it, else inside.
        text_left, text_top, text_right, text_bottom = draw.textbbox((0, 0), label, font)
        text_width, text_height = text_right - text_left + 2 * line, text_bottom - text_top + 2 * line
        x = min(max(left, 0), max(image.width - text_width, 0))
        if top >= text_height:
            y = top - text_height
        else:
            y = top + height if top + height + text_height <= image.height else max(top, 0)
        draw.rectangle((x, y, x + text_width, y + text_height), fill=BOX_COLOR)
        draw.text((x + line - text_left, y + line - text_top), label, TEXT_COLOR, font)
    return np.array(image)


class Drawings:
    """Writes annotated copies of frames: a photo as a photo, a video or camera as H.264 in MP4.

    A video keeps its time stamps and loses its sound. A photo that is neither JPEG nor PNG becomes a PNG.

    Args:
        folder: where they go; made if it does not exist.
        tracked: the faces' numbers in a video are the same for the same face, and are drawn.

    A copy lies at its frame's `output` below `folder`, but for the suffix. A photo keeps its colour profile.
    """

    def __init__(self, folder: Path, tracked: bool = False) -> None:
        self.folder, self.tracked = folder, tracked
        self._video: VideoWriter | None = None
        self._output: str | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, item: RecognizedFrame) -> None:
        """Draw the next frame, which must have its pixels.

        Raises OSError or another of Pillow's and PyAV's exceptions if it cannot be written; then the rest of its video
        is not written.
        """
        frame = item.frame
        numbers = item.face_ids if self.tracked and frame.time_s is not None else None
        image = annotate(frame.image, item.faces, numbers)
        path = self.folder / frame.output
        path.parent.mkdir(parents=True, exist_ok=True)
        if frame.time_s is None:
            path = _with_suffix(path, PHOTO_SUFFIXES)
            PIL.Image.fromarray(image).save(path, quality=95, icc_profile=frame.icc_profile)
            return
        if frame.output != self._output:
            self._close()
            self._output = frame.output
            self._video = VideoWriter(_with_suffix(path, (".mp4",)), image.shape[1], image.shape[0])
        if self._video is None:  # an earlier frame could not be written
            return
        try:
            self._video.add(image, frame.time_s)
        except Exception:
            self._video = None
            raise

    def _close(self) -> None:
        video, self._video, self._output = self._video, None, None
        if video is None:
            return
        try:
            video.close()
        except Exception as error:  # PyAV has many: the other files go on
            log.warning("%s is not complete: %s", video.path, error)


class VideoWriter:
    """Writes frames, uint8 `[H, W, 3]` in RGB, with their times as H.264 in MP4.

    The colours are those of BT.709, and the file says so: without, players guess by the size. The index comes first,
    so that a browser starts before it has the whole file.
    """

    def __init__(self, path: Path, width: int, height: int) -> None:
        import av

        self.path = path
        self._container = av.open(f"file:{path}", "w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=30)  # nominal: each frame has its own time stamp
        # Two pixels of a row or column share their colour.
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = Fraction(1, TICKS_PER_S)
        context.colorspace = context.color_primaries = context.color_trc = BT_709
        context.color_range = LIMITED_RANGE
        self._container.start_encoding()  # opens the file: what is wrong with it shows here
        self._last = -1

    def add(self, image: NDArray[np.uint8], time_s: float) -> None:
        import av

        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame = frame.reformat(self._stream.width, self._stream.height, "yuv420p", dst_colorspace=BT_709)
        self._last = frame.pts = max(self._last + 1, round(time_s * TICKS_PER_S))  # they must rise
        frame.time_base = Fraction(1, TICKS_PER_S)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        self._container.mux(self._stream.encode())
        self._container.close()


def _with_suffix(path: Path, suffixes: Sequence[str]) -> Path:
    """`path` if it has one of these suffixes, else with the last of them added: two inputs stay two files."""
    return fitting(path if path.suffix.lower() in suffixes else Path(f"{path}{suffixes[-1]}"))
