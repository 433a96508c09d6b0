"""Which augmentation a configuration means: the paper's five steps (section 3.3), by one of two backends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fer_voting.data.augment.step import Step

if TYPE_CHECKING:
    from fer_voting.data.augment.batched import BatchedAugment
    from fer_voting.data.augment.by_albumentations import AlbumentationsAugment

__all__ = ["BACKENDS", "Step", "make_augment"]

BACKENDS = ("batched", "albumentations")


def make_augment(backend: str = "batched", **steps: Step) -> AlbumentationsAugment | BatchedAugment | None:
    """Random changes of training images, each from (seed, epoch, position) alone; None if there are no steps.

    The paper names the steps and gives no values: `conf/augment/paper.yaml` has ours.

    Args:
        backend: `batched` changes a whole batch at once on the device that trains; `albumentations` one image after
            the other on the CPU. Same steps, same values, same distribution.
        steps: of these, by name:
            `resized_crop`: `probability`, `area` [low, high] of the share kept, `aspect` [low, high] of its sides;
            `color_jitter`: `probability`, `brightness`, `contrast`, `saturation`: factors within 1 +- the value;
            `translation`: `probability`, `share` of the side by which the image moves at most, in each direction;
            `rotation`: `probability`, `degrees` to either side at most, about the centre;
            `erase`: `probability`, `area` [low, high] share of the image blackened, `aspect` [low, high] of the
            rectangle.

    Raises ValueError if `backend` is unknown.
    """
    if backend not in BACKENDS:
        raise ValueError(f"augment.backend={backend} must be {' or '.join(BACKENDS)}")
    if not steps:
        return None
    if backend == "batched":
        from fer_voting.data.augment.batched import BatchedAugment

        return BatchedAugment(**steps)
    # Imported here, because it takes a second.
    from fer_voting.data.augment.by_albumentations import AlbumentationsAugment

    return AlbumentationsAugment(**steps)
