"""The paper's five augmentations (section 3.3) with albumentations, reproducible when training resumes."""

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
from numpy.typing import NDArray

from fer_voting.data.augment import Step, Steps
from fer_voting.data.sampling import SampleKey

# A 48x48 image is too small for several threads.
cv2.setNumThreads(0)


@dataclass
class AlbumentationsAugment(Steps):
    """Random changes of training images, one at a time; arguments as in `augment.make_augment`."""

    _pipelines: dict[int, A.Compose] = field(default_factory=dict, init=False)

    def __call__(self, images_BHWC: NDArray[np.uint8], keys: Sequence[SampleKey], seed: int) -> NDArray[np.uint8]:
        """Changed copies of `images_BHWC` (uint8 [B, S, S, 3]), each determined by (seed, epoch, position) alone."""
        pipeline = self._pipeline(images_BHWC.shape[1])
        if not pipeline.transforms:
            return images_BHWC
        changed = np.empty_like(images_BHWC)
        for row, (epoch, position) in enumerate(keys):
            # One pair of generators for the whole pipeline: `set_random_seed` would give every step the same numbers,
            # and so apply all of them to an image or none.
            pipeline.set_random_state(
                np.random.default_rng((seed, epoch, position)), random.Random(f"{seed} {epoch} {position}")
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
