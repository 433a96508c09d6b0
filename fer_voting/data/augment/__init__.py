"""Augmentation of training images, by one of two backends: the paper's five steps (section 3.3), and two more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_voting.data.augment.batched import BatchedAugment
    from fer_voting.data.augment.by_albumentations import AlbumentationsAugment

__all__ = ["BACKENDS", "Step", "Steps", "make_augment"]

BACKENDS = ("batched", "albumentations")

Step = Mapping[str, Any] | None
"""The values of a step, or None to omit it."""

NUMBER, PAIR, WHOLE_PAIR = "a number", "[least, most]", "whole numbers [least, most]"
VALUES: dict[str, dict[str, tuple[str, float, float]]] = {
    "resized_crop": {"area": (PAIR, 0, 1), "aspect": (PAIR, 0.01, 100)},
    "color_jitter": dict.fromkeys(("brightness", "contrast", "saturation"), (NUMBER, 0.0, math.inf)),
    "translation": {"share": (NUMBER, 0, 1)},
    "rotation": {"degrees": (NUMBER, 0, 180)},
    "erase": {"area": (PAIR, 0, 1), "aspect": (PAIR, 0.01, 100)},
    "low_resolution": {
        "sides": (WHOLE_PAIR, 1, math.inf),
        "jpeg_probability": (NUMBER, 0, 1),
        "jpeg_quality": (WHOLE_PAIR, 1, 100),
    },
    "flip": {},
}
"""Step -> what each of its values is, besides `probability`: its form, and the least and the greatest number."""


@dataclass
class Steps:
    """The steps of an augmentation; `make_augment` documents their values.

    Raises ValueError for a value that is missing, unknown or out of range.
    """

    resized_crop: Step = None
    color_jitter: Step = None
    translation: Step = None
    rotation: Step = None
    erase: Step = None
    low_resolution: Step = None
    flip: Step = None

    def __post_init__(self) -> None:
        for step, forms in VALUES.items():
            if (values := getattr(self, step)) is None:
                continue
            forms = {"probability": (NUMBER, 0.0, 1.0), **forms}
            given = [*values] if isinstance(values, Mapping) else [str(values)]
            if {*given} != {*forms}:
                raise ValueError(f"augment.{step} has {', '.join(given) or 'no values'}, and needs {', '.join(forms)}")
            for name, (form, low, high) in forms.items():
                if not _is_valid(values[name], form, low, high):
                    limits = f"at least {low:g}" if high == math.inf else f"from {low:g} to {high:g}"
                    raise ValueError(f"augment.{step}.{name}={values[name]} must be {form}, {limits}")
        if self.erase is not None:
            (area, _), (narrow, wide) = self.erase["area"], self.erase["aspect"]
            if area > min(narrow, 1 / wide):
                raise ValueError(
                    f"augment.erase.area={self.erase['area']}: a rectangle of {area:g} of the image with an aspect "
                    f"from {narrow:g} to {wide:g} may not fit into it"
                )


def _is_valid(value: Any, form: str, low: float, high: float) -> bool:
    numbers = [value] if form == NUMBER else [*value] if isinstance(value, Sequence) else []
    return (
        len(numbers) == (1 if form == NUMBER else 2)
        and all(isinstance(number, int if form == WHOLE_PAIR else int | float) for number in numbers)
        and low <= numbers[0] <= numbers[-1] <= high
    )


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

    Raises ValueError if `backend` is unknown or a step has other values than these.
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
