"""Videos that a test makes, with the time stamps that it wants."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def write_video(
    path: Path,
    frames: Sequence[NDArray[np.uint8]],
    times_ms: Sequence[int],
    codec: str = "libx264",
    pixel_aspect: str = "0/1",
) -> Path:
    """A video of frames uint8 `[H, W, 3]` (even sides), each shown from its own time on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.sample_aspect_ratio = Fraction(pixel_aspect)
        for image, time_ms in zip(frames, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def grey_frames(levels: Sequence[int], height: int = 48, width: int = 64) -> list[NDArray[np.uint8]]:
    """Frames of one grey level each."""
    return [np.full((height, width, 3), level, np.uint8) for level in levels]
