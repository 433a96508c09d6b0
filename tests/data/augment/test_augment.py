"""The augmentation of a configuration, by either backend."""

from typing import Any

import pytest
import torch
from helpers.composed import composed
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from fer_voting.data.augment import BACKENDS, make_augment
from fer_voting.data.augment.batched import BatchedAugment
from fer_voting.data.augment.by_albumentations import AlbumentationsAugment


def test_the_papers_augmentation_names_its_five_steps() -> None:
    steps = {"resized_crop", "color_jitter", "translation", "rotation", "erase"}
    assert set(composed(["augment=paper"]).augment) == {"_target_", "backend", *steps}


@pytest.mark.parametrize(("backend", "kind"), [("batched", BatchedAugment), ("albumentations", AlbumentationsAugment)])
def test_a_backend_by_its_name(backend: str, kind: type) -> None:
    augment = instantiate(composed(["augment=paper", f"augment.backend={backend}"]).augment)
    assert type(augment) is kind


def test_every_backend_is_tested_here() -> None:
    assert BACKENDS == ("batched", "albumentations")


def test_no_steps_are_no_augmentation() -> None:
    assert instantiate(composed(["augment=none"]).augment) is None


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match=r"augment\.backend=dali must be batched or albumentations"):
        make_augment("dali")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "value",
    [
        *("flip.probability=50", "rotation.degrees=-10", "color_jitter.contrast=-0.1", "translation.share=5"),
        *("resized_crop.area=[1.0,0.8]", "resized_crop.area=[0.8,1.1]", "resized_crop.area=0.8"),
        *("erase.area=[0.5,0.6]", "erase.aspect=[0,1]", "low_resolution.jpeg_probability=x"),
        *("low_resolution.sides=[24,8]", "low_resolution.sides=[0,8]", "low_resolution.sides=[8.5,48]"),
        *("low_resolution.jpeg_quality=[0,50]", "low_resolution.jpeg_quality=[50,101]"),
    ],
)
def test_values_out_of_range_are_refused_before_there_are_images(backend: str, value: str) -> None:
    words = ["augment=low_resolution", f"augment.backend={backend}", "+augment.flip.probability=0.5"]
    key, _ = value.split("=")
    with pytest.raises(InstantiationException, match=rf"ValueError\('augment\.{key}="):
        instantiate(composed([*words, f"augment.{value}"]).augment)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("values", [{"probability": 0.5}, {"probability": 0.5, "degrees": 9, "degres": 10}, {}, 0.5])
def test_a_value_that_is_missing_or_unknown_is_refused(backend: str, values: Any) -> None:
    with pytest.raises(ValueError, match=r"augment\.rotation has .*, and needs probability, degrees"):
        make_augment(backend, rotation=values)


def test_low_resolution_is_the_papers_steps_and_one_more() -> None:
    paper, low_resolution = (composed([f"augment={name}"]).augment for name in ("paper", "low_resolution"))
    assert {key: value for key, value in low_resolution.items() if key != "low_resolution"} == paper


@pytest.mark.parametrize("kind", [BatchedAugment, AlbumentationsAugment])
def test_a_flip_is_the_mirror_image_in_its_share_of_the_images(kind: type) -> None:
    image = torch.randint(0, 256, (48, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images, positions = image.expand(400, -1, -1, -1), [(0, position) for position in range(400)]
    augment = kind(flip={"probability": 0.5})
    if kind is BatchedAugment:
        changed = augment(images.permute(0, 3, 1, 2), 0, torch.arange(400), 0).round().permute(0, 2, 3, 1)
    else:
        changed = torch.from_numpy(augment(images.numpy(), positions, 0))
    mirrored = (changed == image.flip(1)).flatten(1).all(dim=1)
    assert ((changed == image).flatten(1).all(dim=1) | mirrored).all()
    assert 0.4 < mirrored.float().mean() < 0.6
