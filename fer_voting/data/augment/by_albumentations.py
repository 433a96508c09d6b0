"""The paper's five augmentations (section 3.3) and two more by albumentations, reproducible when training resumes."""

import io
import math
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

# Before the import: albumentations otherwise asks its server for new versions.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations as A
import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from fer_voting.data.augment import Step, Steps
from fer_voting.data.augment.low_resolution import DOWN, UP
from fer_voting.data.sampling import SampleKey

# A 48x48 image is too small for several threads.
cv2.setNumThreads(0)


@dataclass
class AlbumentationsAugment(Steps):
    """Random changes of training images, one at a time; arguments as in `augment.make_augment`."""

    _pipelines: dict[int, A.Compose] = field(default_factory=dict, init=False)

    def __call__(self, images_BHWC: NDArray[np.uint8], keys: Sequence[SampleKey], seed: int) -> NDArray[np.uint8]:
        """Changed copies of `images_BHWC` (uint8 [B, S, S, 3]), each determined only by (seed, epoch, draw)."""
        pipeline = self._pipeline(images_BHWC.shape[1])
        if not pipeline.transforms:
            return images_BHWC
        changed = np.empty_like(images_BHWC)
        for row, (epoch, draw) in enumerate(keys):
            # One pair of generators for the whole pipeline: `set_random_seed` would give every step the same numbers,
            # and so apply all of them to an image or none.
            pipeline.set_random_state(
                np.random.default_rng((seed, epoch, draw)), random.Random(f"{seed} {epoch} {draw}")
            )
            changed[row] = pipeline(image=images_BHWC[row])["image"]
        return changed

    def _pipeline(self, size: int) -> A.Compose:
        if size not in self._pipelines:
            steps: list[tuple[Callable[..., Any], Step]] = [
                (_resized_crop, self.resized_crop),
                (_color_jitter, self.color_jitter),
                (_translation, self.translation),
                (_rotation, self.rotation),
                (_erase, self.erase),
                (_low_resolution, self.low_resolution),
                (_flip, self.flip),
            ]
            self._pipelines[size] = A.Compose([make(size, **values) for make, values in steps if values is not None])
        return self._pipelines[size]


def _resized_crop(size: int, probability: float, area: Sequence[float], aspect: Sequence[float]) -> Any:
    return A.RandomResizedCrop((size, size), scale=tuple(area), ratio=tuple(aspect), p=probability)


def _color_jitter(size: int, probability: float, brightness: float, contrast: float, saturation: float) -> Any:
    return A.ColorJitter(brightness, contrast, saturation, hue=0, p=probability)


def _translation(size: int, probability: float, share: float) -> Any:
    return A.Affine(translate_percent={"x": (-share, share), "y": (-share, share)}, p=probability)


def _rotation(size: int, probability: float, degrees: float) -> Any:
    return A.Affine(rotate=(-degrees, degrees), p=probability)


def _erase(size: int, probability: float, area: Sequence[float], aspect: Sequence[float]) -> Any:
    return A.Erasing(scale=tuple(area), ratio=tuple(aspect), fill=0, p=probability)


def _low_resolution(
    size: int,
    probability: float,
    sides: Sequence[int],
    jpeg_probability: float,
    jpeg_quality: Sequence[int],
) -> Any:
    return _LowResolution([min(side, size) for side in sides], jpeg_probability, jpeg_quality, probability)


def _flip(size: int, probability: float) -> Any:
    return A.HorizontalFlip(p=probability)


class _LowResolution(A.ImageOnlyTransform):
    """Down to a side drawn log-uniformly, JPEG there with `jpeg_probability`, and back up."""

    def __init__(self, sides: Sequence[int], jpeg_probability: float, jpeg_quality: Sequence[int], p: float) -> None:
        super().__init__(p=p)
        self.sides, self.jpeg_probability, self.jpeg_quality = sides, jpeg_probability, jpeg_quality

    def get_params(self) -> dict[str, Any]:
        random = self.py_random
        return {
            "side": round(math.exp(random.uniform(*map(math.log, self.sides)))),
            "down": random.choice(DOWN),
            "up": random.choice(UP),
            "quality": random.randint(*self.jpeg_quality) if random.random() < self.jpeg_probability else None,
        }

    def apply(
        self, img: NDArray[np.uint8], side: int, down: str, up: str, quality: int | None, **params: Any
    ) -> NDArray[np.uint8]:
        if down == "area":
            small = np.asarray(cv2.resize(img, (side, side), interpolation=cv2.INTER_AREA), np.uint8)
        else:
            small = _resize(img, side, down)
        if quality is not None:
            file = io.BytesIO()
            PIL.Image.fromarray(small).save(file, "JPEG", quality=quality, subsampling="4:4:4")
            small = np.asarray(PIL.Image.open(file))
        return _resize(small, len(img), up)


def _resize(image: NDArray[np.uint8], side: int, kernel: str) -> NDArray[np.uint8]:
    small = PIL.Image.fromarray(np.ascontiguousarray(image))
    return np.asarray(small.resize((side, side), PIL.Image.Resampling[kernel.upper()]))
