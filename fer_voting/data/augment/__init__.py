"""Augmentation of training images, by one of two backends: the paper's five steps (section 3.3), and two more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_voting.data.augment.batched import BatchedAugment
    from fer_voting.data.augment.by_albumentations import AlbumentationsAugment

__all__ = ["BACKENDS", "Step", "Steps", "make_augment"]

BACKENDS = ("batched", "albumentations")

Step = Mapping[str, Any] | None
"""The values of a step, or None to omit it."""


@dataclass
class Steps:
    """The steps of an augmentation; `make_augment` documents their values."""

    resized_crop: Step = None
    color_jitter: Step = None
    translation: Step = None
    rotation: Step = None
    erase: Step = None
    low_resolution: Step = None
    flip: Step = None


def make_augment(backend: str = "batched", **steps: Step) -> AlbumentationsAugment | BatchedAugment | None:
    """The augmentation with these steps, None without any. Its result depends only on seed, epoch and draw
    (`sampling.SampleKey`).

    The paper names the steps and gives no values: `conf/augment/paper.yaml` has ours.

    Args:
        backend: `batched` changes a whole batch at once on the training device; `albumentations` one image at a time
            on the CPU. Same steps, values and distribution.
        steps: by name:
            `resized_crop`: `probability`, `area` [low, high] of the share kept, `aspect` [low, high] of its sides;
            `color_jitter`: `probability`, `brightness`, `contrast`, `saturation`: factors within 1 +- the value;
            `translation`: `probability`, `share`: largest shift in each direction, as a share of the side;
            `rotation`: `probability`, `degrees`: largest angle in either direction, about the centre;
            `erase`: `probability`, `area` [low, high] of the share set to black, `aspect` [low, high] of the
            rectangle;
            `low_resolution`: `probability`, `sides` [least, largest] in pixels, drawn log-uniformly: the image is
            brought down to this side and back up, by kernels drawn from `low_resolution.DOWN` and `UP`;
            `jpeg_probability`, `jpeg_quality` [least, greatest] of JPEG at that side;
            `flip`: `probability` of the image's mirror image.

    Raises ValueError if `backend` is unknown.
    """
    if backend not in BACKENDS:
        raise ValueError(f"augment.backend={backend} must be {' or '.join(BACKENDS)}")
    if not steps:
        return None
    if backend == "batched":
        from fer_voting.data.augment.batched import BatchedAugment

        return BatchedAugment(**steps)
    # Imported here because it takes a second.
    from fer_voting.data.augment.by_albumentations import AlbumentationsAugment

    return AlbumentationsAugment(**steps)
