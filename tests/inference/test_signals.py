"""Probabilities averaged in time, and what a video comes to."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from fer_voting.inference.frames import Frame, Unreadable
from fer_voting.inference.pipeline import RecognizedFrame
from fer_voting.inference.recognizer import DetectedFaces, Recognition
from fer_voting.inference.signals import Signals, Smoothing

NAMES = ("happy", "sad", "anger, or so")
NOTHING = np.zeros((0, 0, 3), np.uint8)


def frame(time_s: float | None, faces: dict[int, np.ndarray], name: str = "a.mp4", index: int = 0) -> RecognizedFrame:
    probabilities = np.reshape([*faces.values()], (-1, 3)).astype(np.float32)
    count = len(faces)
    recognition = Recognition(NAMES, probabilities, np.zeros((count, 1, 3), np.float32))
    found = DetectedFaces.at(np.zeros((count, 16)), recognition)
    images = np.zeros((count, 8, 8, 3), np.uint8)
    return RecognizedFrame(Frame(name, index, time_s, NOTHING, name), found, list(faces), images)


def video(seed: int = 0) -> tuple[list[float], list[dict[int, np.ndarray]]]:
    """Frames at odd times, one face throughout, one with a gap, one for a moment."""
    draw = np.random.default_rng(seed)
    times = np.cumsum(draw.choice([0.02, 0.04, 0.1, 0.5], 60)).tolist()
    shown = {0: range(60), 1: [*range(5, 20), *range(30, 50)], 2: [40]}
    return times, [{face: draw.dirichlet([1, 1, 1]) for face in shown if i in shown[face]} for i in range(60)]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("seconds", [0.06, 0.7, 100])
def test_averages_are_numpys_at_any_frame_rate_and_through_gaps(seconds: float, centred: bool):
    times, faces = video()
    items: list = [frame(t, each, index=i) for i, (t, each) in enumerate(zip(times, faces, strict=True))]
    items.insert(7, Unreadable("a.mp4", 7, "damaged"))
    smoothed = list(Smoothing(seconds, centred)(items))
    assert [type(item) for item in smoothed] == [type(item) for item in items]
    rest = [item for item in smoothed if isinstance(item, RecognizedFrame)]
    for t, each, item in zip(times, faces, rest, strict=True):
        assert item.face_ids == list(each)
        for row, face in enumerate(each):
            own = np.array([[s, *some[face]] for s, some in zip(times, faces, strict=True) if face in some])
            ages = (t - own[:, 0]).round(9)  # 0.24 - 0.2 is not 0.04
            inside = np.abs(ages) <= seconds / 2 if centred else (ages >= 0) & (ages < seconds)
            np.testing.assert_allclose(item.faces.probabilities[row], own[inside, 1:].mean(axis=0), atol=1e-6)
            assert item.faces.class_ids[row] == item.faces.probabilities[row].argmax()


@pytest.mark.parametrize(("seconds", "centred", "samples"), [(0.2, False, 5), (0.4, True, 11)])
def test_a_window_holds_the_same_number_of_frames_throughout(seconds: float, centred: bool, samples: int):
    """At 25 frames a second, whatever their times are rounded to."""
    items = [frame(i / 25, {0: np.array([i * i, 0, 0])}, index=i) for i in range(100)]
    half = samples // 2 if centred else 0
    for i, item in list(enumerate(Smoothing(seconds, centred)(items)))[samples:-samples]:
        assert isinstance(item, RecognizedFrame)
        window = np.arange(samples) + i + half - samples + 1
        assert item.faces.probabilities[0, 0] == pytest.approx((window**2).mean(), rel=1e-5)


def test_a_causal_window_waits_for_nothing_and_a_centred_one_for_half_of_itself():
    def endless(seen: list[int]) -> Iterator[RecognizedFrame]:
        for i in range(100):
            seen.append(i)
            yield frame(i / 10, {0: np.eye(3)[i % 3]}, index=i)

    for centred, ahead in ((False, 1), (True, 7)):
        seen: list[int] = []
        first = next(iter(Smoothing(1.1, centred)(endless(seen))))
        assert isinstance(first, RecognizedFrame)
        assert (first.frame.index, len(seen)) == (0, ahead)


def test_each_video_begins_anew_and_photos_stay_what_they_are():
    happy, sad = np.eye(3)[:2]
    items = [frame(0, {0: happy}), frame(0, {0: sad}, "b.mp4"), frame(None, {0: happy}, "c.jpg"), frame(0, {0: sad})]
    for centred in (False, True):
        smoothed = [item.faces.classes for item in Smoothing(5, centred)(items) if isinstance(item, RecognizedFrame)]
        assert smoothed == [["happy"], ["sad"], ["happy"], ["sad"]]


def test_what_waits_comes_before_an_interrupt():
    def interrupted() -> Iterator[RecognizedFrame]:
        yield frame(0, {0: np.eye(3)[0]})
        raise KeyboardInterrupt

    items = Smoothing(1, centred=True)(interrupted())
    assert isinstance(next(items), RecognizedFrame)
    with pytest.raises(KeyboardInterrupt):
        next(items)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_other_windows_are_refused(seconds: float):
    with pytest.raises(ValueError, match="`smooth`"):
        Smoothing(seconds)


def test_seconds_and_plots_of_each_person(tmp_path: Path):
    happy, sad, angry = np.eye(3)
    signals = Signals(tmp_path, NAMES)
    shown = [(0, {0: happy}), (0.5, {0: happy, 1: sad}), (0.75, {1: sad}), (2, {0: angry, 1: sad}), (2.5, {0: happy})]
    for time_s, faces in shown:
        signals.add(frame(time_s, faces, "in/a.mp4"))
    signals.add(frame(None, {0: happy}, "photo.jpg"))
    signals.add(frame(0, {}, "empty.mp4"))
    signals.close()
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")) == [
        "in/a.mp4-person0.png", "in/a.mp4-person1.png", "in/a.mp4-seconds.csv",
    ]  # fmt: skip
    with (tmp_path / "in" / "a.mp4-seconds.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first == dict(
        zip(
            ["person", "first_s", "last_s", "seconds", *NAMES],
            ["0", "0.000", "3.000", "1.750", "1.250", "0.000", "0.500"],
            strict=True,
        )
    )
    assert (second["first_s"], second["seconds"], second["sad"]) == ("0.500", "2.000", "2.000")
    with PIL.Image.open(tmp_path / "in" / "a.mp4-person0.png") as plot:
        assert plot.size == (990, 352)
