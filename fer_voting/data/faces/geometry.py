"""The face as curves: a person and action units in, named paths on a three-dimensional head out.

Coordinates: x to the right of the image, y down, z to the camera. The skull's top is y = -1, an average chin
y = 1, the eyes lie near y = 0. "left" and "right" are the image's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.faces.parameters import AU_NAMES, HAIR_STYLES, Array, Person, Scene

Units = dict[int, float]  # intensity by action unit, of one side or the mean of both
Point = tuple[float, float]

_ALONG = np.linspace(-1.0, 1.0, 13)  # lids and lips, corner to corner
_BOW = 1 - _ALONG**2
_CURVE = np.linspace(0.0, 1.0, 7)
# Weights of three points that a parabola goes through at 0, 1/2 and 1: [7, 3].
_PARABOLA = np.stack([(1 - _CURVE) * (1 - 2 * _CURVE), 4 * _CURVE * (1 - _CURVE), _CURVE * (2 * _CURVE - 1)], axis=1)
_BROW_PROFILE = 0.6 * (0.65 + 1.1 * _CURVE - 1.5 * _CURVE**2)
_TURNS = np.linspace(0.0, 2 * np.pi, 14, endpoint=False)
CIRCLE = np.stack([np.cos(_TURNS), np.sin(_TURNS)], axis=1)
_ROUND = np.linspace(0.0, 2 * np.pi, 48, endpoint=False)
_ACROSS = np.linspace(-1.0, 1.0, 17)  # hairline
_HALF_TURN = np.linspace(-1.0, 1.0, 33)


@dataclass(frozen=True)
class Geometry:
    """One face: all paths in `points` [P, 3], each path's place in `spans`, and its shading.

    `relief` has soft areas from -1 (dark) to 1 (bright), `wrinkles` lines from 0 to 1 (dark), both by path name.
    """

    points: Array
    spans: dict[str, slice]
    relief: dict[str, float]
    wrinkles: dict[str, float]

    def path(self, name: str) -> Array:
        """Points [n, 3] of one path."""
        return self.points[self.spans[name]]


class Sketch:
    """Collects a face's paths, curves as control points, so that `geometry` computes them all at once."""

    def __init__(self) -> None:
        self._curves: dict[str, tuple[Point, Point, Point]] = {}
        self._ovals: dict[str, tuple[Point, Point]] = {}
        self._paths: dict[str, Array] = {}
        self._outlines: dict[str, Array] = {}
        self._relief: dict[str, float] = {}
        self._wrinkles: dict[str, float] = {}

    def wrinkle(self, name: str, darkness: float, start: Point, middle: Point, end: Point) -> None:
        """Add a line through three points of the face, if it is dark enough to be seen."""
        if darkness > 0.05:
            self._curves[name] = (start, middle, end)
            self._wrinkles[name] = min(darkness, 1.0)

    def oval(self, name: str, centre: Point, radii: Point, relief: float = 0.0) -> None:
        """Add an ellipse on the face."""
        self._ovals[name] = (centre, radii)
        if relief:
            self._relief[name] = relief

    def path(self, name: str, points: Array, relief: float = 0.0, wrinkle: float = 0.0) -> None:
        """Add a path [n, 2] on the face."""
        self._paths[name] = points
        if relief:
            self._relief[name] = relief
        if wrinkle:
            self._wrinkles[name] = wrinkle

    def outline(self, name: str, points: Array) -> None:
        """Add a path [n, 2] around the head, in the plane through the ears."""
        self._outlines[name] = points

    def geometry(self) -> Geometry:
        """The finished face."""
        curves = _PARABOLA @ np.array(list(self._curves.values()))  # [C, 7, 2]
        ovals = np.array(list(self._ovals.values()))  # [O, 2, 2]
        rings = ovals[:, None, 0] + CIRCLE * ovals[:, None, 1]
        surface = np.concatenate([curves.reshape(-1, 2), rings.reshape(-1, 2), *self._paths.values()])
        outline = np.concatenate(list(self._outlines.values()))
        points = np.concatenate([_on_face(surface), _around_head(outline)])
        lengths = {name: len(_CURVE) for name in self._curves} | {name: len(CIRCLE) for name in self._ovals}
        lengths |= {name: len(path) for name, path in (self._paths | self._outlines).items()}
        spans, start = {}, 0
        for name, length in lengths.items():
            spans[name] = slice(start, start + length)
            start += length
        return Geometry(points, spans, self._relief, self._wrinkles)


def _on_face(points: Array) -> Array:
    """[n, 2] -> [n, 3]: on half a barrel with a nose."""
    x, y = points[:, 0], points[:, 1]
    nose = np.clip((y + 0.1) / 0.42, 0, 1) * np.clip((0.47 - y) / 0.1, 0, 1) * np.exp(-((x / 0.11) ** 2))
    z = 0.55 * np.sqrt(np.maximum(1 - (x / 0.85) ** 2, 0)) - 0.12 * y**2 + 0.15 * nose
    return np.column_stack([points, z])


def _around_head(points: Array) -> Array:
    """[n, 2] -> [n, 3]: through the ears, the chin before them."""
    x, y = points[:, 0], points[:, 1]
    z = 0.33 * np.clip(y, 0, 1) ** 2 * np.clip(1 - np.abs(x) / 0.7, 0, 1)
    return np.column_stack([points, z])


class _Mouth(NamedTuple):
    """The corners' distances (left, right) from the middle, their heights, and the height of the mouth's centre."""

    half: Point
    corner: Point
    centre: float


def face_geometry(person: Person, units: Array) -> Geometry:
    """The curves of `person`'s face with the action units `units` [len(AU_NAMES), 2] active."""
    sides = [dict(zip(AU_NAMES, row, strict=True)) for row in units.T.tolist()]
    both = dict(zip(AU_NAMES, units.mean(axis=1).tolist(), strict=True))
    sketch = Sketch()
    head = _head(sketch, person, both)
    mouth = _mouth(sketch, person, both, sides)
    for side, (name, away) in enumerate((("left", -1.0), ("right", 1.0))):
        _cheek(sketch, person, sides[side], name, away, mouth.half[side], mouth.corner[side])
        _brow(sketch, person, sides[side], name, away)
        _eye(sketch, person, sides[side], name, away)
        _nose_side(sketch, person, sides[side], name, away)
    _middle(sketch, person, both)
    if HAIR_STYLES[person.hair_style].volume > 0:
        _hair(sketch, person)
    if person.beard != "none":
        _beard(sketch, person, mouth, head)
    if person.glasses != "none":
        _glasses(sketch, person)
    return sketch.geometry()


def _jaw(both: Units) -> float:
    return 0.20 * both[26]


def _head(sketch: Sketch, person: Person, both: Units) -> Array:
    """Skull and jaw, a circle above and a superellipse below; neck, ears and clothes. Returns the first [48, 2]."""
    sine, down = np.sin(_ROUND), -np.cos(_ROUND)
    power = np.where(down > 0, 2 / person.jaw_square, 1.0)
    down = np.sign(down) * np.abs(down) ** power
    below = np.clip(down, 0, 1)
    x = np.sign(sine) * np.abs(sine) ** power * person.width * (1 - person.jaw_taper * below**1.5)
    y = down * np.where(down > 0, person.chin, 1.0)
    x *= 1 + 0.03 * both[12] * np.clip(1 - np.abs(y - 0.35) / 0.3, 0, 1)
    y += _jaw(both) * np.clip((y - 0.4) / 0.5, 0, 1)
    head = _points(x, y)
    sketch.outline("head", head)
    neck = [(0.40, 0.5), (0.43, 1.05), (1.3, 1.35), (1.3, 2.2)]
    sketch.outline("neck", np.array(neck + [(-x, y) for x, y in reversed(neck)]))
    collar = [(0.42, 1.14), (1.5, 1.5), (1.5, 2.4)]
    sketch.outline("clothes", np.array([(0.0, 1.32), *collar, *((-x, y) for x, y in reversed(collar))]))
    for name, away in (("left", -1), ("right", 1)):
        sketch.outline(f"ear_{name}", CIRCLE * [0.085, 0.17] + [away * person.width * 0.985, 0.10])
    return head


def _mouth(sketch: Sketch, person: Person, both: Units, sides: list[Units]) -> _Mouth:
    """Lips, teeth and tongue. AU12 pulls the corners up and out, AU15 down, AU20 out; AU25, 26, 16, 10 open."""
    jaw = _jaw(both)
    centre = 0.60 + person.mouth_height + 0.3 * jaw - 0.015 * both[17]
    rounding = 0.22 * both[26] * (1 - both[20]) * (1 - both[12])
    half = [
        person.mouth_width * (1 + 0.30 * au[12] + 0.30 * au[20] + 0.03 * au[15] - 0.20 * both[23] - rounding)
        for au in sides
    ]
    corner = [
        centre + person.mouth_droop - 0.120 * au[12] + 0.088 * au[15] + 0.035 * au[20] + 0.35 * jaw for au in sides
    ]
    gap = both[25] * (0.055 + 0.05 * both[12] + 0.03 * both[20]) + 1.15 * jaw + 0.055 * both[16] + 0.03 * both[10]
    gap = max(0.0, gap - 0.05 * both[23] - 0.03 * both[17])
    upper_y = centre - 0.25 * gap - 0.06 * both[10] - 0.03 * both[9] + 0.012 * both[12] + 0.005
    lower_y = upper_y + gap
    thin = person.lip_full * (1 - 0.62 * both[23])
    upper_full = 0.052 * thin * (1 - 0.3 * both[12] - 0.15 * both[20])
    lower_full = 0.078 * thin * (1 - 0.15 * both[12] + 0.25 * both[17] - 0.1 * both[16])

    left = _ALONG < 0
    x = np.where(left, half[0], half[1]) * _ALONG
    ends = np.where(left, corner[0], corner[1])
    distance = np.abs(_ALONG)
    upper = upper_y + (ends - upper_y) * distance ** (1.9 + 0.4 * both[10] + 0.8 * both[26])
    lower = lower_y + (ends - lower_y) * distance ** (2.6 + 1.2 * both[16] + 0.6 * both[20] + 0.8 * both[26])
    cupid = 1 - 0.22 * np.exp(-((_ALONG / 0.16) ** 2))
    sketch.path("lip_upper", _points(x, upper))
    sketch.path("lip_lower", _points(x, lower))
    sketch.path("lip_top", _points(x, upper - upper_full * cupid * _BOW**0.75 - 0.004))
    sketch.path("lip_bottom", _points(x, lower + lower_full * _BOW**0.8 + 0.004))
    sketch.path("lip_shine", _points(x * 0.5, lower + lower_full * 0.45)[4:-4])

    reach = _BOW**0.3
    teeth = min(gap * 0.6, 0.04 + 0.055 * both[12] + 0.035 * both[10] + 0.02 * both[20] + 0.02 * both[26])
    lower_teeth = min(gap * 0.35, 0.07 * both[16] + 0.05 * both[20])
    sketch.path("teeth", _strip(x, upper, upper + teeth * reach))
    sketch.path("lower_teeth", _strip(x, lower - lower_teeth * reach, lower))
    sketch.oval("tongue", (0.0, lower_y + 0.01), (0.3 * (half[0] + half[1]), 0.42 * gap + 1e-3))
    sketch.oval(
        "under_lip", (0.0, lower_y + lower_full + 0.05 - 0.02 * both[17]), (0.15, 0.03), -0.24 - 0.15 * both[17]
    )
    return _Mouth((half[0], half[1]), (corner[0], corner[1]), centre)


def _points(x: Array, y: Array) -> Array:
    """[n], [n] -> [n, 2]. np.stack would take a twentieth of the time of the whole image."""
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def _strip(x: Array, upper: Array, lower: Array) -> Array:
    return _points(np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]]))


def _cheek(sketch: Sketch, person: Person, au: Units, name: str, away: float, half: float, corner: float) -> None:
    """AU6 and AU12 lift the cheek; the fold from nose to mouth deepens with AU9, 10, 12, 20 and with age."""
    wing = _wing(person, au)
    wing_y = _tip(person) - 0.045 * au[9]
    smile = au[12]
    sketch.oval(f"socket_{name}", (away * person.eye_distance, -0.055), (0.19, 0.11), -0.20 - 0.12 * au[4])
    sketch.oval(f"under_cheek_{name}", (away * 0.46, 0.58), (0.09, 0.16), -0.15 - 0.10 * smile)
    lifted = 0.31 - 0.06 * smile - 0.03 * au[6]
    sketch.oval(f"cheek_{name}", (away * 0.37, lifted), (0.14, 0.10), 0.12 + 0.10 * smile + 0.08 * au[6])
    sketch.oval(f"blush_{name}", (away * 0.40, lifted + 0.02), (0.17, 0.12))
    sketch.wrinkle(
        f"nasolabial_{name}",
        0.06 + 0.30 * person.age + 0.38 * smile + 0.42 * au[9] + 0.22 * au[10] + 0.15 * au[20],
        (away * (wing + 0.02), wing_y),
        (away * (half * 0.95 + 0.03 + 0.03 * smile), (wing_y + corner) / 2),
        (away * (half + 0.055), corner + 0.02),
    )
    sketch.wrinkle(
        f"marionette_{name}",
        0.45 * au[15] + 0.3 * max(0.0, person.age - 0.5),
        (away * (half + 0.015), corner),
        (away * (half + 0.049), corner + 0.04),
        (away * (half + 0.060), corner + 0.085),
    )


def _brow(sketch: Sketch, person: Person, au: Units, name: str, away: float) -> None:
    """AU1 lifts the inner end, AU2 the outer, AU4 lowers and draws together; AU1 and AU4 slant the brow."""
    height = -0.225 + person.brow_height
    lowered = au[4] * (1 - 0.75 * au[1])
    inner = (
        away * (0.125 - 0.04 * au[4]),
        height + person.brow_tilt - 0.125 * au[1] - 0.02 * au[2] + 0.105 * lowered + 0.06 * au[9],
    )
    middle = (
        away * 0.33,
        height - 0.045 * person.brow_arch - 0.07 * au[1] - 0.105 * au[2] + 0.075 * lowered + 0.05 * au[9],
    )
    outer = (away * 0.50, height + 0.045 - person.brow_tilt - 0.10 * au[2] + 0.03 * au[4] + 0.03 * au[1])
    spine = _PARABOLA @ np.array([inner, middle, outer])
    thick = person.brow_thick * _BROW_PROFILE
    sketch.path(f"brow_{name}", _strip(spine[:, 0], spine[:, 1] - thick, spine[:, 1] + thick))
    x = away * 0.05
    frown = 0.55 * au[4] * (0.6 + 0.4 * person.age) + 0.2 * au[9] + 0.25 * max(0.0, person.age - 0.5)
    sketch.wrinkle(f"frown_{name}", frown, (x, -0.29), (x * 0.85, -0.22), (x * 1.3, -0.13))


def _eye(sketch: Sketch, person: Person, au: Units, name: str, away: float) -> None:
    """AU5 lifts the upper lid, AU7 and AU6 narrow the eye from below, AU43 lets the lid fall."""
    age, lowered = person.age, au[4] * (1 - 0.75 * au[1])
    opened = 1 + 0.85 * au[5] * (1 - 0.3 * au[7]) - 0.42 * au[7] - 0.22 * au[6] - 0.25 * lowered
    lift = 0.074 * person.eye_open * opened * (1 - 0.2 * au[9]) * (1 - au[43]) - 0.012 * au[43]
    drop = 0.046 * person.eye_open * (1 + 0.15 * au[5] - 0.55 * au[7] - 0.6 * au[6] - 0.3 * au[9])
    drop = max(drop * (1 - 0.6 * au[43]), 0.004)
    x = away * person.eye_distance + person.eye_width * _ALONG
    slant = (person.eye_tilt + 0.015 * (au[12] - au[1])) * away
    slope = -slant * _ALONG
    sketch.path(f"lid_{name}", _points(x, slope - lift * _BOW**0.8))
    sketch.path(f"below_{name}", _points(x, slope + drop * _BOW))
    fold = 0.035 + 0.02 * person.eye_open - 0.015 * lowered
    crease = _points(x, slope - max(lift, 0.03) * _BOW - fold)[1:-1]
    sketch.path(f"crease_{name}", crease, wrinkle=0.42 + 0.2 * age)
    bag = _points(x, slope + (drop + 0.045 + 0.02 * age) * _BOW)[2:-2]
    sketch.path(f"bag_{name}", bag, wrinkle=min(1.0, 0.10 + 0.3 * age + 0.38 * au[6] + 0.2 * au[7]))
    sketch.path(f"iris_{name}", np.array([[away * person.eye_distance, -0.014]]))
    feet = 0.5 * au[6] * (0.4 + 0.6 * age) + 0.3 * max(0.0, age - 0.4)
    start = person.eye_distance + person.eye_width + 0.025
    for ray, (rise, length) in enumerate(((-0.05, 0.08), (0.01, 0.10), (0.07, 0.09))):
        ends = ((away * start, rise * 0.5), (away * (start + length / 2), rise), (away * (start + length), rise * 1.5))
        sketch.wrinkle(f"crow_{name}_{ray}", feet, *ends)


def _tip(person: Person) -> float:
    return 0.34 * person.nose_length


def _wing(person: Person, au: Units) -> float:
    return 0.115 * person.nose_width * (1 + 0.14 * au[9] + 0.06 * au[12])


def _nose_side(sketch: Sketch, person: Person, au: Units, name: str, away: float) -> None:
    """AU9 pulls the wing of the nose up and folds the bridge."""
    wing, tip = _wing(person, au), _tip(person)
    y = tip - 0.045 * au[9]
    plane = np.array([(0.02, -0.12), (0.11, -0.10), (0.08, 0.10), (wing, tip), (0.03, tip)])
    sketch.path(f"nose_side_{name}", plane * [away, 1.0], relief=-0.14)
    sketch.oval(f"nostril_{name}", (away * wing * 0.48, tip + 0.045 - 0.02 * au[9]), (wing * 0.28, 0.018))
    sketch.wrinkle(
        f"wing_{name}",
        0.42 + 0.25 * au[9],
        (away * wing * 0.82, y - 0.045),
        (away * wing * 1.05, y + 0.01),
        (away * wing * 0.75, y + 0.06),
    )
    for row in range(2):
        x, y = 0.10 + 0.02 * row, 0.02 + 0.075 * row
        ends = ((away * 0.015, y), (away * (x + 0.015) / 2, y - 0.010), (away * x, y - 0.05 + 0.03 * row))
        sketch.wrinkle(f"bridge_{name}_{row}", 0.6 * au[9], *ends)


def _middle(sketch: Sketch, person: Person, both: Units) -> None:
    """Forehead (AU1 and AU2 fold it across), ridge and tip of the nose, chin (AU17 dimples it)."""
    tip = _tip(person) - 0.02 * both[9]
    sketch.path("bridge", np.array([(-0.022, -0.14), (0.022, -0.14), (0.03, tip - 0.07), (-0.03, tip - 0.07)]), 0.20)
    sketch.oval("nose_tip", (0.0, tip - 0.02), (0.045, 0.035), 0.26)
    sketch.oval("under_nose", (0.0, tip + 0.065), (0.11 * person.nose_width, 0.022), -0.26)
    sketch.oval("forehead", (0.0, -0.42), (0.30, 0.12), 0.10)
    chin = person.chin + 0.9 * _jaw(both)
    sketch.oval("chin", (0.0, chin - 0.13 - 0.03 * both[17]), (0.13, 0.07 - 0.01 * both[17]), 0.12)
    for row, x in enumerate((-0.07, 0.0, 0.07)):
        ends = ((x, chin - 0.17), (x * 1.2, chin - 0.14), (x, chin - 0.11))
        sketch.wrinkle(f"chin_{row}", 0.4 * both[17], *ends)
    raised = 0.6 * both[1] + 0.5 * both[2]
    half = 0.22 + 0.12 * both[2]
    for row in range(3):
        y = -0.40 - 0.085 * row - 0.03 * raised
        dip = 0.03 - 0.03 * both[2] + 0.02 * both[1]
        darkness = raised * (0.25 + 0.45 * person.age) + 0.35 * max(0.0, person.age - 0.45)
        sketch.wrinkle(f"forehead_{row}", darkness, (-half, y + dip), (0.0, y), (half, y + dip))


def _hair(sketch: Sketch, person: Person) -> None:
    """From the left side over the top to the right side, and back along the hairline."""
    style, width = HAIR_STYLES[person.hair_style], person.width
    turn = _HALF_TURN * math.acos(-style.sides)
    wave = 1 + style.curl * np.sin(turn * 13)
    # What does not hang down thins out towards the ears.
    volume = style.volume * (1 if style.back else 1 - 0.9 * np.abs(_HALF_TURN) ** 4)
    arc = _points(np.sin(turn) * (width + 0.8 * volume) * wave, -np.cos(turn) * (1 + volume) * wave)
    sketch.outline("hair_outer", arc)
    top = style.hairline + person.hair_shift
    aside = np.minimum(np.abs(_ACROSS - person.parting) / (1 + abs(person.parting)), 1.0)
    y = top + (style.sides - top) * aside**style.arch
    if not style.cloth:
        y = y + (0.008 + style.curl * 0.5) * np.sin(_ACROSS * 29)
    x = _ACROSS * width * (0.99 - 0.05 * np.clip(y, 0, 1))
    sketch.outline("hair_line", _points(x, y)[::-1])
    if style.back:
        broad = width + style.volume + 0.06
        turn = _ACROSS * np.pi / 2
        wave = 1 + style.curl * np.sin(turn * 13)
        crown = _points(np.sin(turn) * broad * wave, -np.cos(turn) * (1 + style.volume) * wave)
        fall = np.array([(0.98, 0.6), (0.85, 1.0), (-0.85, 1.0), (-0.98, 0.6)]) * [broad, style.back]
        sketch.outline("hair_back", np.concatenate([crown, fall]))


def _beard(sketch: Sketch, person: Person, mouth: _Mouth, head: Array) -> None:
    half, centre, tip = sum(mouth.half) / 2, mouth.centre, _tip(person)
    if person.beard == "goatee":
        low = person.chin + 0.03
        sketch.oval("beard", (0.0, (centre + low) / 2 + 0.01), (half * 0.95, (low - centre) / 2 + 0.09))
    elif person.beard == "moustache":
        top = centre - 0.05
        side = [(half * 1.05, sum(mouth.corner) / 2 + 0.01), (0.12, top - 0.075), (0.0, top - 0.06)]
        sketch.path("beard", np.array([*side, *((-x, y) for x, y in side[1::-1]), (0.0, top + 0.01)]))
    else:
        jawline = head[head[:, 1] > 0.12] * [0.99, 1.0]  # from the right ear under the chin to the left ear
        inner = [(-0.50, 0.45), (-0.24, tip + 0.15), (0.0, tip + 0.11), (0.24, tip + 0.15), (0.50, 0.45)]
        sketch.outline("beard", np.concatenate([jawline, np.array(inner)]))


def _glasses(sketch: Sketch, person: Person) -> None:
    radii = (0.20, 0.13) if person.glasses in ("thin", "thick") else (0.19, 0.17)
    square = 1.0 if person.glasses == "round" else 0.6
    rim = np.sign(CIRCLE) * np.abs(CIRCLE) ** square * radii
    for name, away in (("left", -1), ("right", 1)):
        sketch.path(f"lens_{name}", rim + np.array([away * (person.eye_distance + 0.01), 0.025]))
        sketch.path(f"temple_{name}", np.array([(away * 0.50, -0.01), (away * person.width, -0.02)]))
    sketch.path("glasses_bridge", np.array([(-0.125, -0.01), (0.0, -0.035), (0.125, -0.01)]))


SHIFT = 4  # fractional bits of the pixel coordinates
_FACE_CENTRE = np.array([0.0, 0.13, 0.25])


def project(face: Geometry, scene: Scene, canvas_size: int) -> dict[str, NDArray[np.int32]]:
    """The turned head, projected: name -> path [n, 2] in 1/16 pixel of a square of `canvas_size` pixels."""
    sin_y, cos_y = math.sin(scene.yaw), math.cos(scene.yaw)
    sin_p, cos_p = math.sin(scene.pitch), math.cos(scene.pitch)
    sin_r, cos_r = math.sin(scene.roll), math.cos(scene.roll)
    yaw = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    pitch = np.array([[1, 0, 0], [0, cos_p, sin_p], [0, -sin_p, cos_p]])
    roll = np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0]])
    turn = roll @ pitch @ yaw
    scale = canvas_size / 2 * scene.zoom
    # Faces are cropped around their features, which therefore stay in the middle when the head turns.
    origin = canvas_size / 2 + (np.array(scene.shift) - turn @ _FACE_CENTRE) * scale
    points = np.rint((face.points @ (turn.T * scale) + origin) * (1 << SHIFT)).astype(np.int32)
    return {name: points[span] for name, span in face.spans.items()}
