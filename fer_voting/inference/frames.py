"""Photos, videos and cameras as frames, in constant memory.

A frame is uint8 `[H, W, 3]`, RGB, as a viewer shows it: turned upright by the camera's orientation.
"""

import os
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import PIL.ImageOps
from numpy.typing import NDArray

from fer_voting.data.formats import image_suffixes
from fer_voting.data.images import open_image, to_rgb

VIDEO_SUFFIXES = frozenset(
    {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
)
MAX_VIDEO_PIXELS = 178_956_970
"""Limit of a frame's pixels, as Pillow has one for photos: a header of a few bytes may claim frames of gigabytes."""
LENGTH_TOLERANCE_S = 1.0
"""A video may end this much before the time in its header: the duration of its last frame, and rounding."""


@dataclass(frozen=True)
class Input:
    """A file to read."""

    name: str
    """Name in the rows: the path that was given, or the given folder's and the file's below it."""
    kind: Literal["photo", "video"]
    output: str
    """Unique path below a folder of results: the path below the given folder, or the file's name."""

    @property
    def path(self) -> Path:
        return Path(self.name)


@dataclass(frozen=True, eq=False)
class Frame:
    """A photo (frame 0), or a frame of a video or camera."""

    input: str
    index: int
    """0, 1, … in the video, whether or not the ones in between are used."""
    time_s: float | None
    """Seconds since the video's or the camera's start by the container's time stamps; None for a photo."""
    image: NDArray[np.uint8]
    """`[H, W, 3]`, RGB."""


@dataclass(frozen=True)
class Unreadable:
    """A file, a video's frame or a face that cannot be used."""

    input: str
    index: int | None
    reason: str


def find_inputs(paths: Iterable[Path]) -> tuple[list[Input], int]:
    """The photos and videos that `paths` name or contain, in the order of their names, and the number of other files.

    Folders are searched in depth.

    A file that is named itself is taken for a photo unless its suffix is a video's. Hidden files and folders are left
    out, and links to folders are not followed.

    Raises FileNotFoundError if a path does not exist.
    """
    inputs: list[Input] = []
    outputs: set[str] = set()
    others = 0

    def add(name: str, kind: Literal["photo", "video"], output: str) -> None:
        stem, suffix = os.path.splitext(output)
        number = 1
        while output in outputs:
            number += 1
            output = f"{stem}-{number}{suffix}"
        outputs.add(output)
        inputs.append(Input(name, kind, output))

    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if not path.is_dir():
            add(str(path), "video" if path.suffix.lower() in VIDEO_SUFFIXES else "photo", path.name)
            continue

        def unreadable(error: OSError, path: Path = path) -> None:  # a folder: it becomes a row that says why
            add(error.filename, "photo", os.path.relpath(error.filename, path))

        for folder, subfolders, files in os.walk(path, onerror=unreadable):
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            for name in sorted(files):
                suffix, file = os.path.splitext(name)[1].lower(), os.path.join(folder, name)
                if name.startswith("."):
                    continue
                if os.path.exists(file) and not os.path.isfile(file):
                    others += 1  # reading a pipe would never end
                elif suffix in VIDEO_SUFFIXES:
                    add(file, "video", os.path.relpath(file, path))
                elif suffix in image_suffixes():
                    add(file, "photo", os.path.relpath(file, path))
                else:
                    others += 1
    return inputs, others


def read_frames(source: Input, every: int = 1) -> Iterator[Frame | Unreadable]:
    """The frames of a file, every `every`-th of a video; `Unreadable` for what cannot be decoded. Raises nothing."""
    if source.kind == "video":
        yield from _video_frames(source, every)
        return
    try:
        yield Frame(source.name, 0, None, photo(source.path))
    except Exception as error:  # decoders raise many exception types
        yield Unreadable(source.name, None, reason_of(error))


def photo(path: Path) -> NDArray[np.uint8]:
    """A photo's pixels: uint8 `[H, W, 3]`, RGB (`to_rgb`), upright; an animation's first image.

    Raises as `open_image` and `to_rgb`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata; from half of the limit on, its approach
        with open_image(path) as image:
            return np.asarray(to_rgb(PIL.ImageOps.exif_transpose(image)))


def _video_frames(source: Input, every: int) -> Iterator[Frame | Unreadable]:
    import av

    index, last_s = 0, 0.0
    damaged = False
    try:
        # Read only the file itself: it may be a playlist that names other files or servers.
        with av.open(source.name, options={"protocol_whitelist": "file"}) as container:
            if not container.streams.video:
                raise ValueError("it has no video stream")
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.options = {"max_pixels": str(MAX_VIDEO_PIXELS)}
            start_s = (container.start_time or 0) / av.time_base
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    if not damaged:  # one row for consecutive damaged frames
                        yield Unreadable(source.name, index, reason_of(error))
                    damaged = True
                    continue
                for frame in frames:
                    damaged = False
                    # A bare stream of H.264 has no time stamps: use the frame rate that it claims.
                    time_s = index / float(stream.guessed_rate or 25) if frame.time is None else frame.time - start_s
                    last_s = max(last_s, time_s)
                    if index % every == 0:
                        pixels: Any = frame.to_ndarray(format="rgb24")
                        image = np.ascontiguousarray(np.rot90(pixels, frame.rotation // 90))
                        yield Frame(source.name, index, time_s, image)
                    index += 1
            length_s = _length_s(container, stream)
        if index == 0 and not damaged:
            yield Unreadable(source.name, None, "it has no frames")
        elif length_s is not None and last_s + LENGTH_TOLERANCE_S < length_s:
            yield Unreadable(source.name, index, f"it ends at {last_s:.1f} s of {length_s:.1f} s: cut off or damaged")
    except Exception as error:  # decoders raise many exception types
        yield Unreadable(source.name, index or None, reason_of(error))


def _length_s(container: Any, stream: Any) -> float | None:
    """Duration of a video in seconds according to its header, or None."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    is_only_stream = len(container.streams) == 1  # else the sound may be longer
    return container.duration / 1e6 if is_only_stream and container.duration is not None else None


def camera_frames(source: str, every: int = 1) -> Iterator[Frame]:
    """Frames of a camera until it ends; a frame's time is when it arrived.

    Args:
        source: a number (0 is the first camera), or what else OpenCV opens: a device, a stream's address.
        every: take every N-th frame.

    Raises ValueError if it cannot be opened.
    """
    import cv2

    camera = cv2.VideoCapture(int(source) if source.isdecimal() else source)
    try:
        if not camera.isOpened():
            raise ValueError(f"`camera` (={source!r}) cannot be opened")
        start, index = time.monotonic(), 0
        while camera.grab():
            if index % every == 0:
                is_read, image = camera.retrieve()
                if is_read:
                    rgb: Any = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
                    yield Frame(camera_name(source), index, time.monotonic() - start, rgb)
            index += 1
    finally:
        camera.release()


def camera_name(source: str) -> str:
    """The name of a camera in the rows."""
    return f"camera:{source}"


def reason_of(error: Exception) -> str:
    """What a row says of an exception."""
    if type(error) is ValueError:
        return str(error)
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
