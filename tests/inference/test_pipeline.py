"""Frames through the pipeline: order, batches, boxes, rows."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from helpers.networks import found_faces, small_info, small_network
from hypothesis import given
from hypothesis import strategies as st

from fer_voting.data.images import prepare_image
from fer_voting.inference.faces import Boxes
from fer_voting.inference.frames import Frame, Unreadable
from fer_voting.inference.pipeline import Pipeline, RecognizedFrame, whole_frame
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.rows import RowWriter, columns, match_names, read_boxes, rows_of
from fer_voting.inference.runtime import TorchRuntime
from fer_voting.system.text import csv_safe


class Counting:
    """A runtime that counts its batches."""

    def __init__(self) -> None:
        self._runtime = TorchRuntime(small_network(), small_info())
        self.batches: list[int] = []

    def __getattr__(self, name: str):
        return getattr(self._runtime, name)

    def __call__(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.batches.append(len(faces))
        return self._runtime(faces)


@pytest.fixture
def runtime() -> Counting:
    return Counting()


def picture(seed: int, height: int = 60, width: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def video(count: int, name: str = "clip.mp4") -> list[Frame]:
    return [Frame(name, index, index / 10, picture(index)) for index in range(count)]


def boxes_of(frame: Frame) -> np.ndarray:
    """Boxes of as many faces as the frame's number modulo 3."""
    return found_faces([(5.0 + 20 * face, 10, 20, 30) for face in range(frame.index % 3)])


def test_frames_come_in_order_with_the_faces_that_each_alone_would_have(runtime: Counting):
    recognizer = Recognizer(runtime, batch_size=4)
    items: list[Frame | Unreadable] = [*video(7)]
    items.insert(3, Unreadable("broken.jpg", None, "it is no photo"))
    recognized = list(Pipeline(recognizer, boxes_of)(items))
    assert [one.frame.index if isinstance(one, RecognizedFrame) else None for one in recognized] == [
        0, 1, 2, None, 3, 4, 5, 6,
    ]  # fmt: skip
    assert runtime.batches == [4, 2]  # 0 + 1 + 2 + 0 + 1 faces, and 2 + 0
    for one in recognized:
        if isinstance(one, RecognizedFrame):
            frame = items[one.frame.index + (one.frame.index > 2)]
            assert isinstance(frame, Frame)
            rows = boxes_of(frame)
            found_boxes = Boxes(np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1), rows[:, 4])
            alone = Recognizer(runtime, lambda image, found_boxes=found_boxes: found_boxes).detect(frame.image)
            assert np.array_equal(one.faces.boxes, boxes_of(frame)[:, :4])
            np.testing.assert_allclose(one.faces.probabilities, alone.probabilities, atol=1e-6)
            assert one.face_ids == list(range(len(alone)))


def test_what_was_found_before_an_interrupt_is_recognised_first(runtime: Counting):
    def interrupted() -> Iterator[Frame]:
        yield from video(3)
        raise KeyboardInterrupt

    items = Pipeline(Recognizer(runtime, batch_size=64), boxes_of)(interrupted())
    assert [next(items).frame.index for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyboardInterrupt):
        next(items)


def test_batches_never_exceed_their_size_and_frames_do_not_wait_for_ever(runtime: Counting):
    recognizer = Recognizer(runtime, batch_size=4)
    pipeline = Pipeline(recognizer, lambda frame: found_faces([(1, 1, 20, 20)] * 6))
    list(pipeline(video(3)))
    assert runtime.batches == [4, 2] * 3
    assert (pipeline.frames, pipeline.faces) == (3, 18)
    assert set(pipeline.seconds) == {"read", "detect", "recognize"}

    read = []

    def reading() -> Iterator[Frame]:
        for frame in video(10):
            read.append(frame.index)
            yield frame

    first = next(Pipeline(recognizer, lambda frame: np.zeros((0, 5)), max_frames=3)(reading()))
    assert isinstance(first, RecognizedFrame)
    assert (first.frame.index, read) == (0, [0, 1, 2])

    def fails(frame: Frame) -> np.ndarray:
        raise RuntimeError("out of memory")

    read.clear()
    failed = next(Pipeline(recognizer, fails, max_frames=3)(reading()))
    assert isinstance(failed, Unreadable)
    assert (failed.index, read) == (0, [0, 1, 2])


def test_pixels_are_kept_only_when_asked_for(runtime: Counting):
    recognizer = Recognizer(runtime)
    (without,) = Pipeline(recognizer, whole_frame)(video(1))
    (kept,) = Pipeline(recognizer, whole_frame, keep_pixels=True)(video(1))
    assert isinstance(without, RecognizedFrame)
    assert isinstance(kept, RecognizedFrame)
    assert without.frame.image.size == 0
    assert np.array_equal(kept.frame.image, picture(0))


def test_an_aligned_image_is_seen_as_training_sees_it(runtime: Counting):
    """Its sides are scaled each to the network's size: no square is cut out."""
    (recognized,) = Pipeline(Recognizer(runtime), whole_frame, squares=False)([Frame("a.png", 0, None, picture(1))])
    assert isinstance(recognized, RecognizedFrame)
    assert np.array_equal(recognized.images[0], prepare_image(PIL.Image.fromarray(picture(1)), 24))
    (row,) = rows_of(recognized)
    assert [row[side] for side in ("left", "top", "width", "height")] == [0, 0, 80, 60]
    assert row["face_score"] is None


def test_tracking_starts_anew_with_every_video_and_leaves_photos_alone(runtime: Counting):
    boxes = {0: [0.0, 40.0], 1: [42.0, 2.0], 2: [44.0]}

    def locate(frame: Frame) -> np.ndarray:
        return found_faces([(left, 10, 20, 30) for left in boxes[frame.index]])

    items = [*video(3, "a.mp4"), *video(3, "b.mp4"), Frame("c.jpg", 0, None, picture(0))]
    recognized = list(Pipeline(Recognizer(runtime), locate, track=True)(items))
    assert [one.face_ids for one in recognized if isinstance(one, RecognizedFrame)] == [
        [0, 1], [1, 0], [1], [0, 1], [1, 0], [1], [0, 1],
    ]  # fmt: skip


def test_rows(runtime: Counting):
    items: list[Frame | Unreadable] = [video(3)[2], Unreadable("x.jpg", None, "a\nb"), video(1)[0]]
    recognized = list(Pipeline(Recognizer(runtime), boxes_of)(items))
    first, second = rows_of(recognized[0])
    names = runtime.class_names
    assert isinstance(recognized[0], RecognizedFrame)
    faces = recognized[0].faces
    assert list(second) == columns(names)
    assert {key: second[key] for key in list(second)[:10]} == {
        "input": "clip.mp4", "frame": 2, "time_s": 0.2, "face_id": 1,
        "left": 25, "top": 10, "width": 20, "height": 30, "angle": 0.0, "face_score": 0.8,
    }  # fmt: skip
    assert first["class"] == faces.classes[0]
    assert first["confidence"] == max(first[name] for name in names) == first[first["class"]]
    assert sum(first[name] for name in names) == pytest.approx(1, abs=1e-5)
    assert first["vote_agreement"] == faces.agreement[0]
    assert first["status"] == "ok"
    assert rows_of(recognized[1]) == [{"input": "x.jpg", "frame": None, "status": r"unreadable: a\nb"}]
    assert rows_of(recognized[2]) == [{"input": "clip.mp4", "frame": 0, "time_s": 0.0, "status": "no_face"}]


# Boxes from a file ------------------------------------------------------------------------------------------------


def test_boxes_from_a_file(runtime: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "photos" / "boxes.csv").write_text(
        "input,frame,left,top,width,height,status\n"
        f"{tmp_path / 'photos' / 'a.jpg'},,1,2,30,40,\n"
        "a.jpg,0,10,20,5,6,ok\n"  # counts from the CSV file's folder
        "photos/a.jpg,2,7,7,7,7,ok\n"
        "photos/a.jpg,3,,,,,no_face\n"
    )
    monkeypatch.chdir(tmp_path)
    locate = read_boxes(Path("photos/boxes.csv"), ["photos/../photos/a.jpg"])

    def located(index: int) -> list[list[float]]:
        return locate(Frame("photos/../photos/a.jpg", index, None, picture(0)))[:, :4].tolist()

    assert located(0) == [[1, 2, 30, 40], [10, 20, 5, 6]]
    assert located(2) == [[7, 7, 7, 7]]
    assert located(1) == located(3) == []


def test_a_box_outside_of_its_frame_is_a_row_and_the_others_go_on(runtime: Counting, tmp_path: Path):
    (tmp_path / "boxes.csv").write_text(
        f"input,left,top,width,height\n{tmp_path / 'a.jpg'},500,2,30,40\n{tmp_path / 'a.jpg'},5,5,20,20\n"
    )
    (tmp_path / "a.jpg").touch()
    locate = read_boxes(tmp_path / "boxes.csv", [str(tmp_path / "a.jpg")])
    (recognized,) = Pipeline(Recognizer(runtime), locate)([Frame(str(tmp_path / "a.jpg"), 0, None, picture(0))])
    good, bad = rows_of(recognized)
    assert (good["status"], good["left"]) == ("ok", 5)
    assert bad["status"] == "unreadable: the face box 500, 2, 30, 40 (left, top, width, height) lies outside of 80x60"
    assert (bad["input"], bad["frame"]) == (str(tmp_path / "a.jpg"), 0)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("input,left,top,width\na.jpg,1,2,3\n", "lacks the columns height"),
        ("", "lacks the columns height, input, left, top, width"),
        ("input,left,top,width,height\na.jpg,1,2,3,4\nb.jpg,1,2,x,4\n", r"boxes\.csv, line 3: .*'x'"),
        ("input,left,top,width,height\na.jpg,1,2,nan,4\n", r"line 2: a number of the box is not finite"),
        ("input,left,top,width,height\na.jpg,1,2\n", r"boxes\.csv, line 2: "),
        (b"\xff\xfe\x00", "is not text"),
    ],
)
def test_a_file_that_holds_no_boxes(tmp_path: Path, content: str | bytes, match: str):
    path = tmp_path / "boxes.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=match):
        read_boxes(path, ["a.jpg"])


@pytest.mark.parametrize(
    ("written", "names", "expected"),
    [
        # the same name, and as the program writes it
        (["a.jpg"], ["in/a.jpg", "b.jpg"], {"a.jpg": "in/a.jpg"}),
        ([r"a\x1b.jpg", "./=b.jpg"], ["in/a\x1b.jpg", "=b.jpg"], {"./=b.jpg": "=b.jpg", r"a\x1b.jpg": "in/a\x1b.jpg"}),
        # other separators, folders, suffixes, letter case
        ([r"C:\\data\\x\\a.jpg".replace("\\\\", "\\")], ["x/a.jpg", "y/a.jpg"], {r"C:\data\x\a.jpg": "x/a.jpg"}),
        (["/old/place/x/a.png"], ["new/x/a.JPG", "new/y/a.jpg"], {"/old/place/x/a.png": "new/x/a.JPG"}),
        (["A.jpeg"], ["in/a.jpg", "in/b.jpg"], {"A.jpeg": "in/a.jpg"}),
        # the better name first, none where two are as good
        (["a.png", "a.jpg"], ["in/a.jpg"], {"a.jpg": "in/a.jpg"}),
        (["a.jpg"], ["x/a.jpg", "y/a.jpg"], {}),
        (["x/a.jpg", "y/a.jpg"], ["z/a.jpg"], {}),
        (["gone.jpg", "", "a\0b", "a" * 5000], ["in/a.jpg"], {}),
    ],
)
def test_which_input_a_row_of_boxes_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str], names: list[str], expected: dict[str, str]
):
    monkeypatch.chdir(tmp_path)
    assert match_names(written, names, tmp_path / "lists") == expected


def test_a_row_of_another_file_that_is_here_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("x/a.jpg", "y/a.jpg"):
        Path(name).parent.mkdir()
        Path(name).touch()
    assert match_names(["x/a.jpg"], ["y/a.jpg"], tmp_path) == {}


def test_boxes_that_name_no_input_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "boxes.csv"
    path.write_text("input,left,top,width,height\na.jpg,1,2,3,4\nb.jpg,1,2,3,4\nb.jpg,5,2,3,4\nc.jpg,5,2,3,4\n")
    with caplog.at_level("WARNING"):
        locate = read_boxes(path, ["in/a.png"])
    assert f"{path}: 3 of 4 boxes name no input, e.g. b.jpg" in caplog.text
    assert locate(Frame("in/a.png", 0, None, picture(0)))[:, :4].tolist() == [[1, 2, 3, 4]]


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=60)
NAMES = TEXTS | st.binary(min_size=1, max_size=60).map(lambda name: os.fsdecode(name.translate(None, b"/\0") or b"a"))


@given(st.lists(NAMES, min_size=1, max_size=5, unique=True))
def test_boxes_of_our_own_file_are_read_back_whatever_the_names(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
):
    folder = tmp_path_factory.mktemp("names")
    names = [f"in/{name}" for name in names]
    if len({csv_safe(name) for name in names}) < len(names):
        return  # escaped they are one name
    with RowWriter(folder / "rows.csv", ("happy",)) as writer:
        for number, name in enumerate(names):
            box = {"left": number, "top": 1, "width": 2, "height": 3}
            writer.write([{"input": name, "frame": 0, **box, "status": "ok"}])
    locate = read_boxes(folder / "rows.csv", names)
    for number, name in enumerate(names):
        assert locate(Frame(name, 0, None, picture(0)))[:, :4].tolist() == [[number, 1, 2, 3]]


def test_a_detector_that_fails_on_a_frame_costs_that_frame(runtime: Counting):
    def locate(frame: Frame) -> np.ndarray:
        if frame.index == 1:
            raise RuntimeError("out of memory")
        return found_faces([(5, 5, 20, 20)])

    items = [Frame("clip.mp4", index, index / 25, picture(index)) for index in range(3)]
    statuses = [row["status"] for item in Pipeline(Recognizer(runtime), locate)(items) for row in rows_of(item)]
    assert statuses == ["ok", "unreadable: no faces found: RuntimeError: out of memory", "ok"]


def test_landmarks_are_written_and_read_back(runtime: Counting, tmp_path: Path):
    faces = found_faces([(10, 10, 20, 20), (40, 10, 20, 20)])
    faces[0, 6:] = [14, 16, 26, 16.25, 20, 20, 15, 25, 25, 25]  # the other face has none
    item = next(Pipeline(Recognizer(runtime), lambda frame: faces)(video(1)))
    assert isinstance(item, RecognizedFrame)
    first, second = item.faces
    assert first.landmarks.tolist() == [[14, 16], [26, 16.25], [20, 20], [15, 25], [25, 25]]
    assert np.isnan(second.landmarks).all()
    rows = rows_of(item)
    assert (rows[0]["left_eye_x"], rows[0]["right_eye_y"], rows[0]["right_mouth_x"]) == (14, 16.25, 25)
    assert rows[1]["nose_x"] is None
    with RowWriter(tmp_path / "rows.csv", runtime.class_names) as writer:
        writer.write(rows)
    read = read_boxes(tmp_path / "rows.csv", ["clip.mp4"])(video(1)[0])
    np.testing.assert_array_equal(read, faces)
