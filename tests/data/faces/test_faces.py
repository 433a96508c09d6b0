from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_voting.data.faces.module import FacesDataModule, image_and_person
from fer_voting.data.index import PARTS
from fer_voting.data.labels import CLASSES


def faces(tmp_path: Path, **arguments: Any) -> FacesDataModule:
    sizes = {"train_size": 60, "val_size": 20, "test_size": 20}
    return FacesDataModule(name="faces", cache_dir=tmp_path / "packs", **sizes | arguments)


def test_sizes_and_imbalance(tmp_path: Path) -> None:
    data = faces(tmp_path)
    data.setup()
    counts = data.counts()
    assert {part: sum(classes.values()) for part, classes in counts.items()} == {"train": 60, "val": 20, "test": 20}
    assert data.class_names == CLASSES[:7]
    # 60 shared out as RAF-DB's 12,271: neutral 2524, happy 4772, sad 1982, surprise 1290, fear 281, ...
    assert counts["train"] == {
        "neutral": 12, "happy": 23, "sad": 10, "surprise": 6, "fear": 1, "disgust": 4, "anger": 4
    }  # fmt: skip
    assert data.synthetic


def test_the_data_set_depends_on_its_own_seed_not_on_the_runs(tmp_path: Path) -> None:
    first, again, other = faces(tmp_path / "a"), faces(tmp_path / "b", seed=9), faces(tmp_path / "c", data_seed=1)
    for data in (first, again, other):
        data.setup()
    assert (first.pack.images == again.pack.images).all()
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert not (first.pack.images == other.pack.images).all(axis=(1, 2, 3)).any()


def test_images_are_all_different_and_cached(tmp_path: Path) -> None:
    data = faces(tmp_path)
    pack = data.make_pack()
    assert len(np.unique(pack.hashes)) == len(pack) == 100
    assert faces(tmp_path).make_pack().folder == pack.folder
    assert faces(tmp_path, train_size=61).make_pack().folder != pack.folder


def test_no_image_and_no_person_is_in_two_parts() -> None:
    numbers = {part: [image_and_person(part, number) for number in range(1000)] for part in PARTS}
    images = [image for part in PARTS for image, _ in numbers[part]]
    assert len(set(images)) == 3000
    people = [{person for _, person in numbers[part]} for part in PARTS]
    assert len(set.union(*people)) == sum(map(len, people)) == 750


def test_a_size_too_small_for_seven_classes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.val_size=6 must be at least 7"):
        faces(tmp_path, val_size=6)
