import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.composed import composed
from helpers.datasets import class_folders, class_image, save, shown_class

from fer_voting.data.files import read_numbers
from fer_voting.data.sets.folder import FolderDataModule
from fer_voting.data.sets.rafdb import RAFDBDataModule
from fer_voting.runs.naming import name_run
from fer_voting.targets import Classes, Target, ValenceArousal


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
    config = composed(["dataset=folder", *words])
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


# Numbers ----------------------------------------------------------------------------------------------------------


def listed(root: Path, *rows: str, target: Target | None = None) -> FolderDataModule:
    """Images in a single folder, and labels.csv with these rows."""
    for number in range(12):
        save(root / "images" / f"{number}.png", class_image("happy", number))
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder(root, target=target or ValenceArousal())


def test_valence_and_arousal_of_a_folder_without_classes(tmp_path: Path) -> None:
    rows = [f"images/{number}.png;-0,{number % 10};{number / 20}" for number in range(10)]
    data = listed(tmp_path / "faces", "File Name;Valence;arousal", *rows, "10.png;;0.5", "nobody.png;0;0")
    data.setup()
    assert data.class_names == ("images",)
    names = data.pack.names()
    row = names.index("images/7.png")
    assert data.pack.column("valence")[row] == pytest.approx(-0.7)
    assert data.pack.column("arousal")[row] == pytest.approx(0.35)
    assert data.pack.left_out == {"no valence or arousal": 2}  # 10.png has one of both, 11.png is not listed
    assert sum(sum(part.values()) for part in data.counts().values()) == 10


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            "3.png,5,0",
            "labels.csv, line 2: valence is 5, and must be a number from -1 to 1, or empty where there is none",
        ),
        ("3.png,0,-2", "labels.csv, line 2: arousal is -2, and must be a number from -1 to 1"),
        ("3.png,nan,0", "labels.csv, line 2: valence is nan, and must be"),
        ("3.png,high,0", "labels.csv, line 2: valence is high, and must be"),
        ("3.png,0,0\nimages/3.png,0,0", "labels.csv, line 3: images/3.png is listed twice"),
    ],
)
def test_a_value_that_is_none_is_named_with_its_row(tmp_path: Path, row: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        listed(tmp_path / "faces", "image,valence,arousal", row).setup()


def test_a_name_in_two_folders_must_be_a_path(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    for label in ("happy", "sad"):
        save(root / label / "1.png", class_image(label, 1))
    (root / "labels.csv").write_text("image,valence,arousal\nC:\\faces\\sad\\1.png,0,0\nfear/1.png,1,1\n")
    valence = read_numbers(root, ["happy/1.png", "sad/1.png"])["valence"]
    np.testing.assert_array_equal(valence, [np.nan, 0])
    (root / "labels.csv").write_text("image,valence,arousal\n1.png,0,0\n")
    with pytest.raises(ValueError, match=r"labels\.csv, line 2: 1\.png is several images"):
        folder(root, target=ValenceArousal()).setup()


def test_numbers_of_a_table_are_no_contradiction_to_class_folders(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    for number in range(20):
        for label in ("happy", "sad"):
            save(root / label / f"{label}{number}.png", class_image(label, number))
    names = [f"{label}{number}.png" for number in range(20) for label in ("happy", "sad")]
    (root / "labels.csv").write_text("\n".join(["image,valence,arousal", *(f"{name},9,0.5" for name in names)]))
    data = folder(root)  # of classes: the numbers are not read, so that 9 is no error
    data.setup()
    assert not data.pack.notes
    assert not data.pack.left_out


def test_data_without_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="RAF-DB has no valence and arousal: dataset=affectnet and faces have, and data"
    ):
        RAFDBDataModule(name="RAF-DB", root=tmp_path, cache_dir=tmp_path, target=ValenceArousal())
    class_folders(tmp_path / "faces", {"": {"happy": 3, "fear": 3}}, {"happy": "happy", "fear": "fear"})
    with pytest.raises(ValueError, match=r"columns of .*labels\.csv, which does not exist"):
        folder(tmp_path / "faces", target=ValenceArousal()).setup()
    with pytest.raises(ValueError, match=r"labels\.csv lacks the columns arousal, valence"):
        listed(tmp_path / "other", "image,label", "1.png,happy").setup()
    with pytest.raises(ValueError, match="there is only one class"):
        listed(tmp_path / "third", "image,valence,arousal", "1.png,0,0", target=Classes()).setup()
