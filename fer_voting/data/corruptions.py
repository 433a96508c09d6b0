"""Ways in which photos of faces get worse, from uint8 faces, for measuring how well a network holds.

Each corruption has three strengths. Equal images get equal results, wherever they lie and in whichever batch.
"""

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray
from PIL.ImageFilter import GaussianBlur

Face = NDArray[np.uint8]
"""[S, S, 3]"""

REFERENCE_SIDE = 48
"""Pixels a side for which sigmas of the blur are given; larger faces are blurred in proportion."""
EYES, MOUTH = 0.38, 0.78
"""Height of the middle of eyes and mouth in a face, as shares of its side: FER2013's crops."""


@dataclass(frozen=True)
class Corruption:
    """A change of a face and its three strengths, from the weakest.

    Attributes:
        change: (face uint8 [S, S, 3], strength) -> uint8 [S, S, 3].
        unit: of a strength, for tables.
    """

    change: Callable[[Face, float], Face]
    strengths: tuple[float, float, float]
    unit: str


def lower_resolution(face: Face, side: float) -> Face:
    """The face as a camera sees it on `side` pixels: area averaging down, and up as prediction does (bilinear)."""
    small = cv2.resize(face, (round(side),) * 2, interpolation=cv2.INTER_AREA)
    return np.asarray(PIL.Image.fromarray(small).resize(face.shape[1::-1], PIL.Image.Resampling.BILINEAR))


def _compress(face: Face, quality: float) -> Face:
    file = io.BytesIO()
    PIL.Image.fromarray(face).save(file, "JPEG", quality=round(quality))
    return np.asarray(PIL.Image.open(file))


def _blur(face: Face, sigma: float) -> Face:
    return np.asarray(PIL.Image.fromarray(face).filter(GaussianBlur(sigma * len(face) / REFERENCE_SIDE)))


def _add_noise(face: Face, deviation: float) -> Face:
    seed = int.from_bytes(hashlib.blake2b(face.tobytes(), digest_size=8).digest(), "little")
    noise = np.random.default_rng(seed).normal(0, deviation, face.shape[:2])
    return _as_face(face + noise[..., None])  # grey, so that a grey face stays grey


def _scale(face: Face, factor: float) -> Face:
    return _as_face(factor * face.astype(np.float64))


def _flatten(face: Face, factor: float) -> Face:
    return _as_face(face.mean() + factor * (face - face.mean()))


def _cover(middle: float) -> Callable[[Face, float], Face]:
    def cover(face: Face, share: float) -> Face:
        top, bottom = (round((middle + end * share / 2) * len(face)) for end in (-1, 1))
        covered = face.copy()
        covered[max(top, 0) : bottom] = 0
        return covered

    return cover


def _as_face(values: NDArray[np.float64]) -> Face:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CORRUPTIONS: Mapping[str, Corruption] = {
    "resolution": Corruption(lower_resolution, (24, 16, 8), "pixels a side"),
    "jpeg": Corruption(_compress, (30, 15, 7), "quality"),
    "blur": Corruption(_blur, (1, 1.75, 2.5), f"sigma in pixels of {REFERENCE_SIDE}"),
    "noise": Corruption(_add_noise, (8, 20, 40), "standard deviation of 255"),
    "darkness": Corruption(_scale, (0.5, 0.25, 0.1), "times the light"),
    "brightness": Corruption(_scale, (1.5, 2, 3), "times the light"),
    "contrast": Corruption(_flatten, (0.5, 0.25, 0.1), "times the contrast"),
    "eyes": Corruption(_cover(EYES), (0.15, 0.25, 0.35), "share covered by a bar"),
    "mouth": Corruption(_cover(MOUTH), (0.15, 0.25, 0.35), "share covered by a bar"),
}


def corrupt(faces: NDArray[np.uint8], name: str, strength: float) -> NDArray[np.uint8]:
    """Faces uint8 [N, S, S, 3] with a corruption of CORRUPTIONS, of any strength."""
    return np.stack([CORRUPTIONS[name].change(face, strength) for face in faces])


@dataclass(frozen=True)
class Corrupted:
    """A corruption as a change of loaded batches (`data.batches.BatchDataset`)."""

    name: str
    strength: float

    def __call__(self, faces: NDArray[np.uint8], keys: Sequence[object], seed: int) -> NDArray[np.uint8]:
        return corrupt(faces, self.name, self.strength)
