"""The live window: frames that nobody asked for in time are dropped."""

import itertools
import time
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from helpers.networks import found_faces, small_info, small_network, write_checkpoint
from helpers.videos import grey_frames, write_video

from fer_voting.inference.frames import Frame, camera_frames
from fer_voting.inference.live import NewestFrames
from fer_voting.inference.pipeline import Pipeline, RecognizedFrame
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.runtime import TorchRuntime
from fer_voting.predict import main


def test_a_slow_recogniser_sees_the_newest_frames_of_a_camera(tmp_path: Path):
    """A video stands for the camera; OpenCV reads it as fast as it can."""
    write_video(tmp_path / "clip.mp4", grey_frames(range(0, 240, 2)), range(0, 2400, 20))

    def slow(frame: Frame) -> np.ndarray:
        time.sleep(0.15)
        return found_faces([(5, 5, 20, 20)])

    newest = NewestFrames(camera_frames(str(tmp_path / "clip.mp4")))
    pipeline = Pipeline(Recognizer(TorchRuntime(small_network(), small_info())), slow, max_frames=1)
    seen = [item.frame.index for item in pipeline(newest) if isinstance(item, RecognizedFrame)]
    assert seen == sorted(set(seen))
    assert seen[-1] == 119  # the newest is never dropped
    assert len(seen) < 60


def test_errors_arrive_after_the_frames_before_them():
    def three() -> Generator[Frame]:
        for index in range(3):
            time.sleep(0.1)
            yield Frame("camera:0", index, 0.0, np.zeros((2, 2, 3), np.uint8))
        raise OSError("unplugged")

    newest = NewestFrames(three())
    seen = []
    with pytest.raises(OSError, match="unplugged"):
        seen.extend(frame.index for frame in newest)
    assert seen[-1] == 2


def test_a_camera_is_closed_where_the_loop_ends():
    closed = []

    def endless() -> Generator[Frame]:
        try:
            for index in itertools.count():
                yield Frame("camera:0", index, 0.0, np.zeros((2, 2, 3), np.uint8))
                time.sleep(0.01)
        finally:
            closed.append(True)

    frames = iter(NewestFrames(endless()))
    next(frames)
    frames.close()
    assert closed == [True]


@pytest.mark.slow
def test_without_a_display_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = write_video(tmp_path / "clip.mp4", grey_frames([50, 100]), [0, 40])
    words = ["--camera", str(clip), "--show", "--aligned", "--checkpoint", str(write_checkpoint(tmp_path / "n.ckpt"))]
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(SystemExit, match=r"^error: `show` needs a display.*--draw DIR"):
        main(words)
