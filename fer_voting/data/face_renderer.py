"""Draw faces with expressions: the parametric renderer behind `dataset=faces`.

A picture is made in three steps, each of which reads its own random stream:

    who   Identity   from (seed, identity)            shape, skin, hair, beard, glasses, age, face at rest
    where Scene      from (seed, index)               pose, light, background, occlusion, camera
    what  units      from (seed, index, expression)   intensity of every facial action unit, left and right

`face_geometry` turns (who, what) into curves on a three-dimensional face, `project` turns the head as `where`
says, and `paint` fills the curves at twice the asked resolution, lights them and photographs the result.
Only the action units depend on the expression, so that nothing but the face itself tells the class.

Action units (AU) and the expressions made of them: Ekman & Friesen, Facial Action Coding System (1978), and the
prototypes of Ekman, Friesen & Hager, FACS Investigator's Guide (2002), table 10-1.

Face coordinates: x to the right of the picture, y down, z to the camera. The skull's top is y = -1, the chin of an
average face y = 1, the eyes lie near y = 0. "Left" and "right" are the picture's; arrays [2, ...] hold left, right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Image = NDArray[np.uint8]
Colour = tuple[float, float, float]

# --------------------------------------------------------------------------------------------------------------
# What: expressions as action units
# --------------------------------------------------------------------------------------------------------------

AU_NAMES = {
    1: "inner brow raiser",
    2: "outer brow raiser",
    4: "brow lowerer",
    5: "upper lid raiser",
    6: "cheek raiser",
    7: "lid tightener",
    9: "nose wrinkler",
    10: "upper lip raiser",
    12: "lip corner puller",
    15: "lip corner depressor",
    16: "lower lip depressor",
    17: "chin raiser",
    20: "lip stretcher",
    23: "lip tightener",
    25: "lips part",
    26: "jaw drop",
    43: "eyes closed",
}

# Each class's units and their intensity (0 to 1) when the expression is complete.
EXPRESSION_UNITS: dict[str, dict[int, float]] = {
    "neutral": {},
    "happy": {6: 0.9, 12: 1.0, 25: 0.7},
    "sad": {1: 0.9, 4: 0.6, 15: 1.0, 17: 0.5, 43: 0.2},
    "surprise": {1: 1.0, 2: 1.0, 5: 0.8, 25: 0.8, 26: 1.0},
    "fear": {1: 1.0, 2: 0.6, 4: 0.7, 5: 1.0, 7: 0.4, 20: 0.9, 25: 0.8, 26: 0.4},
    "disgust": {4: 0.4, 6: 0.3, 9: 1.0, 10: 0.7, 15: 0.5, 16: 0.5, 25: 0.4},
    "anger": {4: 1.0, 5: 0.6, 7: 0.8, 17: 0.3, 23: 1.0},
}

_ROW = {unit: row for row, unit in enumerate(AU_NAMES)}
_PROTOTYPES = {
    name: np.array([units.get(unit, 0.0) for unit in AU_NAMES]) for name, units in EXPRESSION_UNITS.items()
}

# Streams of random numbers: the first word of every generator's key.
_IDENTITY, _SCENE, _UNITS = range(3)


def draw_units(seed: int, index: int, expression: str) -> Array:
    """Intensities of the action units in one picture: [len(AU_NAMES), 2] (left, right), each 0 to 1.

    The whole expression has a strength; each of its units varies around it and some stay out; every face also
    moves a little in units that its expression does not have, above all by speaking (lips, jaw) and blinking.
    """
    if expression not in EXPRESSION_UNITS:
        raise ValueError(f"unknown expression {expression!r}: expected one of {', '.join(EXPRESSION_UNITS)}")
    rng = np.random.default_rng((_UNITS, seed, index))
    count = len(AU_NAMES)
    strength = 0.3 + 0.7 * rng.beta(1.5, 1.1)
    varied = rng.uniform(0.55, 1.15, count) * (rng.random(count) > 0.12)
    noise = np.abs(rng.normal(0.0, 0.07, count)) + 0.45 * rng.random(count) * (rng.random(count) < 0.06)
    if rng.random() < 0.2:  # caught speaking
        noise[_ROW[25]] += rng.uniform(0.2, 0.9)
        noise[_ROW[26]] += rng.uniform(0.0, 0.5)
    if rng.random() < 0.03:  # caught blinking
        noise[_ROW[43]] += rng.uniform(0.5, 1.0)
    both = np.maximum(_PROTOTYPES[expression] * strength * varied, noise)
    lean = rng.normal(0.0, 0.12) + rng.normal(0.0, 0.06, count)
    return np.clip(both[:, None] * (1.0 + lean[:, None] * np.array([-1.0, 1.0])), 0.0, 1.0)


# --------------------------------------------------------------------------------------------------------------
# Who: identities
# --------------------------------------------------------------------------------------------------------------

# From very light to very dark; an identity's skin lies between two neighbours.
_SKIN = np.array(
    [(244, 220, 203), (236, 202, 178), (224, 183, 152), (203, 157, 122), (172, 124, 90), (138, 94, 66),
     (104, 68, 48), (72, 48, 37)], dtype=np.float64
)  # fmt: skip
_HAIR = np.array(
    [(22, 19, 20), (42, 30, 25), (74, 50, 35), (112, 78, 50), (168, 128, 80), (208, 176, 124), (138, 62, 34),
     (150, 148, 146), (214, 212, 208)], dtype=np.float64
)  # fmt: skip
_IRIS = np.array(
    [(44, 28, 20), (78, 50, 30), (110, 84, 46), (88, 112, 84), (86, 124, 150), (112, 128, 136)],
    dtype=np.float64,
)


@dataclass(frozen=True)
class HairStyle:
    """Shape of the hair in face units; `hairline` and `sides` are heights y, `back` the lower end behind (0: none)."""

    weight: float
    volume: float = 0.08
    hairline: float = -0.60
    sides: float = -0.10
    back: float = 0.0
    arch: float = 2.4  # exponent of the hairline: low is a pointed arch, high a flat fringe
    curl: float = 0.0
    fabric: bool = False


HAIR_STYLES = {
    "bald": HairStyle(0.7, volume=0.0),
    "cropped": HairStyle(1.6, volume=0.03, hairline=-0.64, sides=-0.2),
    "receding": HairStyle(0.7, volume=0.04, hairline=-0.84, sides=-0.05, arch=1.5),
    "short": HairStyle(2.2, volume=0.12, hairline=-0.58),
    "fringe": HairStyle(1.3, volume=0.12, hairline=-0.40, sides=0.1, arch=5.0),
    "bob": HairStyle(1.2, volume=0.15, hairline=-0.56, sides=0.5, back=0.85, arch=2.0),
    "long": HairStyle(2.0, volume=0.12, hairline=-0.62, sides=0.4, back=1.6, arch=1.8),
    "tied": HairStyle(1.0, volume=0.05, hairline=-0.62, sides=-0.05, arch=2.0),
    "curly": HairStyle(1.2, volume=0.26, hairline=-0.56, sides=0.05, back=0.55, curl=0.045),
    "afro": HairStyle(0.7, volume=0.36, hairline=-0.58, sides=0.0, back=0.3, curl=0.03),
    "cap": HairStyle(0.4, volume=0.12, hairline=-0.46, sides=-0.3, arch=4.0, fabric=True),
    "headscarf": HairStyle(0.6, volume=0.10, hairline=-0.52, sides=0.75, back=1.6, arch=2.6, fabric=True),
}
_STYLE_NAMES = tuple(HAIR_STYLES)
_STYLE_ENDS = np.cumsum([style.weight for style in HAIR_STYLES.values()])


@dataclass(frozen=True)
class Identity:
    """One person. Lengths are in face units, colours RGB 0 to 255, the rest factors around 1 or shares 0 to 1."""

    width: float
    jaw_square: float
    jaw_taper: float
    chin: float
    skin: Colour
    hair: Colour
    hair_style: str
    hair_shift: float
    parting: float
    grooming: Colour  # of brows and beard
    clothes: Colour
    iris: Colour
    lip: Colour
    age: float
    beard: str
    beard_cover: float
    glasses: str
    glasses_colour: Colour
    eye_distance: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    lashes: float
    brow_height: float
    brow_thick: float
    brow_arch: float
    brow_tilt: float
    nose_width: float
    nose_length: float
    mouth_width: float
    mouth_height: float
    lip_full: float
    mouth_rest: float  # corners of the resting mouth, positive hangs


def _colour(values: Array) -> Colour:
    r, g, b = np.clip(values, 0, 255).tolist()
    return (r, g, b)


def _mix(a: Sequence[float], b: Sequence[float], share_b: float) -> Colour:
    """Colour between `a` and `b`."""
    return (a[0] + (b[0] - a[0]) * share_b, a[1] + (b[1] - a[1]) * share_b, a[2] + (b[2] - a[2]) * share_b)


def _between(table: Array, position: float) -> Array:
    """Row of a colour table at a fractional position 0 to 1."""
    place = position * (len(table) - 1)
    row = min(int(place), len(table) - 2)
    return table[row] + (table[row + 1] - table[row]) * (place - row)


def draw_identity(seed: int, identity: int) -> Identity:
    """The person with number `identity` (>= 0): the same for every picture made with `seed`."""
    rng = np.random.default_rng((_IDENTITY, seed, identity))
    uniform, normal = rng.uniform, rng.normal
    tone, age, manly = uniform(), uniform() ** 1.3, uniform()
    skin = _between(_SKIN, tone) + normal(0, 4, 3)
    style = _STYLE_NAMES[int(np.searchsorted(_STYLE_ENDS, uniform(0, _STYLE_ENDS[-1])))]

    # Dark skin goes with dark hair mostly, and old age with grey.
    grey = age > 0.72 and uniform() < 0.7
    natural = (
        _HAIR[int(rng.integers(7, 9))] if grey else _HAIR[int(rng.integers(0, 7) * max(0.2, 1 - 1.3 * tone))]
    )
    natural = natural * uniform(0.8, 1.15)
    hair = rng.uniform(40, 220, 3) if HAIR_STYLES[style].fabric or uniform() < 0.03 else natural

    beard = "none"
    cover = uniform(0.3, 0.95)
    if manly > 0.55 and uniform() < 0.6:
        beard = ("stubble", "full", "full", "goatee", "moustache")[int(rng.integers(5))]
        cover = uniform(0.15, 0.35) if beard == "stubble" else cover
    glasses = "none"
    if uniform() < 0.18 + 0.15 * age:
        glasses = ("thin", "thick", "round", "dark")[int(np.searchsorted([0.4, 0.7, 0.95, 1.0], uniform()))]

    made_up = uniform() * (manly < 0.45)
    lip = np.array(_mix(skin, (150, 62, 66) if tone < 0.6 else (110, 52, 54), uniform(0.35, 0.6)))
    lip = lip + made_up * (np.array([176, 32, 52]) - lip) * uniform(0.1, 0.8)
    return Identity(
        width=uniform(0.64, 0.76),
        jaw_square=uniform(1.85, 2.2) + 0.4 * manly,
        jaw_taper=uniform(0.04, 0.24),
        chin=uniform(0.93, 1.05),
        skin=_colour(skin),
        hair=_colour(hair),
        hair_style=style,
        hair_shift=normal(0, 0.03) - 0.05 * (age > 0.6) * manly,
        parting=normal(0, 0.12),
        grooming=_mix(_colour(natural), skin, uniform(0.0, 0.25)),
        clothes=_colour(rng.uniform(20, 230, 3)),
        iris=_colour(_IRIS[int(rng.integers(0, 6) * max(0.3, 1 - tone))] * uniform(0.85, 1.15)),
        lip=_colour(lip),
        age=age,
        beard=beard,
        beard_cover=cover,
        glasses=glasses,
        glasses_colour=_colour(_mix(rng.uniform(0, 140, 3), (25, 22, 22), uniform(0.3, 1.0))),
        eye_distance=uniform(0.285, 0.325),
        eye_width=uniform(0.145, 0.172),
        eye_open=uniform(0.8, 1.2) - 0.1 * age,
        eye_tilt=normal(0.012, 0.012),
        lashes=uniform(0.3, 1.0) - 0.3 * manly,
        brow_height=normal(0, 0.018),
        brow_thick=uniform(0.035, 0.06) + 0.02 * manly,
        brow_arch=uniform(0.2, 1.2),
        brow_tilt=normal(0, 0.018),
        nose_width=uniform(0.8, 1.3),
        nose_length=uniform(0.92, 1.08),
        mouth_width=uniform(0.22, 0.27),
        mouth_height=normal(0.60, 0.012),
        lip_full=uniform(0.65, 1.35) - 0.15 * age,
        mouth_rest=normal(0.004, 0.018),
    )


# --------------------------------------------------------------------------------------------------------------
# Where: scenes
# --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scene:
    """Everything about a picture that is neither the person nor the expression. Angles in radians."""

    yaw: float
    pitch: float
    roll: float
    zoom: float
    shift: tuple[float, float]  # in face units
    gaze: tuple[float, float]
    light: tuple[float, float, float]  # direction to the lamp, unit length
    contrast: float  # share of the light that has a direction
    exposure: float
    gamma: float
    cast: Colour  # factor per channel
    backdrop: str
    occluder: str
    blur: float  # sigma in pixels of a 48-pixel picture
    detail: float  # share of the resolution that the camera keeps
    noise: float  # sigma, grey levels
    jpeg_quality: int  # 100: not compressed
    greyscale: bool
    texture_key: int  # of the generator of background, occluder and noise


def draw_scene(seed: int, index: int) -> Scene:
    """Pose, light, background, occlusion and camera of picture `index` (>= 0)."""
    rng = np.random.default_rng((_SCENE, seed, index))
    uniform, normal = rng.uniform, rng.normal
    light = np.array([normal(0, 0.7), normal(-0.4, 0.5), uniform(0.5, 1.2)])
    light /= np.linalg.norm(light)
    return Scene(
        yaw=float(np.clip(normal(0, 0.20), -0.55, 0.55)),
        pitch=float(np.clip(normal(0, 0.11), -0.3, 0.3)),
        roll=normal(0, 0.09),
        zoom=uniform(0.84, 1.08),
        shift=(normal(0, 0.03), normal(0, 0.03)),
        gaze=(normal(0, 0.025), normal(0, 0.010)),
        light=(light[0], light[1], light[2]),
        contrast=uniform(0.15, 0.75),
        exposure=uniform(0.82, 1.22),
        gamma=uniform(0.85, 1.2),
        cast=_tuple3(np.exp(normal(0, 0.06, 3))),
        backdrop=("gradient", "texture", "clutter")[int(rng.integers(3))],
        occluder=_OCCLUDER_NAMES[int(np.searchsorted(_OCCLUDER_ENDS, uniform()))],
        blur=uniform(0.3, 1.0) if uniform() < 0.25 else 0.0,
        detail=uniform(0.45, 0.8) if uniform() < 0.15 else 1.0,
        noise=uniform(0.5, 9.0) if uniform() < 0.7 else 0.5,
        jpeg_quality=int(rng.integers(30, 90)) if uniform() < 0.4 else 100,
        greyscale=bool(uniform() < 0.2),
        texture_key=int(rng.integers(2**31)),
    )


def _tuple3(values: Array) -> tuple[float, float, float]:
    a, b, c = values.tolist()
    return (a, b, c)


_OCCLUDER_NAMES = ("none", "hand", "strand", "mask", "object", "edge")
_OCCLUDER_ENDS = np.cumsum([0.82, 0.05, 0.04, 0.01, 0.04, 0.04])

# --------------------------------------------------------------------------------------------------------------
# Geometry: curves on the face
# --------------------------------------------------------------------------------------------------------------

_SIDES = np.array([-1.0, 1.0])
_T = np.linspace(-1.0, 1.0, 13)  # along lids and lips
_BOW = 1.0 - _T**2
_U = np.linspace(0.0, 1.0, 7)  # along brows and wrinkles
_OVAL = np.linspace(0.0, 2 * np.pi, 14, endpoint=False)
_CIRCLE = np.stack([np.cos(_OVAL), np.sin(_OVAL)], axis=-1)
_ROUND = np.linspace(0.0, 2 * np.pi, 48, endpoint=False)
_HAIRLINE = np.linspace(-1.0, 1.0, 17)


def _quadratic(a: Array, b: Array, c: Array, at: Array = _U) -> Array:
    """Curve through a (at=0), b (at=1/2) and c (at=1): inputs [..., 2], output [..., len(at), 2]."""
    wa, wb, wc = (1 - at) * (1 - 2 * at), 4 * at * (1 - at), at * (2 * at - 1)
    return a[..., None, :] * wa[:, None] + b[..., None, :] * wb[:, None] + c[..., None, :] * wc[:, None]


def _pair(x: Array | float, y: Array | float) -> Array:
    """Points [2, 2] on both sides from distances x to the middle and heights y (scalars or [left, right])."""
    points = np.empty((2, 2))
    points[:, 0] = _SIDES * x
    points[:, 1] = y
    return points


def _ovals(centres: Array, rx: float, ry: float) -> Array:
    """Ellipses [..., 14, 2] around centres [..., 2]."""
    return centres[..., None, :] + _CIRCLE * np.array([rx, ry])


def _band(x: Array, y: Array, height: Array) -> Array:
    """Strip between the curve (x, y) and the same curve `height` lower: [2 * len(x), 2]."""
    return np.stack([np.concatenate([x, x[::-1]]), np.concatenate([y, (y + height)[::-1]])], axis=1)


@dataclass(frozen=True)
class Geometry:
    """Curves of one face, each [n, 3] (x, y, z) in face coordinates, by name, and what the painter has to know."""

    paths: dict[str, Array]
    relief: dict[str, float]  # soft areas, by path name: -1 dark to 1 bright
    wrinkles: dict[str, float]  # lines, by path name: darkness 0 to 1


def face_geometry(person: Identity, units: Array) -> Geometry:
    """Curves of `person`'s face with the action units `units` [len(AU_NAMES), 2] active."""

    def au(unit: int) -> Array:
        return units[_ROW[unit]]

    def both(unit: int) -> float:
        return float(units[_ROW[unit]].mean())

    surface: dict[str, Array] = {}
    outline: dict[str, Array] = {}
    relief: dict[str, float] = {}
    wrinkles: dict[str, float] = {}

    def wrinkle(name: str, darkness: float, start: Array, middle: Array, end: Array) -> None:
        if darkness > 0.05:
            surface[name] = _quadratic(start, middle, end)
            wrinkles[name] = min(darkness, 1.0)

    age = person.age
    jaw = 0.20 * both(26)

    # Brows: AU1 lifts the inner end, AU2 the outer, AU4 lowers and draws together; with AU1 it slants them.
    height = -0.225 + person.brow_height
    lowered = au(4) * (1 - 0.75 * au(1))
    inner = _pair(
        0.125 - 0.04 * au(4),
        height + person.brow_tilt - 0.125 * au(1) - 0.02 * au(2) + 0.105 * lowered + 0.06 * au(9),
    )
    middle = _pair(
        0.33,
        height - 0.045 * person.brow_arch - 0.07 * au(1) - 0.105 * au(2) + 0.075 * lowered + 0.05 * au(9),
    )
    outer = _pair(0.50, height + 0.045 - person.brow_tilt - 0.10 * au(2) + 0.03 * au(4) + 0.03 * au(1))
    spine = _quadratic(inner, middle, outer)
    thick = person.brow_thick * (0.65 + 1.1 * _U - 1.5 * _U**2)
    for side, name in enumerate(("brow_left", "brow_right")):
        upper, lower = spine[side].copy(), spine[side, ::-1].copy()
        upper[:, 1] -= thick * 0.6
        lower[:, 1] += thick[::-1] * 0.6
        surface[name] = np.concatenate([upper, lower])

    # Eyes: AU5 lifts the upper lid, AU7 and AU6 narrow the eye from below, AU43 lets the lid drop.
    closing = np.clip(1 - au(43), 0.0, 1.0)
    lift = (
        0.074
        * person.eye_open
        * (1 + 0.85 * au(5) * (1 - 0.3 * au(7)) - 0.42 * au(7) - 0.22 * au(6) - 0.25 * lowered)
    )
    lift = lift * (1 - 0.2 * au(9)) * closing - 0.012 * au(43)
    drop = 0.046 * person.eye_open * (1 + 0.15 * au(5) - 0.55 * au(7) - 0.8 * au(6) - 0.3 * au(9))
    drop = np.maximum(drop * (0.4 + 0.6 * closing), 0.002)
    for side, name in enumerate(("left", "right")):
        away = _SIDES[side]  # towards the temple
        x = away * person.eye_distance + person.eye_width * _T
        slope = -(person.eye_tilt + 0.015 * (au(12)[side] - au(1)[side])) * away * _T
        lid = slope - lift[side] * _BOW**0.8
        below = slope + drop[side] * _BOW
        surface[f"lid_{name}"] = np.stack([x, lid], axis=1)
        surface[f"below_{name}"] = np.stack([x, below], axis=1)
        fold = 0.035 + 0.02 * person.eye_open - 0.015 * lowered[side]
        surface[f"fold_{name}"] = np.stack([x, slope - np.maximum(lift[side], 0.03) * _BOW - fold], axis=1)[
            1:-1
        ]
        wrinkles[f"fold_{name}"] = 0.45 + 0.2 * age
        bag = drop[side] + 0.045 + 0.02 * age
        surface[f"bag_{name}"] = np.stack([x, slope + bag * _BOW], axis=1)[2:-2]
        wrinkles[f"bag_{name}"] = min(1.0, 0.12 + 0.3 * age + 0.45 * au(6)[side] + 0.25 * au(7)[side])
        for ray, (rise, length) in enumerate(((-0.05, 0.10), (0.01, 0.13), (0.07, 0.11))):
            start = np.array([away * (person.eye_distance + person.eye_width + 0.025), rise * 0.5])
            end = np.array([away * (person.eye_distance + person.eye_width + 0.025 + length), rise * 1.5])
            strength = 0.75 * au(6)[side] * (0.5 + 0.5 * age) + 0.35 * max(0.0, age - 0.4)
            wrinkle(f"crow_{name}_{ray}", strength, start, (start + end) / 2, end)
    surface["iris"] = _pair(person.eye_distance, -0.014)

    # Forehead: AU1 and AU2 fold it across, AU4 between the brows.
    raised = 0.6 * both(1) + 0.5 * both(2)
    for row in range(3):
        y = -0.40 - 0.085 * row - 0.03 * raised
        dip = 0.03 - 0.03 * both(2) + 0.02 * both(1)
        ends = 0.22 + 0.12 * both(2)
        strength = raised * (0.30 + 0.5 * age) + 0.4 * max(0.0, age - 0.45)
        wrinkle(
            f"forehead_{row}",
            strength,
            np.array([-ends, y + dip]),
            np.array([0.0, y]),
            np.array([ends, y + dip]),
        )
    for side, away in enumerate(_SIDES):
        frown = 0.7 * au(4)[side] * (0.6 + 0.4 * age) + 0.2 * au(9)[side] + 0.25 * max(0.0, age - 0.5)
        x = away * 0.05
        wrinkle(
            f"frown_{side}",
            frown,
            np.array([x, -0.29]),
            np.array([x * 0.85, -0.22]),
            np.array([x * 1.3, -0.13]),
        )

    # Nose: AU9 pulls the wings up and folds the bridge.
    tip = 0.34 * person.nose_length - 0.02 * both(9)
    wing = 0.115 * person.nose_width * (1 + 0.14 * both(9) + 0.06 * both(12))
    wing_y = tip + 0.01 - 0.045 * au(9)
    surface["nostrils"] = np.concatenate(
        _ovals(_pair(wing * 0.48, tip + 0.045 - 0.02 * au(9)), wing * 0.3, 0.020)
    )
    wings = _quadratic(
        _pair(wing * 0.82, wing_y - 0.055),
        _pair(wing * 1.05, wing_y + 0.0),
        _pair(wing * 0.75, wing_y + 0.05),
    )
    for side, name in enumerate(("left", "right")):
        surface[f"wing_{name}"] = wings[side]
        wrinkles[f"wing_{name}"] = 0.55 + 0.3 * au(9)[side]
        away = _SIDES[side]
        for row in range(2):
            y = 0.02 + 0.075 * row
            start, end = (
                np.array([away * 0.015, y]),
                np.array([away * (0.10 + 0.02 * row), y - 0.05 + 0.03 * row]),
            )
            wrinkle(f"bridge_{name}_{row}", 0.85 * au(9)[side], start, (start + end) / 2 + [0, 0.012], end)

    # Mouth. The corners go where AU12 (up and out), AU15 (down) and AU20 (out) pull them.
    mouth = person.mouth_height + 0.3 * jaw - 0.015 * both(17)
    half = person.mouth_width * (
        1 + 0.30 * au(12) + 0.30 * au(20) + 0.03 * au(15) - 0.20 * both(23) - 0.22 * both(26) * (1 - both(20))
    )
    corner = mouth + person.mouth_rest - 0.125 * au(12) + 0.100 * au(15) + 0.035 * au(20) + 0.25 * jaw
    gap = (
        both(25) * (0.055 + 0.05 * both(12) + 0.03 * both(20))
        + 1.15 * jaw
        + 0.055 * both(16)
        + 0.03 * both(10)
    )
    gap = max(0.0, gap - 0.05 * both(23) - 0.03 * both(17))
    upper_y = mouth - 0.25 * gap - 0.065 * both(10) - 0.03 * both(9) + 0.012 * both(12) + 0.005
    lower_y = upper_y + gap
    thin = 1 - 0.62 * both(23)
    upper_full = 0.052 * person.lip_full * thin * (1 - 0.3 * both(12) - 0.15 * both(20))
    lower_full = 0.078 * person.lip_full * thin * (1 - 0.15 * both(12) + 0.25 * both(17) - 0.1 * both(16))
    along = np.where(_T < 0, half[0], half[1]) * _T
    ends = np.where(_T < 0, corner[0], corner[1])
    square = 1.0 + 2.0 * both(16) + 1.0 * both(20)  # stretched lips open like a box
    upper_in = upper_y + (ends - upper_y) * np.abs(_T) ** (1.9 + 0.4 * both(10))
    lower_in = lower_y + (ends - lower_y) * np.abs(_T) ** (2.0 + square * 0.6)
    bow = 1 - 0.22 * np.exp(-((_T / 0.16) ** 2))
    upper_out = upper_in - upper_full * bow * _BOW**0.75 - 0.004
    lower_out = lower_in + lower_full * _BOW**0.8 + 0.004
    surface["lip_upper"] = np.stack([along, upper_in], axis=1)
    surface["lip_lower"] = np.stack([along, lower_in], axis=1)
    surface["lip_top"] = np.stack([along, upper_out], axis=1)
    surface["lip_bottom"] = np.stack([along, lower_out], axis=1)
    shine = lower_in + lower_full * 0.45
    surface["lip_shine"] = np.stack([along * 0.5, shine], axis=1)[4:-4]
    teeth = min(gap * 0.6, 0.04 + 0.055 * both(12) + 0.035 * both(10) + 0.02 * both(20) + 0.03 * both(26))
    surface["teeth"] = _band(along, upper_in, teeth * _BOW**0.3)
    surface["lower_teeth"] = _band(
        along, lower_in, -min(gap * 0.35, 0.07 * both(16) + 0.05 * both(20)) * _BOW**0.3
    )
    surface["tongue"] = _ovals(np.array([0.0, lower_y + 0.01]), float(half.mean()) * 0.6, 0.42 * gap)
    surface["under_lip"] = _ovals(np.array([0.0, lower_y + lower_full + 0.05 - 0.02 * both(17)]), 0.15, 0.03)
    surface["chin_ball"] = _ovals(
        np.array([0.0, person.chin - 0.13 + jaw * 0.9 - 0.03 * both(17)]), 0.13, 0.07 - 0.01 * both(17)
    )
    for row, x in enumerate((-0.07, 0.0, 0.07)):
        y = person.chin - 0.17 + jaw
        wrinkle(
            f"chin_{row}",
            0.45 * both(17),
            np.array([x, y]),
            np.array([x * 1.2, y + 0.03]),
            np.array([x, y + 0.06]),
        )

    # Cheeks: the fold from nose to mouth deepens with AU9, AU10, AU12 and age; AU6 and AU12 lift the cheek.
    for side, name in enumerate(("left", "right")):
        away = _SIDES[side]
        smile = au(12)[side]
        deep = 0.08 + 0.35 * age + 0.55 * smile + 0.6 * au(9)[side] + 0.3 * au(10)[side] + 0.2 * au(20)[side]
        wrinkle(
            f"nasolabial_{name}",
            deep,
            np.array([away * (wing + 0.02), wing_y[side] - 0.02]),
            np.array(
                [away * (half[side] * 0.95 + 0.03 + 0.03 * smile), (wing_y[side] + corner[side]) / 2 - 0.01]
            ),
            np.array([away * (half[side] + 0.055), corner[side] + 0.02]),
        )
        corner_at = np.array([away * (half[side] + 0.015), corner[side]])
        down = np.array([away * 0.045, 0.095])
        wrinkle(
            f"marionette_{name}",
            0.6 * au(15)[side] + 0.3 * max(0.0, age - 0.5),
            corner_at,
            corner_at + down * 0.5 + np.array([away * 0.012, 0.0]),
            corner_at + down,
        )
        surface[f"cheek_{name}"] = _ovals(
            np.array([away * 0.37, 0.30 - 0.06 * smile - 0.03 * au(6)[side]]), 0.13, 0.09
        )
        surface[f"under_cheek_{name}"] = _ovals(np.array([away * 0.46, 0.56]), 0.09, 0.16)
        surface[f"socket_{name}"] = _ovals(np.array([away * person.eye_distance, -0.055]), 0.19, 0.11)
        surface[f"nose_side_{name}"] = np.array(
            [[0.02, -0.12], [0.11, -0.10], [0.08, 0.10], [wing, tip], [0.03, tip]]
        ) * [away, 1.0]
        relief[f"under_cheek_{name}"] = -0.16 - 0.10 * smile
        relief[f"socket_{name}"] = -0.20 - 0.12 * au(4)[side]
        relief[f"cheek_{name}"] = 0.10 + 0.10 * smile + 0.10 * au(6)[side]
        relief[f"nose_side_{name}"] = -0.14
    surface["bridge"] = np.array([[-0.022, -0.14], [0.022, -0.14], [0.03, tip - 0.07], [-0.03, tip - 0.07]])
    relief |= {"bridge": 0.20, "nose_tip": 0.26, "under_nose": -0.34, "under_lip": -0.26 - 0.15 * both(17)}
    relief |= {"chin_ball": 0.12, "brow_bone": 0.10}
    surface["nose_tip"] = _ovals(np.array([0.0, tip - 0.02]), 0.045, 0.035)
    surface["under_nose"] = _ovals(np.array([0.0, tip + 0.065]), wing * 0.95, 0.022)
    surface["brow_bone"] = _ovals(np.array([0.0, -0.42]), 0.30, 0.12)

    # The head's outline: a superellipse below, a circle above; AU26 lengthens the jaw.
    sine, cosine = np.sin(_ROUND), -np.cos(_ROUND)
    low = cosine > 0
    power = np.where(low, 2 / person.jaw_square, 1.0)
    down = np.sign(cosine) * np.abs(cosine) ** power
    across = (
        np.sign(sine)
        * np.abs(sine) ** power
        * person.width
        * (1 - person.jaw_taper * np.clip(down, 0, 1) ** 1.5)
    )
    head = np.stack([across, np.where(low, down * person.chin, down)], axis=1)
    head[:, 1] += jaw * np.clip((head[:, 1] - 0.4) / 0.5, 0, 1)
    head[:, 0] *= 1 + 0.03 * both(12) * np.clip(1 - np.abs(head[:, 1] - 0.35) / 0.3, 0, 1)
    outline["head"] = head
    outline["neck"] = np.array(
        [
            [-0.44, 0.5],
            [0.44, 0.5],
            [0.46, 1.05],
            [1.3, 1.35],
            [1.3, 2.2],
            [-1.3, 2.2],
            [-1.3, 1.35],
            [-0.46, 1.05],
        ]
    )
    outline["clothes"] = np.array(
        [[-0.42, 1.14], [0.0, 1.32], [0.42, 1.14], [1.5, 1.5], [1.5, 2.4], [-1.5, 2.4], [-1.5, 1.5]]
    )
    outline["ears"] = np.concatenate(_ovals(_pair(person.width * 0.985, 0.10), 0.085, 0.17))

    _add_hair(person, surface, outline)
    _add_beard(person, head, corner, half, mouth, tip, surface)
    if person.glasses != "none":
        lens = np.array([0.20, 0.17 if person.glasses in ("round", "dark") else 0.13])
        square = 1.0 if person.glasses == "round" else 0.6
        rim = np.sign(_CIRCLE) * np.abs(_CIRCLE) ** square * lens
        for side, name in enumerate(("left", "right")):
            surface[f"lens_{name}"] = rim + np.array([_SIDES[side] * (person.eye_distance + 0.01), 0.025])
        surface["glasses_bridge"] = np.array([[-0.125, -0.01], [0.0, -0.035], [0.125, -0.01]])
        for side, name in enumerate(("left", "right")):
            surface[f"temple_{name}"] = np.array(
                [[_SIDES[side] * 0.50, -0.01], [_SIDES[side] * person.width, -0.02]]
            )

    return Geometry(_with_depth(surface, outline), relief, wrinkles)


def _add_hair(person: Identity, surface: dict[str, Array], outline: dict[str, Array]) -> None:
    style = HAIR_STYLES[person.hair_style]
    if style.volume == 0.0:
        return
    width = person.width
    # From the left side over the top to the right side, and back along the hairline.
    reach = np.arccos(np.clip(-style.sides, -0.95, 0.95))
    angle = np.linspace(-reach, reach, 33)
    wave = 1 + style.curl * np.sin(angle * 13)
    outer = np.stack(
        [np.sin(angle) * (width + style.volume * 0.8) * wave, -np.cos(angle) * (1 + style.volume) * wave],
        axis=1,
    )
    top = style.hairline + person.hair_shift
    side = np.abs(_HAIRLINE - person.parting) / (1 + np.abs(person.parting))
    y = top + (style.sides - top) * np.clip(side, 0, 1) ** style.arch
    x = _HAIRLINE * width * (0.985 - 0.05 * np.clip(y, 0, 1))
    outline["hair_outer"] = outer
    outline["hair_line"] = np.stack([x, y], axis=1)[::-1]
    if style.back > 0:
        broad = width + style.volume + 0.06
        dense = np.linspace(-np.pi / 2, np.pi / 2, 17)
        wavy = 1 + style.curl * np.sin(dense * 13)
        crown = np.stack([np.sin(dense) * broad * wavy, -np.cos(dense) * (1 + style.volume) * wavy], axis=1)
        lower = np.array(
            [
                [broad * 0.98, style.back * 0.6],
                [broad * 0.85, style.back],
                [-broad * 0.85, style.back],
                [-broad * 0.98, style.back * 0.6],
            ]
        )
        outline["hair_back"] = np.concatenate([crown, lower])


def _add_beard(
    person: Identity,
    head: Array,
    corner: Array,
    half: Array,
    mouth: float,
    tip: float,
    surface: dict[str, Array],
) -> None:
    if person.beard in ("stubble", "full"):
        jawline = head[(head[:, 1] > 0.12)]  # from the right ear under the chin to the left ear
        inner = np.array(
            [[-0.42, 0.42], [-0.24, tip + 0.13], [0.0, tip + 0.10], [0.24, tip + 0.13], [0.42, 0.42]]
        )
        surface["beard"] = np.concatenate([jawline * [0.99, 1.0], inner])
    elif person.beard == "goatee":
        y = float(head[:, 1].max())
        surface["beard"] = _ovals(
            np.array([0.0, (mouth + y) / 2 + 0.01]), float(half.mean()) * 0.95, (y - mouth) / 2 + 0.09
        )
    elif person.beard == "moustache":
        upper = mouth - 0.05
        surface["beard"] = np.array(
            [[-half[0] * 1.05, corner[0] + 0.01], [-0.12, upper - 0.075], [0.0, upper - 0.06], [0.12, upper - 0.075],
             [half[1] * 1.05, corner[1] + 0.01], [0.1, upper + 0.01], [-0.1, upper + 0.01]]
        )  # fmt: skip


def _with_depth(surface: dict[str, Array], outline: dict[str, Array]) -> dict[str, Array]:
    """Add z: points of the surface lie on a cylinder-like face with a nose, outlines in the plane through the ears."""
    flat = np.concatenate(list(surface.values()))
    x, y = flat[:, 0], flat[:, 1]
    nose = np.clip((y + 0.1) / 0.42, 0, 1) * np.clip((0.47 - y) / 0.1, 0, 1) * np.exp(-((x / 0.11) ** 2))
    z = 0.55 * np.sqrt(np.maximum(1 - (x / 0.85) ** 2, 0)) - 0.12 * y**2 + 0.15 * nose
    rim = np.concatenate(list(outline.values()))
    rim_z = 0.33 * np.clip(rim[:, 1], 0, 1) ** 2 * np.clip(1 - np.abs(rim[:, 0]) / 0.7, 0, 1)
    points = np.concatenate([np.column_stack([flat, z]), np.column_stack([rim, rim_z])])
    return _split(points, {**surface, **outline})


def _split(points: NDArray, like: dict[str, Array]) -> dict[str, NDArray]:
    """Cut concatenated `points` into arrays as long as those of `like`."""
    paths, start = {}, 0
    for name, path in like.items():
        paths[name] = points[start : start + len(path)]
        start += len(path)
    return paths


_SHIFT = 4  # fractional bits of OpenCV's coordinates
_FACE_CENTRE_Y = 0.13  # of the crop, in face coordinates


def project(paths: dict[str, Array], scene: Scene, canvas: int) -> dict[str, NDArray[np.int32]]:
    """Paths [n, 3] in the picture: [n, 2] fixed-point pixels (1/16) of a square of `canvas` pixels."""
    sin_y, cos_y = np.sin(scene.yaw), np.cos(scene.yaw)
    sin_p, cos_p = np.sin(scene.pitch), np.cos(scene.pitch)
    sin_r, cos_r = np.sin(scene.roll), np.cos(scene.roll)
    yaw = np.array([[cos_y, 0, sin_y], [0, 1, 0], [-sin_y, 0, cos_y]])
    pitch = np.array([[1, 0, 0], [0, cos_p, sin_p], [0, -sin_p, cos_p]])
    roll = np.array([[cos_r, -sin_r, 0], [sin_r, cos_r, 0], [0, 0, 1]])
    turn = (roll @ pitch @ yaw)[:2]
    # Face detectors centre the features, which a turn moves against the skull.
    centre = turn @ np.array([0.0, _FACE_CENTRE_Y, 0.25])
    pixels = canvas / 2 * scene.zoom
    points = (np.concatenate(list(paths.values())) @ turn.T - centre + scene.shift) * pixels + canvas / 2
    return _split(np.rint(points * (1 << _SHIFT)).astype(np.int32), paths)


# --------------------------------------------------------------------------------------------------------------
# Painting
# --------------------------------------------------------------------------------------------------------------

_RELIEF_TINT = np.array([0.85, 1.0, 1.08])  # shadows on skin are warm: red falls less
_RELIEF_TABLE = np.clip(128 + (np.arange(256)[:, None] - 128) * _RELIEF_TINT, 0, 255).astype(np.uint8)[None]


def _fill(canvas: Image, path: NDArray[np.int32], colour: Colour | float) -> None:
    cv2.fillPoly(canvas, [path], colour, cv2.LINE_AA, _SHIFT)


def _stroke(
    canvas: Image, path: NDArray[np.int32], colour: Colour | float, width: float, closed: bool = False
) -> None:
    cv2.polylines(canvas, [path], closed, colour, max(1, round(width)), cv2.LINE_AA, _SHIFT)


def _blend(canvas: Image, over: Image, mask: Image, opacity: float = 1.0) -> None:
    """Lay `over` on `canvas` where `mask` [H, W] (0 to 255) is."""
    weight = mask.astype(np.float32) * np.float32(opacity / 255)
    cv2.blendLinear(over, canvas, weight, 1 - weight, canvas)


def _soften(canvas: NDArray, sigma: float) -> NDArray:
    return cv2.GaussianBlur(canvas, (0, 0), sigma)


def paint(person: Identity, scene: Scene, units: Array, size: int = 48) -> Image:
    """The picture [size, size, 3] RGB of `person` in `scene` with the action units `units` [len(AU_NAMES), 2]."""
    canvas_size = 2 * size
    pen = canvas_size / 96  # widths below are for a picture of 48 pixels, drawn at 96
    rng = np.random.default_rng(scene.texture_key)
    face = face_geometry(person, units)
    at = project(face.paths, scene, canvas_size)

    canvas = _backdrop(scene, rng, canvas_size)
    _paint_head(canvas, person, at)
    _paint_relief(canvas, face, scene, at, pen)
    if "beard" in at:
        _paint_beard(canvas, person, at, pen)
    _paint_features(canvas, person, scene, at, pen)
    if person.glasses != "none":
        _paint_glasses(canvas, person, at, pen)
    if "hair_line" in at:
        _paint_hair(canvas, person, rng, at, pen)
    if scene.occluder != "none":
        _occlude(canvas, person, scene, rng, at, pen)
    return _photograph(canvas, scene, rng, size)


def _backdrop(scene: Scene, rng: np.random.Generator, canvas_size: int) -> Image:
    cells = int(rng.integers(4, 16)) if scene.backdrop == "texture" else 2
    base = rng.uniform(20, 235, 3)
    spread = rng.uniform(10, 60) if cells > 2 else rng.uniform(10, 90)
    grid = np.clip(
        base + rng.normal(0, spread, (cells, cells, 1)) + rng.normal(0, 12, (cells, cells, 3)), 0, 255
    )
    canvas = cv2.resize(grid.astype(np.uint8), (canvas_size, canvas_size), interpolation=cv2.INTER_CUBIC)
    if scene.backdrop == "clutter":
        shapes = rng.integers(0, canvas_size << _SHIFT, (7, 4, 2), dtype=np.int32)
        for shape, colour in zip(shapes, rng.uniform(10, 245, (7, 3)).tolist(), strict=True):
            _fill(canvas, cv2.convexHull(shape), colour)
        canvas = _soften(canvas, float(rng.uniform(0.5, 4.0)) * canvas_size / 96)
    return canvas


def _paint_head(canvas: Image, person: Identity, at: dict[str, NDArray[np.int32]]) -> None:
    dark_skin = _mix(person.skin, (40, 18, 14), 0.22)
    if "hair_back" in at:
        _fill(canvas, at["hair_back"], _mix(person.hair, (0, 0, 0), 0.25))
    _fill(canvas, at["neck"], _mix(person.skin, (40, 18, 14), 0.35))
    _fill(canvas, at["clothes"], person.clothes)
    if HAIR_STYLES[person.hair_style].sides < 0.3:
        for ear in (at["ears"][: len(_CIRCLE)], at["ears"][len(_CIRCLE) :]):
            _fill(canvas, ear, dark_skin)
    _fill(canvas, at["head"], person.skin)


def _paint_relief(
    canvas: Image, face: Geometry, scene: Scene, at: dict[str, NDArray[np.int32]], pen: float
) -> None:
    """Light and shadow of the face's forms: soft areas and wrinkles as one factor on the skin's colour."""
    soft = np.full(canvas.shape[:2], 128, np.uint8)
    for name, height in face.relief.items():
        if name.startswith("nose_side"):  # one side of the nose is in the shade
            away = -1.0 if name.endswith("left") else 1.0
            height -= 0.5 * scene.contrast * max(0.0, -away * scene.light[0])
        _fill(soft, at[name], 128 + 110 * height)
    soft = _soften(soft, 2.2 * pen)
    lines = np.zeros_like(soft)
    for name, darkness in face.wrinkles.items():
        _stroke(lines, at[name], 95 * darkness, 1.6 * pen)
    relief = cv2.subtract(soft, _soften(lines, 0.7 * pen))
    factor = cv2.LUT(cv2.cvtColor(relief, cv2.COLOR_GRAY2RGB), _RELIEF_TABLE)
    cv2.multiply(canvas, factor, canvas, scale=1 / 128)


def _paint_beard(canvas: Image, person: Identity, at: dict[str, NDArray[np.int32]], pen: float) -> None:
    mask = np.zeros(canvas.shape[:2], np.uint8)
    _fill(mask, at["beard"], 255)
    over = np.empty_like(canvas)
    over[:] = np.round(person.grooming)
    _blend(canvas, over, _soften(mask, 1.8 * pen), person.beard_cover)


def _paint_features(
    canvas: Image, person: Identity, scene: Scene, at: dict[str, NDArray[np.int32]], pen: float
) -> None:
    """Brows, eyes, nostrils and mouth."""
    line = _mix(person.skin, (25, 10, 10), 0.72)
    brow = _mix(person.grooming, person.skin, 0.12)
    _fill(canvas, at["brow_left"], brow)
    _fill(canvas, at["brow_right"], brow)
    upper_lip = np.concatenate([at["lip_top"], at["lip_upper"][::-1]])
    lower_lip = np.concatenate([at["lip_lower"], at["lip_bottom"][::-1]])
    _fill(canvas, upper_lip, _mix(person.lip, (30, 5, 10), 0.16))
    _fill(canvas, lower_lip, person.lip)
    _stroke(canvas, at["lip_shine"], _mix(person.lip, (255, 235, 230), 0.22), pen)

    # What lies behind the lids and lips is painted whole on a second canvas and shows through the openings.
    inside = canvas.copy()
    openings = np.zeros(canvas.shape[:2], np.uint8)
    unit = scene.zoom * canvas.shape[0] / 2 * (1 << _SHIFT)
    gaze = np.rint(np.array(scene.gaze) * unit).astype(np.int32)
    for side, name in enumerate(("left", "right")):
        lid, below = at[f"lid_{name}"], at[f"below_{name}"]
        eye = np.concatenate([lid, below[::-1]])
        _fill(openings, eye, 255)
        _fill(inside, eye, (232, 226, 222))
        centre = at["iris"][side] + gaze
        x, y = centre.tolist()
        for radius, colour in (
            (0.068, _mix(person.iris, (0, 0, 0), 0.45)),
            (0.054, person.iris),
            (0.028, (12, 10, 10)),
        ):
            cv2.circle(inside, (x, y), round(radius * unit), colour, -1, cv2.LINE_AA, _SHIFT)
        _stroke(inside, lid, _mix(person.iris, (60, 45, 45), 0.7), 1.4 * pen)
        glint = round(0.02 * unit)
        cv2.circle(inside, (x + (glint if scene.light[0] > 0 else -glint), y - glint), glint // 2 + 8, (250, 250, 250), -1,
                   cv2.LINE_AA, _SHIFT)  # fmt: skip
    mouth = np.concatenate([at["lip_upper"], at["lip_lower"][::-1]])
    _fill(openings, mouth, 255)
    _fill(inside, mouth, (58, 20, 22))
    _fill(inside, at["tongue"], (168, 82, 84))
    _fill(inside, at["teeth"], (236, 230, 218))
    _fill(inside, at["lower_teeth"], (212, 204, 192))
    _blend(canvas, inside, openings)

    for name in ("left", "right"):
        _stroke(
            canvas,
            at[f"lid_{name}"],
            _mix(line, (15, 8, 8), max(0.0, person.lashes)),
            (1.2 + person.lashes) * pen,
        )
        _stroke(canvas, at[f"below_{name}"], _mix(person.skin, line, 0.45), pen)
    _stroke(canvas, at["lip_upper"], _mix(person.lip, (30, 5, 10), 0.62), 1.3 * pen)
    half = len(_CIRCLE)
    _fill(canvas, at["nostrils"][:half], line)
    _fill(canvas, at["nostrils"][half:], line)


def _paint_glasses(canvas: Image, person: Identity, at: dict[str, NDArray[np.int32]], pen: float) -> None:
    colour = person.glasses_colour
    lenses = (at["lens_left"], at["lens_right"])
    over = canvas.copy()
    for lens in lenses:
        _fill(over, lens, colour if person.glasses == "dark" else (225, 235, 240))
    cv2.addWeighted(
        over,
        0.92 if person.glasses == "dark" else 0.10,
        canvas,
        0.90 if person.glasses != "dark" else 0.08,
        0,
        canvas,
    )
    width = (2.4 if person.glasses == "thick" else 1.3) * pen
    for name in ("glasses_bridge", "temple_left", "temple_right"):
        _stroke(canvas, at[name], colour, width)
    for lens in lenses:
        _stroke(canvas, lens, colour, width, closed=True)


def _paint_hair(
    canvas: Image, person: Identity, rng: np.random.Generator, at: dict[str, NDArray[np.int32]], pen: float
) -> None:
    outer, line = at["hair_outer"], at["hair_line"]
    _stroke(canvas, line, _mix(person.skin, (30, 14, 12), 0.35), 2 * pen)  # its shadow on the forehead
    _fill(canvas, np.concatenate([outer, line]), person.hair)
    ends = len(line)
    places = rng.integers(1, ends - 1, 9)
    roots = line[::-1][places]
    tips = outer[np.clip(places * 2 + rng.integers(-2, 3, 9), 0, len(outer) - 1)]
    strands = np.stack([roots + (tips - roots) // 8, tips - (tips - roots) // 8], axis=1)
    cv2.polylines(
        canvas,
        list(strands[:5]),
        False,
        _mix(person.hair, (255, 240, 220), 0.14),
        round(2 * pen),
        cv2.LINE_AA,
        _SHIFT,
    )
    cv2.polylines(
        canvas,
        list(strands[5:]),
        False,
        _mix(person.hair, (0, 0, 0), 0.3),
        round(2 * pen),
        cv2.LINE_AA,
        _SHIFT,
    )


def _occlude(
    canvas: Image,
    person: Identity,
    scene: Scene,
    rng: np.random.Generator,
    at: dict[str, NDArray[np.int32]],
    pen: float,
) -> None:
    """Something before the face: own hand, a strand of hair, a mask, any object, or the edge of the photograph."""
    one = canvas.shape[0] << _SHIFT  # side of the picture
    if scene.occluder == "hand":
        palm = np.array([rng.choice([0.22, 0.78]), rng.uniform(0.85, 1.05)]) * one
        lean = (0.5 - palm[0] / one) * rng.uniform(0.2, 1.2)
        for outline in (True, False):
            colour = _mix(person.skin, (40, 18, 14), 0.5 if outline else 0.08)
            extra = 2 if outline else 0
            for finger in range(4):
                spread = lean + (finger - 1.5) * 0.16
                knuckle = palm + np.array([(finger - 1.5) * 0.065, -0.05]) * one
                tip = knuckle + np.array([np.sin(spread), -np.cos(spread)]) * one * (
                    0.30 - 0.03 * abs(finger - 1.5)
                )
                ends = np.rint([knuckle, tip]).astype(np.int32)
                _stroke(canvas, ends, colour, 6 * pen + extra)
            cv2.circle(
                canvas, tuple(np.rint(palm).astype(int).tolist()), one // 7, colour, -1, cv2.LINE_AA, _SHIFT
            )
    elif scene.occluder == "strand":
        x = rng.uniform(0.25, 0.75)
        swing = rng.normal(0, 0.15, 2)
        curve = _quadratic(
            np.array([x, 0.0]), np.array([x + swing[0], 0.3]), np.array([x + swing[1], rng.uniform(0.5, 0.8)])
        )
        _stroke(canvas, np.rint(curve * one).astype(np.int32), person.hair, float(rng.uniform(2, 6)) * pen)
    elif scene.occluder == "mask":
        colour = _colour(rng.choice(np.array([(150, 190, 215), (235, 238, 240), (40, 42, 48)])))
        chin, brim = at["head"], at["bag_left"]
        low = chin[chin[:, 1] > int(brim[:, 1].mean()) + one // 12]
        hull = cv2.convexHull(np.concatenate([low, at["nose_tip"]]))[:, 0]
        _fill(canvas, hull, colour)
        _stroke(canvas, hull, _mix(colour, (0, 0, 0), 0.3), pen, closed=True)
    elif scene.occluder == "object":
        centre = np.array([rng.uniform(0.1, 0.9), rng.uniform(0.35, 1.0)])
        shape = centre + _CIRCLE * rng.uniform(0.08, 0.2, 2) * rng.uniform(0.8, 1.0, (len(_CIRCLE), 1))
        colour = _colour(rng.uniform(10, 240, 3))
        _fill(canvas, np.rint(shape * one).astype(np.int32), colour)
    elif scene.occluder == "edge":
        width = int(canvas.shape[0] * rng.uniform(0.06, 0.2))
        sides = (canvas[:width], canvas[-width:], canvas[:, :width], canvas[:, -width:])
        sides[int(rng.integers(4))][:] = 0 if rng.random() < 0.7 else 255


def _light_map(scene: Scene, size: int) -> NDArray[np.float32]:
    """Factor [size, size] of a lamp on an ellipsoid as large as the head."""
    x = np.linspace(-1.2, 1.2, size, dtype=np.float32)[None, :]
    y = np.linspace(-0.95, 0.95, size, dtype=np.float32)[:, None]
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0.04))
    lambert = np.maximum(
        x * np.float32(scene.light[0]) + y * np.float32(scene.light[1]) + z * np.float32(scene.light[2]), 0
    )
    return np.float32(1 - scene.contrast) + np.float32(1.25 * scene.contrast) * lambert


def _photograph(canvas: Image, scene: Scene, rng: np.random.Generator, size: int) -> Image:
    """Light the canvas and take the picture: resolution, lens, sensor, compression."""
    picture = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    picture *= (
        _light_map(scene, size)[..., None] * np.array(scene.cast, np.float32) * np.float32(scene.exposure)
    )
    picture = 255 * np.clip(picture / 255, 0, 1) ** np.float32(scene.gamma)
    if scene.detail < 1:
        small = max(8, round(size * scene.detail))
        picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
    if scene.blur > 0:
        picture = _soften(picture, scene.blur * size / 48)
    picture += rng.standard_normal(picture.shape, dtype=np.float32) * np.float32(scene.noise)
    photo = np.clip(picture + 0.5, 0, 255).astype(np.uint8)
    if scene.greyscale:
        photo = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if scene.jpeg_quality < 100:
        stored = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality])[1]
        photo = cv2.imdecode(stored, cv2.IMREAD_COLOR)[..., ::-1]
    return photo


# --------------------------------------------------------------------------------------------------------------
# The public way
# --------------------------------------------------------------------------------------------------------------


def render_faces(
    seed: int,
    indices: Sequence[int],
    expressions: Sequence[str],
    identities: Sequence[int],
    size: int = 48,
    progress: Callable[[int], None] | None = None,
) -> Image:
    """Draw one picture per index.

    Args:
        seed: of the whole data set (>= 0).
        indices: [N] numbers of the pictures (>= 0); each has its own pose, light, background and unit intensities.
        expressions: [N] names out of `EXPRESSION_UNITS`.
        identities: [N] numbers of the persons (>= 0).
        size: side of the pictures in pixels, 24 to 256.

    Returns:
        uint8 [N, size, size, 3], RGB. A picture depends on its own (seed, index, expression, identity, size) only,
        never on the rest of the batch or on a global random state.

    Raises:
        ValueError: unknown expression, size out of range, or lists of different lengths.
    """
    if not 24 <= size <= 256:
        raise ValueError(f"size {size} is out of range: faces are drawn with 24 to 256 pixels a side")
    if not len(indices) == len(expressions) == len(identities):
        raise ValueError(
            f"got {len(indices)} indices, {len(expressions)} expressions and {len(identities)} identities: "
            "expected one of each per picture"
        )
    pictures = np.empty((len(indices), size, size, 3), np.uint8)
    for row, (index, expression, identity) in enumerate(zip(indices, expressions, identities, strict=True)):
        units = draw_units(seed, index, expression)
        pictures[row] = paint(draw_identity(seed, identity), draw_scene(seed, index), units, size)
    return pictures
