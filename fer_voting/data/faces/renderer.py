"""Draw faces with expressions: the parametric renderer behind `dataset=faces`.

parameters.py draws the person, the expression and the scene; geometry.py turns them into curves on a head; here the
curves are painted at a multiple of the requested resolution, lit and photographed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_voting.data.faces.geometry import CIRCLE, SHIFT, SIDES, Face, project
from fer_voting.data.faces.parameters import (
    HAIR_STYLES,
    Array,
    Colour,
    Person,
    Scene,
    any_colour,
    colour,
    draw_units,
    mix,
)

SIZES = range(24, 257)  # sides in pixels that the drawing is made for

Pixels = NDArray[Any]  # uint8 [H, W, 3] or [H, W]
Path = NDArray[np.int32]  # [n, 2] in 1/16 pixel

_BLACK, _SHADE = (0, 0, 0), (40, 18, 14)  # shadows on skin are warm


def render_faces(
    seed: int, indices: Sequence[int], expressions: Sequence[str], people: Sequence[int], size: int = 48
) -> NDArray[np.uint8]:
    """One image per index: uint8 [N, size, size, 3], RGB.

    An image depends on its own (seed, index, expression, person, size) only, never on the rest of the batch or on a
    global random state.

    Args:
        seed: of the whole data set (>= 0).
        indices: [N] numbers of the images (>= 0); each has its own pose, light, background and unit intensities.
        expressions: [N] names out of `EXPRESSION_UNITS`.
        people: [N] numbers of the people (>= 0).
        size: side of the images in pixels, one of SIZES.

    Raises ValueError for an unknown expression, or lists of different lengths.
    """
    return np.array(
        [
            paint(_person(seed, person), Scene(seed, index), draw_units(seed, index, expression), size)
            for index, expression, person in zip(indices, expressions, people, strict=True)
        ]
    )


_person = lru_cache(maxsize=4096)(Person)  # a data set shows each person many times


def paint(person: Person, scene: Scene, units: Array, size: int) -> Pixels:
    """The image [size, size, 3] of `person` in `scene` with the action units `units` [len(AU_NAMES), 2]."""
    rng = np.random.default_rng(scene.texture_key)
    face = Face(person, units)
    canvas_size = size * max(2, math.ceil(96 / size))  # below 96 pixels the thinnest line would be too thick
    paths = project(face, scene, canvas_size)
    canvas = Canvas(_backdrop(scene, rng, canvas_size), paths, pen=canvas_size / 96)
    _paint_head(canvas, person)
    _paint_relief(canvas, face, person, scene)
    if person.beard != "none":
        _paint_beard(canvas, person)
    _paint_features(canvas, person, scene)
    if person.glasses != "none":
        _paint_glasses(canvas, person)
    if "hair_line" in paths:
        _paint_hair(canvas, person, rng)
    if scene.occluder != "none":
        _OCCLUDE[scene.occluder](canvas, person, rng)
    return _photograph(canvas.pixels, person, scene, rng, size)


@dataclass(frozen=True)
class Canvas:
    """Pixels to paint on, the face's paths in them, and the width in pixels of a thin line."""

    pixels: Pixels
    paths: dict[str, Path]
    pen: float

    def fill(self, path: str | Path, paint: Colour | float) -> None:
        points = self.paths[path] if isinstance(path, str) else path
        cv2.fillPoly(self.pixels, [points], _scalar(paint), cv2.LINE_AA, SHIFT)

    def stroke(self, path: str | Path, paint: Colour | float, width: float = 1.0, closed: bool = False) -> None:
        points = self.paths[path] if isinstance(path, str) else path
        thick = max(1, round(width * self.pen))
        cv2.polylines(self.pixels, [points], closed, _scalar(paint), thick, cv2.LINE_AA, SHIFT)

    def dot(self, centre: Path, radius: float, paint: Colour) -> None:
        """A disc; `radius` in 1/16 pixel."""
        x, y = centre.tolist()
        cv2.circle(self.pixels, (x, y), round(radius), paint, -1, cv2.LINE_AA, SHIFT)

    def sheet(self, shade: int | None = None) -> Self:
        """The same paths over a new grey sheet, or over a copy of the pixels."""
        if shade is None:
            return replace(self, pixels=self.pixels.copy())
        return replace(self, pixels=np.full(self.pixels.shape[:2], shade, np.uint8))

    def lay(self, over: Pixels, mask: Pixels, opacity: float = 1.0) -> None:
        """Lay `over` on the pixels where `mask` [H, W] (0 to 255) is."""
        weight = mask.astype(np.float32) * np.float32(opacity / 255)
        cv2.blendLinear(over, self.pixels, weight, 1 - weight, self.pixels)

    def tint(self, paint: Colour, mask: Pixels, opacity: float) -> None:
        """Lay one colour over the pixels."""
        over = np.empty_like(self.pixels)
        over[:] = np.round(paint)
        self.lay(over, mask, opacity)


def _scalar(paint: Colour | float) -> tuple[float, ...]:
    return paint if isinstance(paint, tuple) else (paint,)


def _soften(pixels: Pixels, sigma: float) -> Pixels:
    """Blur by about `sigma` pixels: a stack blur, whose (radius + 1)^2 is 6 sigma^2 + 1, is faster than a Gaussian."""
    radius = max(1, round((6 * sigma**2 + 1) ** 0.5 - 1))
    return cv2.stackBlur(pixels, (2 * radius + 1, 2 * radius + 1))


# --- The image's layers, back to front --------------------------------------------------------------------------


def _backdrop(scene: Scene, rng: np.random.Generator, canvas_size: int) -> Pixels:
    """A wall with a gradient of light, a texture, or objects out of focus."""
    textured = scene.backdrop == "texture"
    cells = int(rng.integers(4, 16)) if textured else 2
    contrast = rng.uniform(10, 45)
    grid = np.array(any_colour(rng)) + rng.normal(0, contrast, (cells, cells, 1)) + rng.normal(0, 6, (cells, cells, 3))
    grid = np.clip(grid, 0, 255).astype(np.uint8)
    pixels: Pixels = cv2.resize(grid, (canvas_size, canvas_size), interpolation=cv2.INTER_CUBIC)
    if scene.backdrop == "clutter":
        for shape in rng.integers(0, canvas_size << SHIFT, (7, 4, 2), dtype=np.int32):
            cv2.fillConvexPoly(pixels, cv2.convexHull(shape), any_colour(rng), cv2.LINE_AA, SHIFT)
        pixels = _soften(pixels, rng.uniform(0.5, 4.0) * canvas_size / 96)
    return pixels


def _paint_head(canvas: Canvas, person: Person) -> None:
    if "hair_back" in canvas.paths:
        canvas.fill("hair_back", mix(person.hair, _BLACK, 0.25))
    canvas.fill("neck", mix(person.skin, _SHADE, 0.35))
    canvas.fill("clothes", person.clothes)
    if HAIR_STYLES[person.hair_style].sides < 0.3:
        canvas.fill("ear_left", mix(person.skin, _SHADE, 0.2))
        canvas.fill("ear_right", mix(person.skin, _SHADE, 0.2))
    canvas.fill("head", person.skin)


# Factor of the skin's colour (128: 1) by relief: red falls less in the shade, and rises more in the light.
_RELIEF = np.arange(256)[:, None] - 128
_RELIEF_FACTOR = np.clip(
    128 + np.where(_RELIEF < 0, _RELIEF * [0.85, 1.0, 1.08], _RELIEF * [0.85, 0.72, 0.66]), 0, 255
).astype(np.uint8)[None]


def _paint_relief(canvas: Canvas, face: Face, person: Person, scene: Scene) -> None:
    """Light and shadow of the face's forms: soft areas and wrinkles as one factor on the skin's colour."""
    rouge = canvas.sheet(0)
    rouge.fill("blush_left", 255)
    rouge.fill("blush_right", 255)
    soft = canvas.sheet(128)
    for name, height in face.relief.items():
        if name.startswith("nose_side"):  # one side of the nose is in the shade
            toward_lamp = scene.lamp[0] if name == "nose_side_right" else -scene.lamp[0]
            height -= 0.5 * scene.contrast * max(0.0, -toward_lamp)
        soft.fill(name, 128 + 115 * height)
    lines = canvas.sheet(0)
    for name, darkness in face.wrinkles.items():
        lines.stroke(name, 95 * darkness, 1.6)
    canvas.tint((214, 84, 76), _soften(rouge.pixels, 3 * canvas.pen), 0.22 * person.blush)
    relief = cv2.subtract(_soften(soft.pixels, 2.2 * canvas.pen), _soften(lines.pixels, 0.7 * canvas.pen))
    factor = cv2.LUT(cv2.cvtColor(relief, cv2.COLOR_GRAY2RGB), _RELIEF_FACTOR)
    cv2.multiply(canvas.pixels, factor, canvas.pixels, scale=1 / 128)


def _paint_beard(canvas: Canvas, person: Person) -> None:
    mask = canvas.sheet(0)
    mask.fill("beard", 255)
    canvas.tint(person.grooming, _soften(mask.pixels, 1.8 * canvas.pen), person.beard_cover)


def _paint_features(canvas: Canvas, person: Person, scene: Scene) -> None:
    """Brows, eyes, nostrils and mouth. Eyeballs and teeth are painted whole and masked by lids and lips."""
    paths = canvas.paths
    line = mix(person.skin, (25, 10, 10), 0.7)
    dark_lip = mix(person.lip, (30, 5, 10), 0.6)
    for name in SIDES:
        canvas.fill(f"brow_{name}", mix(person.grooming, person.skin, 0.12))
        canvas.fill(f"nostril_{name}", line)
    canvas.fill(np.concatenate([paths["lip_top"], paths["lip_upper"][::-1]]), mix(person.lip, (30, 5, 10), 0.16))
    canvas.fill(np.concatenate([paths["lip_lower"], paths["lip_bottom"][::-1]]), person.lip)
    canvas.stroke("lip_shine", mix(person.lip, (255, 235, 230), 0.22))

    inside, openings = canvas.sheet(), canvas.sheet(0)
    unit = scene.zoom * canvas.pixels.shape[0] / 2 * (1 << SHIFT)
    gaze = np.rint(np.array(scene.gaze) * unit).astype(np.int32)
    glint = np.rint(np.array([0.02 if scene.lamp[0] > 0 else -0.02, -0.02]) * unit).astype(np.int32)
    for name in SIDES:
        eye = np.concatenate([paths[f"lid_{name}"], paths[f"below_{name}"][::-1]])
        centre = paths[f"iris_{name}"][0] + gaze
        openings.fill(eye, 255)
        inside.fill(eye, (232, 226, 222))
        inside.dot(centre, 0.068 * unit, mix(person.iris, _BLACK, 0.45))
        inside.dot(centre, 0.054 * unit, person.iris)
        inside.dot(centre, 0.028 * unit, (12, 10, 10))
        inside.stroke(f"lid_{name}", mix(person.iris, (60, 45, 45), 0.7), 1.4)
        inside.dot(centre + glint, 0.016 * unit, (250, 250, 250))
    mouth = np.concatenate([paths["lip_upper"], paths["lip_lower"][::-1]])
    openings.fill(mouth, 255)
    inside.fill(mouth, (58, 20, 22))
    inside.fill("tongue", (168, 82, 84))
    inside.fill("teeth", (236, 230, 218))
    inside.fill("lower_teeth", (212, 204, 192))
    canvas.lay(inside.pixels, openings.pixels)

    for name in SIDES:
        canvas.stroke(f"below_{name}", mix(person.skin, line, 0.45))
        canvas.stroke(f"lid_{name}", mix(line, (15, 8, 8), max(0.0, person.lashes)), 0.9 + 0.8 * person.lashes)
    canvas.stroke("lip_upper", dark_lip, 1.3)


def _paint_glasses(canvas: Canvas, person: Person) -> None:
    frame, dark = person.glasses_colour, person.glasses == "dark"
    lenses = canvas.sheet(0)
    for name in ("lens_left", "lens_right"):
        lenses.fill(name, 255)
    canvas.tint(frame if dark else (225, 235, 240), lenses.pixels, 0.92 if dark else 0.10)
    width = 2.4 if person.glasses == "thick" else 1.3
    for name in ("glasses_bridge", "temple_left", "temple_right"):
        canvas.stroke(name, frame, width)
    for name in ("lens_left", "lens_right"):
        canvas.stroke(name, frame, width, closed=True)


def _paint_hair(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    outer, line = canvas.paths["hair_outer"], canvas.paths["hair_line"]
    canvas.stroke(line, mix(person.skin, _SHADE, 0.35), 2)  # its shadow on the forehead
    canvas.fill(np.concatenate([outer, line]), person.hair)
    # Strands from the hairline outwards; `outer` has two points for each of the hairline's.
    places = rng.integers(1, len(line) - 1, 16)
    roots = line[::-1][places]
    tips = outer[np.clip(2 * places + rng.integers(-3, 4, 16), 0, len(outer) - 1)]
    begin, end = rng.uniform(0.05, 0.4, (16, 1)), rng.uniform(0.6, 0.95, (16, 1))
    strands = np.stack([roots + (tips - roots) * begin, roots + (tips - roots) * end], axis=1).astype(np.int32)
    dull = 0.5 if HAIR_STYLES[person.hair_style].cloth else 1.0
    for some, tone, share in ((strands[:8], (255, 236, 214), 0.10), (strands[8:], _BLACK, 0.25)):
        shade = mix(person.hair, tone, share * dull)
        cv2.polylines(canvas.pixels, list(some), False, shade, max(1, round(canvas.pen)), cv2.LINE_AA, SHIFT)


# --- Occlusion ----------------------------------------------------------------------------------------------------


def _hand(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """The person's hand at the cheek or before the mouth."""
    side = canvas.pixels.shape[0] << SHIFT
    palm = np.array([rng.choice([0.22, 0.78]), rng.uniform(0.85, 1.05)])
    lean = (0.5 - palm[0]) * rng.uniform(0.2, 1.2)
    place = np.arange(4) - 1.5
    knuckles = palm + np.stack([place * 0.065, np.full(4, -0.05)], axis=1)
    spread = lean + place * 0.16
    length = (0.30 - 0.03 * np.abs(place))[:, None]
    tips = knuckles + length * np.stack([np.sin(spread), -np.cos(spread)], axis=1)
    fingers = np.rint(np.stack([knuckles, tips], axis=1) * side).astype(np.int32)
    for shade, width in ((0.5, 8.0), (0.08, 6.0)):
        skin = mix(person.skin, _SHADE, shade)
        for finger in fingers:
            canvas.stroke(finger, skin, width)
        canvas.dot(np.rint(palm * side).astype(np.int32), side / 7, skin)


def _strand(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """Hair before the face."""
    side = canvas.pixels.shape[0] << SHIFT
    x, y = rng.uniform(0.25, 0.75), rng.uniform(0.5, 0.8)
    bend, swing = rng.normal(0, 0.05), rng.normal(0, 0.15)
    t = np.linspace(0, 1, 9)
    curve = np.stack([x + swing * t + bend * np.sin(np.pi * t), y * t], axis=1)
    canvas.stroke(np.rint(curve * side).astype(np.int32), person.hair, rng.uniform(2, 6))


def _mask(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """A medical mask from the nose to the chin."""
    cloth = colour(rng.choice(np.array([(150.0, 190.0, 215.0), (235.0, 238.0, 240.0), (40.0, 42.0, 48.0)])))
    head, brim = canvas.paths["head"], canvas.paths["nose_tip"]
    hull = cv2.convexHull(np.concatenate([head[head[:, 1] > brim[:, 1].min()], brim]))
    canvas.fill(hull.astype(np.int32), cloth)
    canvas.stroke(hull.astype(np.int32), mix(cloth, _BLACK, 0.3), closed=True)


def _object(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """Any object: a cup, a microphone, somebody's shoulder."""
    centre = np.array([rng.uniform(0.1, 0.9), rng.uniform(0.35, 1.0)])
    shape = centre + CIRCLE * rng.uniform(0.08, 0.2, 2) * rng.uniform(0.85, 1.0, (len(CIRCLE), 1))
    canvas.fill(np.rint(shape * (canvas.pixels.shape[0] << SHIFT)).astype(np.int32), any_colour(rng))


def _edge(canvas: Canvas, person: Person, rng: np.random.Generator) -> None:
    """The face extends beyond the photograph; the rest of the crop is black or white."""
    pixels = canvas.pixels
    width = int(pixels.shape[0] * rng.uniform(0.06, 0.2))
    borders = (pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:])
    borders[int(rng.integers(4))][:] = 0 if rng.random() < 0.7 else 255


_OCCLUDE = {"hand": _hand, "strand": _strand, "mask": _mask, "object": _object, "edge": _edge}

# --- Light and camera ---------------------------------------------------------------------------------------------


@lru_cache
def _normals(size: int) -> NDArray[np.float32]:
    """Normals [size, size, 3] of an ellipsoid as large as the head in an image of `size` pixels."""
    x, y = np.meshgrid(np.linspace(-1.2, 1.2, size), np.linspace(-0.95, 0.95, size))
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0.04))
    return np.stack([x, y, z], axis=-1).astype(np.float32)


def _light(scene: Scene, size: int) -> NDArray[np.float32]:
    """Factor [size, size, 1] of ambient light and a lamp."""
    lambert = np.maximum(_normals(size) @ np.array(scene.lamp, np.float32), 0)
    return (np.float32(1 - scene.contrast) + np.float32(1.25 * scene.contrast) * lambert)[..., None]


def _photograph(canvas: Pixels, person: Person, scene: Scene, rng: np.random.Generator, size: int) -> Pixels:
    """The photograph of the lit canvas: exposure, resolution, lens, sensor, compression."""
    image: Pixels = cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)
    # Cameras expose for the face, so that dark skin is brighter in its own photograph than next to light skin.
    metered = scene.exposure * (165 / (sum(person.skin) / 3)) ** 0.35
    image *= _light(scene, size) * (np.array(scene.cast) * metered).astype(np.float32)
    if scene.detail < 1:
        small = round(size * scene.detail)
        image = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    if scene.blur > 0:
        image = cv2.GaussianBlur(image, (0, 0), scene.blur * size / 48)
    image += rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(scene.noise)
    tones = np.linspace(0, 1, 256) ** scene.gamma * 255
    photo: Pixels = cv2.LUT(np.clip(image, 0, 255).astype(np.uint8), np.rint(tones).astype(np.uint8))
    if scene.greyscale:
        photo = cv2.cvtColor(cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if scene.jpeg_quality < 100:
        stored = cv2.imencode(".jpg", photo[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg_quality])[1]
        decoded = cv2.imdecode(stored, cv2.IMREAD_COLOR)
        assert decoded is not None  # it was encoded just now
        photo = decoded[..., ::-1]
    return photo
