"""What a configuration's augmentation is, by either backend."""

import pytest
from hydra.utils import instantiate

from fer_voting.config import compose_config
from fer_voting.data.augment import BACKENDS, make_augment
from fer_voting.data.augment.batched import BatchedAugment
from fer_voting.data.augment.by_albumentations import AlbumentationsAugment


def test_the_papers_augmentation_names_its_five_steps() -> None:
    steps = {"resized_crop", "color_jitter", "translation", "rotation", "erase"}
    assert set(compose_config(["augment=paper"]).augment) == {"_target_", "backend", *steps}


@pytest.mark.parametrize(("backend", "kind"), [("batched", BatchedAugment), ("albumentations", AlbumentationsAugment)])
def test_a_backend_by_its_name(backend: str, kind: type) -> None:
    augment = instantiate(compose_config(["augment=paper", f"augment.backend={backend}"]).augment)
    assert type(augment) is kind


def test_every_backend_is_tested_here() -> None:
    assert BACKENDS == ("batched", "albumentations")


def test_no_steps_are_no_augmentation() -> None:
    assert instantiate(compose_config(["augment=none"]).augment) is None


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ValueError, match=r"augment\.backend=dali must be batched or albumentations"):
        make_augment("dali")
