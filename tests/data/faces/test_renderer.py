"""The drawn faces: reproducible, moved by action units where they should, and telling the class by nothing else."""

from __future__ import annotations

import copy
import hashlib
import inspect
import subprocess
import sys

import cv2
import numpy as np
import pytest

from fer_voting.data.faces.geometry import Face, project
from fer_voting.data.faces.parameters import (
    AU_NAMES,
    AU_ROW,
    EXPRESSION_UNITS,
    Person,
    Scene,
    complete_units,
    draw_units,
)
from fer_voting.data.faces.renderer import paint, render_faces
from fer_voting.data.labels import CLASSES

NAMES = list(EXPRESSION_UNITS)
AT_REST = np.zeros((len(AU_NAMES), 2))


def replace(drawn, **values):
    """A copy of a person or scene with other values."""
    changed = copy.copy(drawn)
    assert values.keys() <= vars(drawn).keys()
    vars(changed).update(values)
    return changed


def active(**units: float | tuple[float, float]) -> np.ndarray:
    """Units [AUs, 2] by name: active(au12=1.0) on both sides, active(au12=(1.0, 0.0)) on the left."""
    intensities = AT_REST.copy()
    for name, value in units.items():
        intensities[AU_ROW[int(name[2:])]] = value
    return intensities


@pytest.fixture(scope="module")
def person():
    """Somebody with an unhidden, symmetric face."""
    bare = {"hair_style": "cropped", "hair_shift": 0.0, "beard": "none", "glasses": "none"}
    return replace(Person(0, 0), age=0.3, skin=(206, 160, 124), **bare)


@pytest.fixture(scope="module")
def studio():
    """A scene that looks straight at the face, in even light, with a good camera."""
    ahead = {"yaw": 0.0, "pitch": 0.0, "roll": 0.0, "zoom": 1.0, "shift": (0.0, 0.0), "gaze": (0.0, 0.0)}
    even = {"lamp": (0.0, 0.0, 1.0), "contrast": 0.3, "exposure": 1.0, "gamma": 1.0, "cast": (1.0, 1.0, 1.0)}
    sharp = {"blur": 0.0, "detail": 1.0, "noise": 0.0, "jpeg_quality": 100, "greyscale": False}
    return replace(Scene(0, 0), backdrop="gradient", occluder="none", **ahead, **even, **sharp)


def test_the_expressions_are_the_seven_classes_and_named_units() -> None:
    assert tuple(NAMES) == CLASSES[:7]
    for name, units in EXPRESSION_UNITS.items():
        assert set(units) <= set(AU_NAMES), name
        assert all(0 < intensity <= 1 for intensity in units.values()), name
    assert {6, 12} <= set(EXPRESSION_UNITS["happy"])
    assert {1, 2, 5, 26} <= set(EXPRESSION_UNITS["surprise"])
    assert {1, 4, 15} <= set(EXPRESSION_UNITS["sad"])
    assert {1, 2, 4, 5, 7, 20, 26} <= set(EXPRESSION_UNITS["fear"])
    assert {4, 5, 7, 23} <= set(EXPRESSION_UNITS["anger"])
    assert {9, 15, 16} <= set(EXPRESSION_UNITS["disgust"])
    assert not EXPRESSION_UNITS["neutral"]


# --- Reproducible -------------------------------------------------------------------------------------------------


def test_an_image_does_not_depend_on_its_batch() -> None:
    indices = list(range(14))
    expressions = [NAMES[index % 7] for index in indices]
    people = [index // 3 for index in indices]
    together = render_faces(7, indices, expressions, people)
    assert together.shape == (14, 48, 48, 3)
    assert together.dtype == np.uint8
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    backwards = render_faces(7, indices[::-1], expressions[::-1], people[::-1])
    np.testing.assert_array_equal(together, backwards[::-1])
    alone = render_faces(7, indices[5:6], expressions[5:6], people[5:6])
    np.testing.assert_array_equal(together[5], alone[0])


def test_a_fresh_process_draws_the_same() -> None:
    arguments = (3, [0, 9, 2**31], ["happy", "fear", "anger"], [0, 4, 10**6])
    program = (
        "import hashlib; from fer_voting.data.faces.renderer import render_faces; "
        f"print(hashlib.sha256(render_faces(*{arguments!r}).tobytes()).hexdigest())"
    )
    fresh = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == hashlib.sha256(render_faces(*arguments).tobytes()).hexdigest()


def test_seed_index_and_person_each_make_another_image() -> None:
    base = render_faces(0, [1], ["happy"], [2])
    assert not np.array_equal(base, render_faces(1, [1], ["happy"], [2]))
    assert not np.array_equal(base, render_faces(0, [2], ["happy"], [2]))
    assert not np.array_equal(base, render_faces(0, [1], ["happy"], [3]))
    assert not np.array_equal(base, render_faces(0, [1], ["sad"], [2]))


# --- Only the face tells the class --------------------------------------------------------------------------------


def test_person_and_scene_are_drawn_without_the_expression() -> None:
    assert list(inspect.signature(Person).parameters) == ["seed", "number"]
    assert list(inspect.signature(Scene).parameters) == ["seed", "index"]


def test_two_expressions_of_one_image_differ_in_the_face_only(person, studio) -> None:
    noisy = replace(studio, noise=6.0, backdrop="clutter", exposure=0.9)
    images = [paint(person, noisy, complete_units(name), 48).astype(int) for name in NAMES]
    for image in images[1:]:
        changed = np.abs(image - images[0]).max(axis=-1) > 0
        assert changed[:6].sum() == 0  # hair and background above the forehead, noise included
        assert changed[:, :6].sum() == 0
        assert changed[:, -6:].sum() == 0
        assert changed[20:44, 12:36].mean() > 0.2


def test_the_images_do_not_give_the_class_away_by_their_brightness() -> None:
    means = {name: render_faces(0, range(40), [name] * 40, range(40)).mean() for name in NAMES}
    assert max(means.values()) - min(means.values()) < 4.0
    assert 70 < np.mean(list(means.values())) < 150


# --- People -------------------------------------------------------------------------------------------------------


def test_a_number_is_one_person() -> None:
    assert vars(Person(0, 5)) == vars(Person(0, 5))
    assert vars(Person(0, 5)) != vars(Person(0, 6))
    assert vars(Person(0, 5)) != vars(Person(1, 5))


def test_images_of_a_person_resemble_each_other_more_than_images_of_others(studio) -> None:
    people = [Person(0, number) for number in range(12)]
    moods = [draw_units(0, index, NAMES[index]) for index in range(4)]
    images = np.array([[paint(someone, studio, mood, 48) for mood in moods] for someone in people], float)
    same = np.abs(images - images.mean(axis=1, keepdims=True)).mean()
    others = np.abs(images - images.mean(axis=0, keepdims=True)).mean()
    assert 3 * same < others


def test_people_are_of_all_kinds() -> None:
    people = [Person(0, number) for number in range(400)]
    brightness = np.array([sum(someone.skin) / 3 for someone in people])
    assert brightness.min() < 75
    assert brightness.max() > 200
    assert len({someone.hair_style for someone in people}) == 12
    assert {someone.beard for someone in people} == {"none", "stubble", "full", "goatee", "moustache"}
    assert {someone.glasses for someone in people} == {"none", "thin", "thick", "round", "dark"}


# --- Action units -------------------------------------------------------------------------------------------------


def change(person, studio, units: np.ndarray) -> np.ndarray:
    """Mean absolute change [48, 48] of the image by the units."""
    still, moved = paint(person, studio, AT_REST, 48), paint(person, studio, units, 48)
    return np.abs(moved.astype(int) - still).mean(axis=-1)


BROWS, EYES, MOUTH = (slice(11, 19), slice(8, 40)), (slice(18, 25), slice(8, 40)), (slice(32, 44), slice(12, 36))


@pytest.mark.parametrize(
    ("unit", "most", "least"),
    [
        ("au1", BROWS, MOUTH),
        ("au2", BROWS, MOUTH),
        ("au4", BROWS, MOUTH),
        ("au5", EYES, MOUTH),
        ("au7", EYES, MOUTH),
        ("au43", EYES, MOUTH),
        ("au12", MOUTH, BROWS),
        ("au15", MOUTH, BROWS),
        ("au20", MOUTH, BROWS),
        ("au23", MOUTH, BROWS),
        ("au25", MOUTH, BROWS),
        ("au26", MOUTH, BROWS),
    ],
)
def test_a_unit_moves_its_part_of_the_face(person, studio, unit: str, most, least) -> None:
    moved = change(person, studio, active(**{unit: 1.0}))
    assert moved[most].mean() > 1.0
    assert moved[most].mean() > 4 * moved[least].mean()


def test_every_unit_is_seen(person, studio) -> None:
    for unit in AU_NAMES:
        base = active(au25=1.0) if unit == 16 else AT_REST
        units = base.copy()
        units[AU_ROW[unit]] = 1.0
        before, after = (paint(person, studio, state, 48).astype(int) for state in (base, units))
        assert np.abs(after - before).max() > 15, AU_NAMES[unit]


def corners(person, units: np.ndarray) -> np.ndarray:
    """Mouth corners [left, right] x [x, y]."""
    return Face(person, units).path("lip_upper")[[0, -1], :2]


def test_units_move_the_curves_in_the_right_direction(person) -> None:
    rest = Face(person, AT_REST)
    still = corners(person, AT_REST)
    smile, frown = corners(person, active(au12=1.0)), corners(person, active(au15=1.0))
    assert (smile[:, 1] < still[:, 1] - 0.08).all()  # up is negative
    assert np.ptp(smile[:, 0]) > 1.2 * np.ptp(still[:, 0])  # wider
    assert (frown[:, 1] > still[:, 1] + 0.05).all()

    half_smile = corners(person, active(au12=(1.0, 0.0)))
    np.testing.assert_allclose(half_smile[1], still[1])
    np.testing.assert_allclose(half_smile[0], smile[0])

    def height(name: str, units: np.ndarray) -> float:
        return float(Face(person, units).path(name)[:, 1].mean())

    assert height("brow_left", active(au1=1.0)) < height("brow_left", AT_REST) < height("brow_left", active(au4=1.0))
    assert height("lid_left", active(au5=1.0)) < height("lid_left", AT_REST) < height("lid_left", active(au43=1.0))
    jaw = Face(person, active(au26=1.0))
    assert jaw.path("head")[:, 1].max() > rest.path("head")[:, 1].max() + 0.1
    assert jaw.path("lip_lower")[6, 1] - jaw.path("lip_upper")[6, 1] > 0.15


def test_a_symmetric_face_is_its_own_mirror_image(person, studio) -> None:
    even = replace(person, parting=0.0)
    for name in NAMES:
        geometry = Face(even, complete_units(name))
        left, right = geometry.path("lid_left"), geometry.path("lid_right")[::-1]
        np.testing.assert_allclose(left * [-1, 1, 1], right, atol=1e-12)
        np.testing.assert_allclose(geometry.path("brow_left") * [-1, 1, 1], geometry.path("brow_right"), atol=1e-12)
    one_sided, other_side = active(au12=(1.0, 0.2), au1=(0.0, 0.8)), active(au12=(0.2, 1.0), au1=(0.8, 0.0))
    mirrored = corners(even, one_sided)[::-1] * [-1, 1]
    np.testing.assert_allclose(mirrored, corners(even, other_side), atol=1e-12)


def test_turning_the_head_moves_the_nose_before_the_ears(person, studio) -> None:
    face = Face(person, AT_REST)
    ahead, aside = project(face, studio, 96), project(face, replace(studio, yaw=0.4), 96)
    shift = {name: (aside[name] - ahead[name])[:, 0].mean() for name in ("nose_tip", "lip_upper", "ear_left")}
    assert shift["nose_tip"] > shift["lip_upper"] > shift["ear_left"]
    rolled = project(face, replace(studio, roll=0.3), 96)
    assert rolled["iris_right"][0, 1] > rolled["iris_left"][0, 1]  # clockwise


@pytest.mark.parametrize("name", NAMES)
def test_units_are_intensities_around_the_expression(name: str) -> None:
    draws = np.array([draw_units(0, index, name) for index in range(300)])
    assert draws.min() >= 0
    assert draws.max() <= 1
    mean, complete = draws.mean(axis=(0, 2)), complete_units(name)[:, 0]
    assert (mean[complete >= 0.8] > 0.5).all()
    quiet = complete == 0
    quiet[[AU_ROW[25], AU_ROW[26]]] = False  # speech
    assert (mean[quiet] < 0.12).all()
    assert (draws[:, :, 0] != draws[:, :, 1]).any()  # faces are not symmetric


# --- Errors and sizes ---------------------------------------------------------------------------------------------


def test_an_unknown_expression_names_those_that_exist() -> None:
    with pytest.raises(ValueError, match=r"unknown expression 'smug': expected one of neutral, happy, .*anger"):
        render_faces(0, [0], ["smug"], [0])


@pytest.mark.parametrize("size", [24, 40, 100, 256])
def test_the_image_is_the_same_at_every_size(size: int, person, studio) -> None:
    units = complete_units("surprise")
    drawn = paint(person, studio, units, size)
    assert drawn.shape == (size, size, 3)
    reference = cv2.resize(paint(person, studio, units, 256), (24, 24), interpolation=cv2.INTER_AREA).astype(float)
    small = cv2.resize(drawn, (24, 24), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - reference).mean() < 8


@pytest.mark.parametrize("occluder", ["hand", "strand", "mask", "object", "edge"])
def test_occluders_cover_a_part_of_the_image(occluder: str, person, studio) -> None:
    free = paint(person, studio, AT_REST, 48).astype(int)
    covered = paint(person, replace(studio, occluder=occluder), AT_REST, 48).astype(int)
    share = (np.abs(covered - free).max(axis=-1) > 8).mean()
    assert 0.01 < share < 0.5


def test_a_greyscale_scene_has_no_colour(person, studio) -> None:
    grey = paint(person, replace(studio, greyscale=True), AT_REST, 48)
    assert (grey == grey[..., :1]).all()
