"""The face as curves: a person and action units in, named paths on a three-dimensional head out.

Coordinates: x to the right of the image, y down, z to the camera. The skull's top is y = -1, an average chin
y = 1, the eyes lie near y = 0. "left" and "right" are the image's.
"""

import math

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
SIDES = {"left": -1.0, "right": 1.0}  # and the sign of x there


class Face:
    """The curves of `person`'s face with the action units `units` [len(AU_NAMES), 2] (left, right) active.

    Attributes:
        points: float64 [P, 3], all paths.
        spans: each path's place in `points`, by name.
        relief: soft areas by path name, from -1 (dark) to 1 (bright).
        wrinkles: lines by path name, from 0 to 1 (dark).
    """

    def __init__(self, person: Person, units: Array) -> None:
        self.person = person
        self.relief: dict[str, float] = {}
        self.wrinkles: dict[str, float] = {}
        # Curves and ovals as control points, which are computed all at once, and paths [n, 2] on the face or around
        # the head, in the plane through the ears.
        self._curves: dict[str, list[Point]] = {}
        self._ovals: dict[str, tuple[Point, Point]] = {}
        self._on_face: dict[str, Array] = {}
        self._around_head: dict[str, Array] = {}
        # Added points belong to this side: the end of its name, and the sign of its x.
        self._end, self._away = "", 1.0

        sides = [dict(zip(AU_NAMES, row, strict=True)) for row in units.T.tolist()]
        both = dict(zip(AU_NAMES, units.mean(axis=1).tolist(), strict=True))
        self._jaw = 0.20 * both[26]
        self._tip = 0.34 * person.nose_length
        self._head(both)
        self._mouth(both, sides)
        for au, half, corner, (name, away) in zip(sides, self._half, self._corner, SIDES.items(), strict=True):
            self._end, self._away = f"_{name}", away
            self._cheek(au, half, corner)
            self._brow(au)
            self._eye(au)
            self._nose_side(au)
        self._end, self._away = "", 1.0
        self._middle(both)
        if HAIR_STYLES[person.hair_style].volume > 0:
            self._hair()
        if person.beard != "none":
            self._beard()
        if person.glasses != "none":
            self._glasses()
        self._finish()

    def path(self, name: str) -> Array:
        """Points [n, 3] of one path."""
        return self.points[self.spans[name]]

    def _wrinkle(self, name: str, darkness: float, *points: Point) -> None:
        """Add a line through three points of the face, if it is dark enough to be seen."""
        if darkness > 0.05:
            self._curves[name + self._end] = [(self._away * x, y) for x, y in points]
            self.wrinkles[name + self._end] = min(darkness, 1.0)

    def _oval(self, name: str, centre: Point, radii: Point, relief: float = 0.0) -> None:
        """Add an ellipse on the face."""
        self._ovals[name + self._end] = ((self._away * centre[0], centre[1]), radii)
        if relief:
            self.relief[name + self._end] = relief

    def _path(self, name: str, points: Array, relief: float = 0.0, wrinkle: float = 0.0) -> None:
        """Add a path [n, 2] on the face, which is not mirrored."""
        self._on_face[name + self._end] = points
        if relief:
            self.relief[name + self._end] = relief
        if wrinkle:
            self.wrinkles[name + self._end] = wrinkle

    def _finish(self) -> None:
        """Compute all points. On the face they lie on half a barrel with a nose; around the head, the chin is before
        the ears."""
        curves = _PARABOLA @ np.array(list(self._curves.values()))  # [C, 7, 2]
        ovals = np.array(list(self._ovals.values()))  # [O, 2, 2]
        rings = ovals[:, None, 0] + CIRCLE * ovals[:, None, 1]
        surface = np.concatenate([curves.reshape(-1, 2), rings.reshape(-1, 2), *self._on_face.values()])
        x, y = surface[:, 0], surface[:, 1]
        nose = np.clip((y + 0.1) / 0.42, 0, 1) * np.clip((0.47 - y) / 0.1, 0, 1) * np.exp(-((x / 0.11) ** 2))
        z = 0.55 * np.sqrt(np.maximum(1 - (x / 0.85) ** 2, 0)) - 0.12 * y**2 + 0.15 * nose
        outline = np.concatenate(list(self._around_head.values()))
        x, y = outline[:, 0], outline[:, 1]
        before = 0.33 * np.clip(y, 0, 1) ** 2 * np.clip(1 - np.abs(x) / 0.7, 0, 1)
        self.points = np.concatenate([np.column_stack([surface, z]), np.column_stack([outline, before])])
        lengths = {name: len(_CURVE) for name in self._curves} | {name: len(CIRCLE) for name in self._ovals}
        lengths |= {name: len(path) for name, path in (self._on_face | self._around_head).items()}
        ends = np.cumsum(list(lengths.values())).tolist()
        self.spans = {name: slice(end - n, end) for (name, n), end in zip(lengths.items(), ends, strict=True)}

    def _head(self, both: Units) -> None:
        """Skull and jaw, a circle above and a superellipse below; neck, ears and clothes."""
        person = self.person
        sine, down = np.sin(_ROUND), -np.cos(_ROUND)
        power = np.where(down > 0, 2 / person.jaw_square, 1.0)
        down = np.sign(down) * np.abs(down) ** power
        below = np.clip(down, 0, 1)
        x = np.sign(sine) * np.abs(sine) ** power * person.width * (1 - person.jaw_taper * below**1.5)
        y = down * np.where(down > 0, person.chin, 1.0)
        x *= 1 + 0.03 * both[12] * np.clip(1 - np.abs(y - 0.35) / 0.3, 0, 1)
        y += self._jaw * np.clip((y - 0.4) / 0.5, 0, 1)
        self._around_head["head"] = _points(x, y)
        self._around_head["neck"] = _mirrored([(0.40, 0.5), (0.43, 1.05), (1.3, 1.35), (1.3, 2.2)])
        collar = _mirrored([(0.42, 1.14), (1.5, 1.5), (1.5, 2.4)])
        self._around_head["clothes"] = np.concatenate([[(0.0, 1.32)], collar])
        for name, away in SIDES.items():
            self._around_head[f"ear_{name}"] = CIRCLE * [0.085, 0.17] + [away * person.width * 0.985, 0.10]

    def _mouth(self, both: Units, sides: list[Units]) -> None:
        """Lips, teeth and tongue. AU12 pulls the corners up and out, AU15 down, AU20 out; AU25, 26, 16, 10 open.

        Sets the mouth's height, and of its corners (left, right) the distance from the middle and the height.
        """
        person, jaw = self.person, self._jaw
        self._centre = centre = 0.60 + person.mouth_height + 0.3 * jaw - 0.015 * both[17]
        rounding = 0.22 * both[26] * (1 - both[20]) * (1 - both[12])
        self._half = half = [
            person.mouth_width * (1 + 0.30 * au[12] + 0.30 * au[20] + 0.03 * au[15] - 0.20 * both[23] - rounding)
            for au in sides
        ]
        self._corner = corner = [
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
        self._path("lip_upper", _points(x, upper))
        self._path("lip_lower", _points(x, lower))
        self._path("lip_top", _points(x, upper - upper_full * cupid * _BOW**0.75 - 0.004))
        self._path("lip_bottom", _points(x, lower + lower_full * _BOW**0.8 + 0.004))
        self._path("lip_shine", _points(x * 0.5, lower + lower_full * 0.45)[4:-4])

        reach = _BOW**0.3
        teeth = min(gap * 0.6, 0.04 + 0.055 * both[12] + 0.035 * both[10] + 0.02 * both[20] + 0.02 * both[26])
        lower_teeth = min(gap * 0.35, 0.07 * both[16] + 0.05 * both[20])
        self._path("teeth", _strip(x, upper, upper + teeth * reach))
        self._path("lower_teeth", _strip(x, lower - lower_teeth * reach, lower))
        self._oval("tongue", (0.0, lower_y + 0.01), (0.3 * (half[0] + half[1]), 0.42 * gap + 1e-3))
        y = lower_y + lower_full + 0.05 - 0.02 * both[17]
        self._oval("under_lip", (0.0, y), (0.15, 0.03), -0.24 - 0.15 * both[17])

    def _cheek(self, au: Units, half: float, corner: float) -> None:
        """AU6 and AU12 lift the cheek; the fold from nose to mouth deepens with AU9, 10, 12, 20 and with age."""
        age, smile, wing = self.person.age, au[12], self._wing(au)
        wing_y = self._tip - 0.045 * au[9]
        self._oval("socket", (self.person.eye_distance, -0.055), (0.19, 0.11), -0.20 - 0.12 * au[4])
        self._oval("under_cheek", (0.46, 0.58), (0.09, 0.16), -0.15 - 0.10 * smile)
        lifted = 0.31 - 0.06 * smile - 0.03 * au[6]
        self._oval("cheek", (0.37, lifted), (0.14, 0.10), 0.12 + 0.10 * smile + 0.08 * au[6])
        self._oval("blush", (0.40, lifted + 0.02), (0.17, 0.12))
        fold = 0.06 + 0.30 * age + 0.38 * smile + 0.42 * au[9] + 0.22 * au[10] + 0.15 * au[20]
        middle = (half * 0.95 + 0.03 + 0.03 * smile, (wing_y + corner) / 2)
        self._wrinkle("nasolabial", fold, (wing + 0.02, wing_y), middle, (half + 0.055, corner + 0.02))
        below = ((half + 0.015, corner), (half + 0.049, corner + 0.04), (half + 0.060, corner + 0.085))
        self._wrinkle("marionette", 0.45 * au[15] + 0.3 * max(0.0, age - 0.5), *below)

    def _brow(self, au: Units) -> None:
        """AU1 lifts the inner end, AU2 the outer, AU4 lowers and draws together; AU1 and AU4 slant the brow."""
        person, away = self.person, self._away
        height = -0.225 + person.brow_height
        lowered = au[4] * (1 - 0.75 * au[1])
        inner = height + person.brow_tilt - 0.125 * au[1] - 0.02 * au[2] + 0.105 * lowered + 0.06 * au[9]
        middle = height - 0.045 * person.brow_arch - 0.07 * au[1] - 0.105 * au[2] + 0.075 * lowered + 0.05 * au[9]
        outer = height + 0.045 - person.brow_tilt - 0.10 * au[2] + 0.03 * au[4] + 0.03 * au[1]
        x = (away * (0.125 - 0.04 * au[4]), away * 0.33, away * 0.50)
        spine = _PARABOLA @ np.array([(x[0], inner), (x[1], middle), (x[2], outer)])
        thick = person.brow_thick * _BROW_PROFILE
        self._path("brow", _strip(spine[:, 0], spine[:, 1] - thick, spine[:, 1] + thick))
        frown = 0.55 * au[4] * (0.6 + 0.4 * person.age) + 0.2 * au[9] + 0.25 * max(0.0, person.age - 0.5)
        self._wrinkle("frown", frown, (0.05, -0.29), (0.05 * 0.85, -0.22), (0.05 * 1.3, -0.13))

    def _eye(self, au: Units) -> None:
        """AU5 lifts the upper lid, AU7 and AU6 narrow the eye from below, AU43 lets the lid fall."""
        person, age, lowered = self.person, self.person.age, au[4] * (1 - 0.75 * au[1])
        opened = 1 + 0.85 * au[5] * (1 - 0.3 * au[7]) - 0.42 * au[7] - 0.22 * au[6] - 0.25 * lowered
        lift = 0.074 * person.eye_open * opened * (1 - 0.2 * au[9]) * (1 - au[43]) - 0.012 * au[43]
        drop = 0.046 * person.eye_open * (1 + 0.15 * au[5] - 0.55 * au[7] - 0.6 * au[6] - 0.3 * au[9])
        drop = max(drop * (1 - 0.6 * au[43]), 0.004)
        x = self._away * person.eye_distance + person.eye_width * _ALONG
        slope = -((person.eye_tilt + 0.015 * (au[12] - au[1])) * self._away) * _ALONG
        self._path("lid", _points(x, slope - lift * _BOW**0.8))
        self._path("below", _points(x, slope + drop * _BOW))
        fold = 0.035 + 0.02 * person.eye_open - 0.015 * lowered
        self._path("crease", _points(x, slope - max(lift, 0.03) * _BOW - fold)[1:-1], wrinkle=0.42 + 0.2 * age)
        bag = _points(x, slope + (drop + 0.045 + 0.02 * age) * _BOW)[2:-2]
        self._path("bag", bag, wrinkle=min(1.0, 0.10 + 0.3 * age + 0.38 * au[6] + 0.2 * au[7]))
        self._path("iris", np.array([[self._away * person.eye_distance, -0.014]]))
        feet = 0.5 * au[6] * (0.4 + 0.6 * age) + 0.3 * max(0.0, age - 0.4)
        x0 = person.eye_distance + person.eye_width + 0.025
        for ray, (rise, length) in enumerate(((-0.05, 0.08), (0.01, 0.10), (0.07, 0.09))):
            points = ((x0, rise * 0.5), (x0 + length / 2, rise), (x0 + length, rise * 1.5))
            self._wrinkle(f"crow_{ray}", feet, *points)

    def _wing(self, au: Units) -> float:
        return 0.115 * self.person.nose_width * (1 + 0.14 * au[9] + 0.06 * au[12])

    def _nose_side(self, au: Units) -> None:
        """AU9 pulls the wing of the nose up and folds the bridge."""
        wing, tip = self._wing(au), self._tip
        y = tip - 0.045 * au[9]
        plane = np.array([(0.02, -0.12), (0.11, -0.10), (0.08, 0.10), (wing, tip), (0.03, tip)])
        self._path("nose_side", plane * [self._away, 1.0], relief=-0.14)
        self._oval("nostril", (wing * 0.48, tip + 0.045 - 0.02 * au[9]), (wing * 0.28, 0.018))
        points = ((wing * 0.82, y - 0.045), (wing * 1.05, y + 0.01), (wing * 0.75, y + 0.06))
        self._wrinkle("wing", 0.42 + 0.25 * au[9], *points)
        for row in range(2):
            x, y = 0.10 + 0.02 * row, 0.02 + 0.075 * row
            points = ((0.015, y), ((x + 0.015) / 2, y - 0.010), (x, y - 0.05 + 0.03 * row))
            self._wrinkle(f"bridge_{row}", 0.6 * au[9], *points)

    def _middle(self, both: Units) -> None:
        """Forehead (AU1 and AU2 fold it across), ridge and tip of the nose, chin (AU17 dimples it)."""
        person, tip = self.person, self._tip - 0.02 * both[9]
        self._path("bridge", np.array([(-0.022, -0.14), (0.022, -0.14), (0.03, tip - 0.07), (-0.03, tip - 0.07)]), 0.20)
        self._oval("nose_tip", (0.0, tip - 0.02), (0.045, 0.035), 0.26)
        self._oval("under_nose", (0.0, tip + 0.065), (0.11 * person.nose_width, 0.022), -0.26)
        self._oval("forehead", (0.0, -0.42), (0.30, 0.12), 0.10)
        chin = person.chin + 0.9 * self._jaw
        self._oval("chin", (0.0, chin - 0.13 - 0.03 * both[17]), (0.13, 0.07 - 0.01 * both[17]), 0.12)
        for row, x in enumerate((-0.07, 0.0, 0.07)):
            self._wrinkle(f"chin_{row}", 0.4 * both[17], (x, chin - 0.17), (x * 1.2, chin - 0.14), (x, chin - 0.11))
        raised = 0.6 * both[1] + 0.5 * both[2]
        half = 0.22 + 0.12 * both[2]
        dip = 0.03 - 0.03 * both[2] + 0.02 * both[1]
        darkness = raised * (0.25 + 0.45 * person.age) + 0.35 * max(0.0, person.age - 0.45)
        for row in range(3):
            y = -0.40 - 0.085 * row - 0.03 * raised
            self._wrinkle(f"forehead_{row}", darkness, (-half, y + dip), (0.0, y), (half, y + dip))

    def _hair(self) -> None:
        """From the left side over the top to the right side, and back along the hairline."""
        person, width = self.person, self.person.width
        style = HAIR_STYLES[person.hair_style]
        turn = _HALF_TURN * math.acos(-style.sides)
        # Hair that does not hang down thins out towards the ears.
        volume = style.volume * (1 if style.back else 1 - 0.9 * np.abs(_HALF_TURN) ** 4)
        self._around_head["hair_outer"] = _waves(turn, width + 0.8 * volume, 1 + volume, style.curl)
        top = style.hairline + person.hair_shift
        aside = np.minimum(np.abs(_ACROSS - person.parting) / (1 + abs(person.parting)), 1.0)
        y = top + (style.sides - top) * aside**style.arch
        if not style.cloth:
            y = y + (0.008 + style.curl * 0.5) * np.sin(_ACROSS * 29)
        x = _ACROSS * width * (0.99 - 0.05 * np.clip(y, 0, 1))
        self._around_head["hair_line"] = _points(x, y)[::-1]
        if style.back:
            broad = width + style.volume + 0.06
            crown = _waves(_ACROSS * np.pi / 2, broad, 1 + style.volume, style.curl)
            fall = np.array([(0.98, 0.6), (0.85, 1.0), (-0.85, 1.0), (-0.98, 0.6)]) * [broad, style.back]
            self._around_head["hair_back"] = np.concatenate([crown, fall])

    def _beard(self) -> None:
        person, half, centre = self.person, sum(self._half) / 2, self._centre
        if person.beard == "goatee":
            low = person.chin + 0.03
            self._oval("beard", (0.0, (centre + low) / 2 + 0.01), (half * 0.95, (low - centre) / 2 + 0.09))
        elif person.beard == "moustache":
            top = centre - 0.05
            side = [(half * 1.05, sum(self._corner) / 2 + 0.01), (0.12, top - 0.075), (0.0, top - 0.06)]
            self._path("beard", np.array([*side, *((-x, y) for x, y in side[1::-1]), (0.0, top + 0.01)]))
        else:
            head, y = self._around_head["head"], self._tip + 0.15
            jawline = head[head[:, 1] > 0.12] * [0.99, 1.0]  # from the right ear under the chin to the left ear
            inner = [(-0.50, 0.45), (-0.24, y), (0.0, self._tip + 0.11), (0.24, y), (0.50, 0.45)]
            self._around_head["beard"] = np.concatenate([jawline, np.array(inner)])

    def _glasses(self) -> None:
        person = self.person
        radii = (0.20, 0.13) if person.glasses in ("thin", "thick") else (0.19, 0.17)
        square = 1.0 if person.glasses == "round" else 0.6
        rim = np.sign(CIRCLE) * np.abs(CIRCLE) ** square * radii
        for name, away in SIDES.items():
            self._path(f"lens_{name}", rim + np.array([away * (person.eye_distance + 0.01), 0.025]))
            self._path(f"temple_{name}", np.array([(away * 0.50, -0.01), (away * person.width, -0.02)]))
        self._path("glasses_bridge", np.array([(-0.125, -0.01), (0.0, -0.035), (0.125, -0.01)]))


def _points(x: Array, y: Array) -> Array:
    """[n], [n] -> [n, 2]. np.stack would take a twentieth of the time of the whole image."""
    points = np.empty((len(x), 2))
    points[:, 0], points[:, 1] = x, y
    return points


def _strip(x: Array, upper: Array, lower: Array) -> Array:
    return _points(np.concatenate([x, x[::-1]]), np.concatenate([upper, lower[::-1]]))


def _mirrored(right: list[Point]) -> Array:
    """The points of the right side downwards, then those of the left side upwards."""
    return np.array(right + [(-x, y) for x, y in reversed(right)])


def _waves(turn: Array, width: Array | float, height: Array | float, curl: float) -> Array:
    """An arc over the head, wavy by `curl`."""
    wave = 1 + curl * np.sin(turn * 13)
    return _points(np.sin(turn) * width * wave, -np.cos(turn) * height * wave)


SHIFT = 4  # fractional bits of the pixel coordinates
_FACE_CENTRE = np.array([0.0, 0.13, 0.25])


def project(face: Face, scene: Scene, canvas_size: int) -> dict[str, NDArray[np.int32]]:
    """The turned head, projected: name -> path [n, 2] in 1/16 pixel of a square of `canvas_size` pixels."""
    (sin_y, cos_y), (sin_p, cos_p), (sin_r, cos_r) = (
        (math.sin(angle), math.cos(angle)) for angle in (scene.yaw, scene.pitch, scene.roll)
    )
    yaw = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    pitch = np.array([[1, 0, 0], [0, cos_p, sin_p], [0, -sin_p, cos_p]])
    roll = np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0]])
    turn = roll @ pitch @ yaw
    scale = canvas_size / 2 * scene.zoom
    # Faces are cropped around their features, which therefore stay in the middle when the head turns.
    origin = canvas_size / 2 + (np.array(scene.shift) - turn @ _FACE_CENTRE) * scale
    points = np.rint((face.points @ (turn.T * scale) + origin) * (1 << SHIFT)).astype(np.int32)
    return {name: points[span] for name, span in face.spans.items()}
