"""Photos, videos and cameras as frames, in constant memory.

A frame is uint8 `[H, W, 3]`, RGB, as a viewer shows it: turned upright (or mirrored) as the file says, with square
pixels, transparency on white. Whether a file is a photo or a video is decided by its content.
"""

import contextlib
import os
import re
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from fer_voting.data.formats import image_suffixes, is_hidden, is_image, suffix_of
from fer_voting.data.images import NotAnImage, is_heic, open_image, to_rgb

VIDEO_SUFFIXES = frozenset(
    {
        ".264", ".265", ".3gp", ".avi", ".flv", ".h264", ".h265", ".hevc", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg",
        ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv",
    }
)  # fmt: skip
"""A file in a folder with one of these, or an image's suffix, has a row even if it is damaged."""
VIDEO_FORMATS = (
    "asf,avi,av1,dv,flv,gxf,h261,h263,h264,hevc,ivf,m4v,matroska,mjpeg,mov,mpeg,mpegts,mpegvideo,mxf,nut,obu,ogg,rm,vc1,"
    "vvc,wtv,yuv4mpegpipe"
)
"""FFmpeg's names of the formats that are read: no text, and no playlist, which may name other files or servers."""
MAX_VIDEO_PIXELS = 178_956_970
"""Limit of a frame's pixels, as Pillow has one for photos: a header of a few bytes may claim frames of gigabytes."""
_ADDRESS = re.compile("[a-z]{2,}:/+", re.IGNORECASE)
"""The beginning of a file's address elsewhere; as a path it has one slash less."""
LENGTH_TOLERANCE_S = 1.0
"""A video may end this much before the time in its header: the duration of its last frame, and rounding."""


@dataclass(frozen=True)
class Input:
    """A file to read."""

    name: str
    """Name in the rows: the path that was given, or the given folder's and the file's below it."""
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
    output: str = ""
    """`Input.output`: unique among the inputs, where `input` may occur twice."""
    icc_profile: bytes | None = None
    """The colour profile of a photo with colours, for a copy of it."""


@dataclass(frozen=True)
class Unreadable:
    """A file, a video's frame or a face that cannot be used."""

    input: str
    index: int | None
    reason: str


def find_inputs(paths: Iterable[Path]) -> tuple[list[Input], int]:
    """The photos and videos that `paths` name or contain, in the order of their names, and the number of other files.

    Folders are searched in depth. In a folder, a file counts whose suffix or content is a photo's or a video's. Hidden
    files and folders are left out, and links to folders are not followed.

    Raises FileNotFoundError if a path does not exist, ValueError if it is an address.
    """
    inputs: list[Input] = []
    outputs: set[str] = set()
    others = 0

    def add(name: str, output: str) -> None:
        stem, suffix = os.path.splitext(output)
        number = 1
        while output in outputs:
            number += 1
            output = f"{stem}-{number}{suffix}"
        outputs.add(output)
        inputs.append(Input(name, output))

    for path in paths:
        if _ADDRESS.match(str(path)):
            raise ValueError(f"{path} is an address, and only files are read: download it first")
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
        if not path.is_dir():
            add(str(path), path.name)
            continue

        def unreadable(error: OSError, path: Path = path) -> None:  # a folder: it becomes a row that says why
            add(error.filename, os.path.relpath(error.filename, path))

        for folder, subfolders, files in os.walk(path, onerror=unreadable):
            subfolders[:] = sorted(name for name in subfolders if not is_hidden(name))
            for name in sorted(files):
                file = os.path.join(folder, name)
                if is_hidden(name):
                    continue
                # Reading a pipe would never end.
                if (os.path.isfile(file) or not os.path.exists(file)) and _is_readable(file):
                    add(file, os.path.relpath(file, path))
                else:
                    others += 1
    return inputs, others


def _is_readable(file: str) -> bool:
    if suffix_of(file) in image_suffixes() | VIDEO_SUFFIXES or _is_photo(file):
        return True
    try:
        with _open_video(file, format_probesize="32768") as container:
            return bool(container.streams.video)
    except Exception:  # decoders raise many types for what is none of theirs
        return False


def _is_photo(file: str) -> bool:
    with _quiet_pillow():
        if is_image(file):
            return True
    if not os.path.isfile(file):
        return False
    with contextlib.suppress(OSError), open(file, "rb") as stream:
        return is_heic(stream.read(12))  # without a plugin it is not read, but answered
    return False


def read_frames(source: Input, every: int = 1) -> Iterator[Frame | Unreadable]:
    """The frames of a file, every `every`-th of a video; `Unreadable` for what cannot be decoded. Raises nothing."""
    if _is_photo(source.name):
        try:
            with _quiet_pillow(), open_image(source.path) as image:
                profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
                yield Frame(source.name, 0, None, _upright(image), source.output, profile)
            return
        except NotAnImage:
            pass  # a video under a photo's name
        except Exception as error:  # decoders raise many exception types
            yield Unreadable(source.name, None, reason_of(error))
            return
    yield from _video_frames(source, every)


def photo(file: Path | IO[bytes]) -> NDArray[np.uint8]:
    """A photo's pixels: uint8 `[H, W, 3]`, RGB (`to_rgb`), upright; an animation's first image.

    Raises as `open_image` and `to_rgb`.
    """
    with _quiet_pillow(), open_image(file) as image:
        return _upright(image)


def _upright(image: PIL.Image.Image) -> NDArray[np.uint8]:
    return np.asarray(to_rgb(PIL.ImageOps.exif_transpose(image)))


@contextlib.contextmanager
def _quiet_pillow() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata; from half of the limit on, its approach
        yield


def _open_video(path: str, **options: str) -> Any:
    try:
        import av
    except ImportError as error:
        raise ValueError("it is no photo, and videos need PyAV: pip install 'fer_voting[detect]'") from error
    try:
        # Without `file:`, what stands before a colon in a name would be a protocol.
        return av.open(
            f"file:{path}", options={"protocol_whitelist": "file", "format_whitelist": VIDEO_FORMATS, **options}
        )
    except (av.InvalidDataError, av.ArgumentError) as error:
        raise ValueError("it is neither a photo nor a video that can be read") from error


def _video_frames(source: Input, every: int) -> Iterator[Frame | Unreadable]:
    index, last_s = 0, 0.0
    damaged = False
    try:
        import av

        with _open_video(source.name) as container:
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
                        pixels = _as_shown(frame, stream.sample_aspect_ratio)
                        yield Frame(source.name, index, time_s, pixels, source.output)
                    index += 1
            length_s = _length_s(container, stream)
        if index == 0 and not damaged:
            yield Unreadable(source.name, None, "it has no frames")
        elif length_s is not None and last_s + LENGTH_TOLERANCE_S < length_s:
            yield Unreadable(source.name, index, f"it ends at {last_s:.1f} s of {length_s:.1f} s: cut off or damaged")
    except Exception as error:  # decoders raise many exception types
        yield Unreadable(source.name, index or None, reason_of(error))


def _as_shown(frame: Any, pixel_aspect: Fraction | None) -> NDArray[np.uint8]:
    """The pixels of a decoded frame as a player shows them: square, turned and mirrored by the display matrix.

    Transparent pixels are as in photos.

    Args:
        pixel_aspect: width of a pixel divided by its height; the side that is too short is stretched.
    """
    from av.sidedata.sidedata import Type

    width, height = frame.width, frame.height
    if pixel_aspect and pixel_aspect > 0:
        width, height = round(width * max(pixel_aspect, 1)), round(height / min(pixel_aspect, 1))
    if width * height > MAX_VIDEO_PIXELS:
        raise ValueError(f"with square pixels it would be {width}x{height}, more than {MAX_VIDEO_PIXELS:,} pixels")
    has_alpha = any(component.is_alpha for component in frame.format.components)
    pixels: Any = frame.to_ndarray(format="rgba" if has_alpha else "rgb24", width=width, height=height)
    if has_alpha:
        pixels = np.asarray(to_rgb(PIL.Image.fromarray(pixels)))
    if (matrix := frame.side_data.get(Type.DISPLAYMATRIX)) is not None:
        # [a b; c d] takes (x, y) to (a x + c y, b x + d y).
        a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
        if abs(a) + abs(d) < abs(b) + abs(c):
            pixels, a, d = pixels.transpose(1, 0, 2), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return np.ascontiguousarray(pixels)


def _length_s(container: Any, stream: Any) -> float | None:
    """Duration of a video in seconds according to its header, or None."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    is_only_stream = len(container.streams) == 1  # else the sound may be longer
    return container.duration / 1e6 if is_only_stream and container.duration is not None else None


def count_frames(inputs: Iterable[Input], every: int = 1) -> int:
    """About the number of frames that `read_frames` will give: one a photo, of a video as many as its header says."""
    total = 0
    for source in inputs:
        frames = 1
        if suffix_of(source.name) in VIDEO_SUFFIXES:
            with contextlib.suppress(Exception), _open_video(source.name) as container:
                stream = container.streams.video[0]
                frames = stream.frames or round((_length_s(container, stream) or 0) * float(stream.guessed_rate or 25))
        total += max(1, -(-frames // every))
    return total


def camera_frames(source: str, every: int = 1) -> Generator[Frame]:
    """Frames of a camera until it ends; a frame's time is when it arrived.

    Args:
        source: a number (0 is the first camera), or what else OpenCV opens: a device, a stream's address.
        every: take every N-th frame.

    Raises ValueError if it cannot be opened.
    """
    import cv2

    output = camera_output(source)
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
                    yield Frame(camera_name(source), index, time.monotonic() - start, rgb, output)
            index += 1
    finally:
        camera.release()


def camera_name(source: str) -> str:
    """The name of a camera in the rows."""
    return f"camera:{source}"


def camera_output(source: str) -> str:
    """The name of a camera's annotated video and the like (`Input.output`)."""
    return "camera-" + "".join(char if char.isalnum() else "-" for char in source)


def reason_of(error: Exception) -> str:
    """The text of an exception in a row."""
    if type(error) in (ValueError, NotAnImage):
        return str(error)
    text = getattr(error, "strerror", None) or str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
