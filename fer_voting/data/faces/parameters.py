"""The parameters of a drawn face: who it is, what it does, and where it is seen.

    who    Person(seed, number)                   shape, skin, hair, beard, glasses, age, face at rest
    what   draw_units(seed, index, expression)    intensity of every facial action unit, left and right
    where  Scene(seed, index)                     pose, light, background, occlusion, camera

Only the action units depend on the expression: nothing but the face itself reveals the class. Lengths are in
face units: the skull's top is y = -1 and an average chin y = 1 (see geometry.py).

Action units (AU) and the expressions made of them: Ekman & Friesen, Facial Action Coding System (1978), and the
prototypes in the Investigator's Guide to its edition of 2002.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Colour = tuple[float, float, float]  # RGB, 0 to 255

# First word of the key of every random generator.
_WHO, _WHAT, _WHERE = range(3)

# --- What ---------------------------------------------------------------------------------------------------------

AU_NAMES = {
    1: "inner brow raiser", 2: "outer brow raiser", 4: "brow lowerer", 5: "upper lid raiser", 6: "cheek raiser",
    7: "lid tightener", 9: "nose wrinkler", 10: "upper lip raiser", 12: "lip corner puller",
    15: "lip corner depressor", 16: "lower lip depressor", 17: "chin raiser", 20: "lip stretcher",
    23: "lip tightener", 25: "lips part", 26: "jaw drop", 43: "eyes closed",
}  # fmt: skip
AU_ROW = {unit: row for row, unit in enumerate(AU_NAMES)}

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


def complete_units(expression: str) -> Array:
    """The complete, symmetric expression: [len(AU_NAMES), 2]. ValueError if there is none of that name."""
    if expression not in EXPRESSION_UNITS:
        raise ValueError(f"unknown expression {expression!r}: expected one of {', '.join(EXPRESSION_UNITS)}")
    units = EXPRESSION_UNITS[expression]
    return np.array([[units.get(unit, 0.0)] * 2 for unit in AU_NAMES])


def draw_units(seed: int, index: int, expression: str) -> Array:
    """Intensities of the action units in image `index`: [len(AU_NAMES), 2] (left, right), each 0 to 1.

    The expression has a strength; its units vary around it and some are missing. Every face also moves a little in
    units that its expression does not have, mostly when it speaks or blinks. So classes overlap: a weak smile is
    close to neutral, fear without stretched lips to surprise.
    """
    complete = complete_units(expression)
    rng = np.random.default_rng((_WHAT, seed, index))
    count = len(AU_NAMES)
    strength = 0.52 + 0.48 * rng.beta(2.0, 1.0)
    varied = strength * rng.uniform(0.7, 1.2, count) * (rng.random(count) > 0.07)
    noise = np.abs(rng.normal(0.0, 0.05, count)) + rng.uniform(0, 0.45, count) * (rng.random(count) < 0.04)
    speaking, blinking = rng.random(2) < (0.12, 0.03)
    noise[AU_ROW[25]] += speaking * rng.uniform(0.2, 0.9)
    noise[AU_ROW[26]] += speaking * rng.uniform(0.0, 0.5)
    noise[AU_ROW[43]] += blinking * rng.uniform(0.5, 1.0)
    both = complete * varied[:, None]
    lopsided = rng.normal(0.0, 0.12) + rng.normal(0.0, 0.06, count)
    sides = 1.0 + lopsided[:, None] * np.array([-1.0, 1.0])
    return np.clip(np.maximum(both, noise[:, None]) * sides, 0.0, 1.0)


# Each unit's share in valence and arousal at full intensity, chosen so that complete expressions lie where Russell's
# circumplex (1980) has their names: happy (0.8, 0.4), sad (-0.7, -0.4), surprise (0, 0.8), fear (-0.5, 1),
# disgust (-1, 0.2), anger (-0.7, 0.7).
UNIT_VALENCE = {
    4: -0.3, 6: 0.1, 7: -0.1, 9: -0.4, 10: -0.2, 12: 0.7, 15: -0.5, 16: -0.2, 17: -0.1, 20: -0.3, 23: -0.3,
}  # fmt: skip
UNIT_AROUSAL = {
    2: 0.15, 4: 0.1, 5: 0.4, 6: 0.1, 7: 0.15, 9: 0.2, 10: 0.1, 12: 0.2, 15: -0.35, 17: -0.05, 20: 0.2, 23: 0.3, 25: 0.1,
    26: 0.25, 43: -0.4,
}  # fmt: skip


def valence_and_arousal(units: Array) -> tuple[float, float]:
    """Valence and arousal, -1 to 1, of a face with these units [len(AU_NAMES), 2]: weighted sums of the intensities,
    mean over left and right, clipped."""
    intensities = units.mean(axis=1)

    def sum_of(weights: dict[int, float]) -> float:
        total = sum(weight * intensities[AU_ROW[unit]] for unit, weight in weights.items())
        return float(np.clip(total, -1, 1))

    return sum_of(UNIT_VALENCE), sum_of(UNIT_AROUSAL)


# --- Who ----------------------------------------------------------------------------------------------------------

# From very light to very dark; a person's skin lies between two neighbours.
_SKIN = np.array([
    (234, 208, 190), (229, 194, 170), (226, 184, 152), (206, 160, 124),
    (176, 128, 94), (142, 98, 70), (110, 73, 52), (80, 53, 41),
])  # fmt: skip
# Black to blond and red, then the greys.
_HAIR = np.array([
    (24, 20, 20), (44, 31, 26), (76, 51, 36), (112, 78, 50), (166, 126, 80), (206, 174, 122), (140, 66, 38),
    (150, 148, 146), (214, 212, 208),
])  # fmt: skip
# Brown to green, blue and grey.
_IRIS = np.array([(44, 28, 20), (78, 50, 30), (110, 84, 46), (88, 112, 84), (86, 124, 150), (112, 128, 136)])


@dataclass(frozen=True)
class HairStyle:
    """The shape of hair (or of a cloth) on the head."""

    share: float  # of the people, relative
    volume: float = 0.08  # thickness above the skull
    hairline: float = -0.60  # height y above the nose
    sides: float = 0.02  # height y where it ends before the ears
    back: float = 0.0  # height y where it ends behind the head; 0: not seen
    arch: float = 2.4  # low: the hairline is a pointed arch, high: a flat fringe
    curl: float = 0.0  # waviness of the outline
    cloth: bool = False


HAIR_STYLES = {
    "bald": HairStyle(0.7, volume=0.0),
    "cropped": HairStyle(1.5, volume=0.03, hairline=-0.64),
    "receding": HairStyle(0.7, volume=0.04, hairline=-0.82, arch=1.6),
    "short": HairStyle(2.4, volume=0.13, hairline=-0.58),
    "fringe": HairStyle(1.3, volume=0.12, hairline=-0.40, sides=0.1, arch=5.0),
    "bob": HairStyle(1.3, volume=0.15, hairline=-0.56, sides=0.5, back=0.85, arch=3.2),
    "long": HairStyle(2.0, volume=0.12, hairline=-0.62, sides=0.5, back=1.6, arch=2.8),
    "tied": HairStyle(1.0, volume=0.05, hairline=-0.62, arch=2.0),
    "curly": HairStyle(1.3, volume=0.26, hairline=-0.54, sides=0.05, back=0.55, curl=0.045),
    "afro": HairStyle(0.7, volume=0.36, hairline=-0.58, sides=0.05, back=0.3, curl=0.03),
    "cap": HairStyle(0.4, volume=0.10, hairline=-0.46, sides=-0.12, arch=4.0, cloth=True),
    "headscarf": HairStyle(0.5, volume=0.10, hairline=-0.52, sides=0.75, back=1.6, arch=3.6, cloth=True),
}


def mix(a: Sequence[float], b: Sequence[float], share_of_b: float) -> Colour:
    """Colour between `a` and `b`."""
    red, green, blue = (x + (y - x) * share_of_b for x, y in zip(a, b, strict=True))
    return red, green, blue


def colour(values: Array) -> Colour:
    """Colour of an array [3], clipped to 0 to 255."""
    red, green, blue = np.clip(values, 0, 255).tolist()
    return red, green, blue


def any_colour(rng: np.random.Generator) -> Colour:
    """A colour of cloth, walls and objects, rarely a saturated one."""
    grey = rng.uniform(25, 225)
    return colour(grey + rng.uniform(-95, 95, 3) * rng.uniform(0.1, 1.0))


def _choose(rng: np.random.Generator, shares: dict[str, float]) -> str:
    """A random name, by relative shares; uses one random number."""
    ends = np.cumsum(list(shares.values()))
    return tuple(shares)[int(np.searchsorted(ends, rng.random() * ends[-1]))]


_HAIR_SHARES = {name: style.share for name, style in HAIR_STYLES.items()}
_BEARD_SHARES = {"none": 0.4, "stubble": 0.15, "full": 0.25, "goatee": 0.1, "moustache": 0.1}
_GLASSES_SHARES = {"thin": 0.40, "thick": 0.30, "round": 0.24, "dark": 0.06}


class Person:
    """The person with this number (>= 0): the same one in every image drawn with `seed`.

    Lengths are in face units, heights are offsets from the average, the rest are factors or shares.
    """

    def __init__(self, seed: int, number: int) -> None:
        rng = np.random.default_rng((_WHO, seed, number))
        uniform, normal = rng.uniform, rng.normal
        tone, age, manly = uniform(), uniform() ** 1.3, uniform()
        place = tone * (len(_SKIN) - 1.001)
        row = int(place)
        skin = colour(_SKIN[row] + (_SKIN[row + 1] - _SKIN[row]) * (place - row) + normal(0, 4, 3))
        style = _choose(rng, _HAIR_SHARES)
        if HAIR_STYLES[style].back > 0.8:  # seldom seen with a beard
            manly *= 0.6
        # Dark skin mostly goes with dark hair and eyes, and age with grey hair.
        if age > 0.72 and uniform() < 0.7:
            row = int(rng.integers(7, 9))
        else:
            row = int(rng.integers(0, 7) * max(0.2, 1 - 1.3 * tone))
        natural = colour(_HAIR[row] * uniform(0.8, 1.15))
        dyed = any_colour(rng)
        self.age, self.skin, self.hair_style = age, skin, style
        self.hair = dyed if HAIR_STYLES[style].cloth or uniform() < 0.03 else natural
        self.beard = _choose(rng, _BEARD_SHARES) if manly > 0.55 else "none"
        self.glasses = _choose(rng, _GLASSES_SHARES) if uniform() < 0.18 + 0.15 * age else "none"
        self.lip = mix(skin, (150, 62, 66) if tone < 0.6 else (114, 54, 56), uniform(0.35, 0.6))
        if manly < 0.45:
            self.lip = mix(self.lip, (176, 32, 52), uniform(0.0, 0.6) * uniform())
        self.width = uniform(0.64, 0.76)  # half the head's
        self.jaw_square = uniform(1.85, 2.2) + 0.4 * manly  # exponent of the jaw's superellipse, 2: round
        self.jaw_taper = uniform(0.04, 0.24)
        self.chin = uniform(0.93, 1.05)
        self.blush = uniform(0.2, 1.0) * (1 - 0.6 * tone)
        self.hair_shift = normal(0, 0.03) - 0.05 * manly * (age > 0.6)
        self.parting = normal(0, 0.12)
        self.grooming = mix(natural, skin, uniform(0.0, 0.25))  # brows and beard
        self.clothes = any_colour(rng)
        self.iris = colour(_IRIS[int(rng.integers(0, 6) * max(0.3, 1 - tone))] * uniform(0.85, 1.15))
        self.beard_cover = uniform(0.15, 0.35) if self.beard == "stubble" else uniform(0.45, 0.95)
        self.glasses_colour = mix(any_colour(rng), (22, 20, 20), uniform(0.5, 1.0))
        self.eye_distance = uniform(0.285, 0.325)
        self.eye_width = uniform(0.145, 0.172)
        self.eye_open = uniform(0.88, 1.28) - 0.1 * age
        self.eye_tilt = normal(0.012, 0.012)
        self.lashes = uniform(0.3, 1.0) - 0.3 * manly
        self.brow_height = normal(0, 0.018)
        self.brow_thick = uniform(0.035, 0.06) + 0.02 * manly
        self.brow_arch = uniform(0.2, 1.2)
        self.brow_tilt = normal(0, 0.018)
        self.nose_width = uniform(0.8, 1.3)
        self.nose_length = uniform(0.92, 1.08)
        self.mouth_width = uniform(0.22, 0.27)
        self.mouth_height = normal(0, 0.012)
        self.mouth_droop = normal(0.004, 0.018)  # of the corners at rest
        self.lip_full = uniform(0.65, 1.35) - 0.15 * age


# --- Where --------------------------------------------------------------------------------------------------------

_BACKDROP_SHARES = {"gradient": 1.0, "texture": 1.0, "clutter": 1.0}
_OCCLUDER_SHARES = {"none": 0.82, "hand": 0.05, "strand": 0.04, "mask": 0.01, "object": 0.04, "edge": 0.04}


class Scene:
    """Pose, light, background, occlusion and camera of image `index` (>= 0)."""

    def __init__(self, seed: int, index: int) -> None:
        rng = np.random.default_rng((_WHERE, seed, index))
        uniform, normal = rng.uniform, rng.normal
        lamp = (normal(0, 0.7), normal(-0.4, 0.5), uniform(0.5, 1.2))
        far = (lamp[0] ** 2 + lamp[1] ** 2 + lamp[2] ** 2) ** 0.5
        self.lamp = (lamp[0] / far, lamp[1] / far, lamp[2] / far)  # direction to it, unit length
        warmth, tinge = normal(0, 0.06), normal(0, 0.015)  # lamps are yellow to blue, seldom green
        self.cast = (math.exp(warmth), math.exp(tinge), math.exp(-warmth))  # factor per colour channel
        self.yaw = min(max(normal(0, 0.20), -0.55), 0.55)  # radians, like pitch and roll
        self.pitch = min(max(normal(0, 0.11), -0.3), 0.3)
        self.roll = normal(0, 0.09)
        self.zoom = uniform(0.84, 1.08)
        self.shift = (normal(0, 0.03), normal(0, 0.03))  # in face units, like gaze
        self.gaze = (normal(0, 0.025), normal(0, 0.010))
        self.contrast = uniform(0.15, 0.75)  # share of the light that comes from the lamp
        self.exposure = uniform(0.85, 1.2)
        self.gamma = uniform(0.85, 1.2)
        self.backdrop = _choose(rng, _BACKDROP_SHARES)
        self.occluder = _choose(rng, _OCCLUDER_SHARES)
        self.blur = uniform(0.3, 0.9) if uniform() < 0.2 else 0.0  # sigma in pixels of a 48-pixel image
        self.detail = uniform(0.5, 0.8) if uniform() < 0.12 else 1.0  # share of the resolution that the camera keeps
        self.noise = uniform(0.5, 7.0) if uniform() < 0.6 else 0.5  # sigma in grey levels
        self.jpeg_quality = int(rng.integers(35, 90)) if uniform() < 0.4 else 100  # 100: not compressed
        self.greyscale = bool(uniform() < 0.2)
        self.texture_key = int(rng.integers(2**31))  # of the generator of background, hair, occluder and noise
