from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import class_folders, class_image, save, shown_class

from fer_voting.config import compose
from fer_voting.data.sets.folder import FolderDataModule
from fer_voting.runs.naming import name_run


def folder(root: Path | None, **arguments: Any) -> FolderDataModule:
    cache_dir = root.parent / "packs" if root else "packs"
    return FolderDataModule(name="mine", root=root, cache_dir=cache_dir, classes=None, **arguments)


def check_images(data: FolderDataModule) -> None:
    for row in np.flatnonzero(data.pack.good):
        assert shown_class(data.pack.images[row]) == data.pack.labels[data.pack.label_ids[row]]


def test_flat_class_folders_are_divided_by_class(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    for number in range(100):
        for label, name in (("sad", "Sadness"), ("anger", "angry")):
            save(root / name / "deeper" / f"{number}.png", class_image(label, number))
    (root / "angry" / "note.txt").write_text("not an image")
    (root / ".cache" / "x").mkdir(parents=True)
    data = folder(root)
    data.setup()
    assert data.pack.key["layout"] == "flat"
    assert data.class_names == ("sad", "anger")  # in the canonical order
    assert data.counts() == {
        "train": {"sad": 81, "anger": 81}, "val": {"sad": 9, "anger": 9}, "test": {"sad": 10, "anger": 10}
    }  # fmt: skip
    every = np.concatenate([data.positions(part) for part in data.counts()])
    assert sorted(every) == list(range(200))
    check_images(data)


def test_without_a_test_fraction_there_is_no_test_stage(tmp_path: Path) -> None:
    class_folders(tmp_path / "faces", {"": {"happy": 10, "fear": 10}}, {"happy": "happy", "fear": "fear"})
    data = folder(tmp_path / "faces", test_fraction=0)
    data.setup()
    assert data.counts() == {"train": {"happy": 9, "fear": 9}, "val": {"happy": 1, "fear": 1}}


@pytest.mark.parametrize("parts", [("train", "val", "test"), ("Training", "valid"), ("train", "test"), ("train",)])
def test_part_folders_are_used_as_they_are(tmp_path: Path, parts: tuple[str, ...]) -> None:
    classes = {"happy": 20, "fear": 10}
    class_folders(tmp_path / "faces", dict.fromkeys(parts, classes), {"happy": "Joy", "fear": "fear"})
    data = folder(tmp_path / "faces")
    data.setup()
    counts = data.counts()
    assert data.pack.key["layout"] == "parts"
    assert counts.get("test") == (classes if "test" in parts else None)
    has_val = {"val", "valid"} & set(parts)
    assert counts["val"] == (classes if has_val else {"happy": 2, "fear": 1})
    assert counts["train"] == (classes if has_val else {"happy": 18, "fear": 9})
    check_images(data)


def test_classes_of_the_users_own_follow_the_expressions(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    for number in range(10):
        for name in ("tired", "Bored", "happiness"):
            save(root / name / f"{number}.png", class_image("happy", number))
    data = folder(root)
    data.setup()
    assert data.class_names == ("happy", "Bored", "tired")
    assert set(data.counts()["train"]) == {"happy", "Bored", "tired"}


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "folder"),
        (["dataset.root=/some/where/office"], "office"),
        (["dataset.root='/some/where/My faces (2)/'"], "My_faces_2_455d90"),  # not the name of My_faces_2
        (["dataset.root=/some/../.."], "folder"),
        (["dataset.root=2024"], "2024"),
        (["dataset.root=/some/where/office", "dataset.name=lab"], "lab"),
        (["dataset.root=/some/where/rafdb"], "folder_rafdb"),  # `rafdb` is another data set
    ],
)
def test_the_data_set_is_called_as_its_folder(words: list[str], name: str) -> None:
    config = compose(["dataset=folder", *words])
    assert config.dataset.name == name
    assert name_run(config) == f"{name}-m1-seed0"


def test_an_empty_or_absent_root_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"dataset\.root=.*faces is not a folder"):
        folder(tmp_path / "faces").setup()
    (tmp_path / "faces").mkdir()
    with pytest.raises(FileNotFoundError, match=r"looked for .*; found an empty folder"):
        folder(tmp_path / "faces").setup()
    with pytest.raises(
        ValueError, match=r"dataset\.root is not set: give the folder that holds mine, dataset.root=DIR"
    ):
        folder(None).setup()
