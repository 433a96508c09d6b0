"""People kept apart: groups of images stay in one part, and folds of a cross-validation."""

import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import class_folders, class_image, save

from fer_voting.data.groups import check_group, group_words, groups_between, named_like, number_groups
from fer_voting.data.quality import audit, format_report
from fer_voting.data.sets.folder import FolderDataModule
from fer_voting.data.sets.rafdb import RAFDBDataModule

LABELS = ("happy", "sad", "anger")
PEOPLE = 9


@pytest.fixture(scope="module")
def ck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Nine people with four images each, named as in CK+, in class folders; the fifth person has only happy ones."""
    root = tmp_path_factory.mktemp("groups") / "ck"
    for person in range(PEOPLE):
        for frame in range(4):
            label = "happy" if person == 5 else LABELS[(frame + person) % 3]
            save(root / label / f"S{person:03d}_001_{frame:08d}.png", class_image(label, 10 * person + frame))
    return root


def opened(root: Path, kind: Callable[..., Any] = FolderDataModule, **arguments: Any) -> Any:
    data = kind(name="x", root=root, cache_dir=root.parent / "packs", **{"classes": kind.class_choices[0]} | arguments)
    data.setup()
    return data


def people(data: Any) -> dict[str, set[str]]:
    return {part: {name.split("/")[-1][:4] for name in data.names(part)} for part in data.counts()}


# Groups of images -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "words"),
    [
        (r"S\d+", ["S01", "S02"]),
        (r"/(S\d+)_", ["S01", "S02"]),
        (r"(X\d)|_(\d)\.", ["1", "2"]),  # the first group that takes part
        ("S01|$", ["S01", ""]),
        ("folder:1", ["happy", "sad"]),
        ("folder:-1", ["p1", "p2"]),
        ("folder:-2", ["happy", "sad"]),
    ],
)
def test_the_group_of_a_name(group: str, words: list[str]) -> None:
    check_group(group)
    assert group_words(group, ["happy/p1/S01_1.png", "sad/p2/S02_2.png"], None) == words


@pytest.mark.parametrize(
    ("names", "words", "option"),
    [
        (["happy/S010_004_00000017.png", "sad/s010_005_00000018.png"], ["s010", "s010"], "ckplus"),
        (["a/AF01HAS.JPG", "b/BF01SAHL.JPG", "b/AM01SAHL.JPG", "b/other.jpg"], ["f01", "f01", "m01", ""], "kdef"),
        (["a/KA.HA1.29.tiff", "b/KM.SA2.30.tiff"], ["ka", "km"], "jaffe"),
        (["a/1.png"], None, None),
    ],
)
def test_people_of_known_sets(names: list[str], words: list[str] | None, option: str | None) -> None:
    """By the expression with which the set's own file reads them."""
    assert group_words("auto", names, None) == words
    assert named_like(names) == option


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("S[", "dataset.group=S[ is no regular expression"),
        ("folder:0", "folder:1 for the first below dataset.root"),
        ("folder:x", "folder:1 for the first"),
        ("column:", "names no column"),
    ],
)
def test_a_group_that_cannot_be_read(group: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        check_group(group)


@pytest.mark.parametrize("group", [r"S\d+", "folder:2", r"^happy/(S\d+)"])
def test_images_without_a_group_are_counted_and_the_first_named(group: str) -> None:
    with pytest.raises(
        ValueError, match=re.escape(f"dataset.group={group} gives no group for 2 of 3 images, e.g. sad/x.png")
    ):
        group_words(group, ["happy/S1/a.png", "sad/x.png", "sad/y.png"], None)


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("name", ["{path}", "{file}", "{stem}", "C:\\data\\{windows}"])
def test_the_group_of_a_column(tmp_path: Path, separator: str, name: str) -> None:
    names = ["happy/1.png", "sad/2.png", "sad/3.png"]
    rows = [["id", "image", "person"]]
    for number, (path, person) in enumerate(zip(names, ("anna", "ben", ""), strict=True)):
        # The row's number is another image's name.
        form = {"path": path, "file": Path(path).name, "stem": Path(path).stem, "windows": path.replace("/", "\\")}
        rows.append([str(number) if name != "{stem}" else "", name.format(**form), person])
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/people.csv").write_text("\n".join(separator.join(row) for row in rows))
    assert group_words("column:person", names, tmp_path) == ["anna", "ben", ""]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,person\n1.png,a\n", "gives no group for 1 of 2 images, e.g. sad/2.png; an empty cell"),
        ("image,person\n1.png,a\nfear/2.png,b\n", "gives no group for 1 of 2 images, e.g. sad/2.png"),
        ("image,person\n1.png,a\n1.png,b\n2.png,b\n", "people.csv gives happy/1.png the person a and b"),
        ("image,subject\n1.png,a\n", "no CSV file has this column; their columns are image, subject"),
        (None, "no CSV file has this column; there is none in"),
    ],
)
def test_a_column_that_does_not_give_every_group(tmp_path: Path, table: str | None, message: str) -> None:
    if table:
        (tmp_path / "people.csv").write_text(table)
    with pytest.raises(ValueError, match=re.escape(message)):
        group_words("column:person", ["happy/1.png", "sad/2.png"], tmp_path)


def test_a_row_that_names_two_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "people.csv").write_text("image,person\n1.png,a\n")
    with pytest.raises(ValueError, match=r"1\.png names both happy/1\.png and sad/1\.png"):
        group_words("column:person", ["happy/1.png", "sad/1.png"], tmp_path)


# Divisions ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", ["auto", r"S\d+", "column:person", None])
def test_images_of_a_person_stay_in_one_part(ck: Path, tmp_path: Path, group: str | None) -> None:
    root = shutil.copytree(ck, tmp_path / "ck")
    names = [path.relative_to(root).as_posix() for path in root.rglob("*.png")]
    (root / "people.csv").write_text("image,person\n" + "".join(f"{n},{n.split('/')[1][:4]}\n" for n in names))
    data = opened(root, group=group, test_fraction=0.3, val_fraction=0.3)
    assert (sum(map(len, people(data).values())) == PEOPLE) == (group is not None)
    assert data.data_summary().get("groups") == (group and {"number": PEOPLE, "between": {}})


def test_groups_too_large_for_a_part_are_refused(ck: Path) -> None:
    with pytest.raises(ValueError, match="each of the 9 groups is too large for a part of 2%: raise"):
        opened(ck, test_fraction=0.02)


def test_groups_in_two_official_parts_are_said_recorded_and_audited(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = {"train": dict.fromkeys(LABELS, 20), "test": dict.fromkeys(LABELS, 4)}
    class_folders(tmp_path / "faces", counts, {label: label for label in LABELS})
    with caplog.at_level(logging.WARNING):
        data = opened(tmp_path / "faces", group=r"\d+")
    stems = {part: {Path(name).stem for name in data.names(part)} for part in data.counts()}
    shared = stems["train"] & stems["test"]
    assert f"{len(shared)} groups (dataset.group=\\d+) with images in train and test, e.g. {min(shared)}" in caplog.text
    between = data.data_summary()["groups"]["between"]
    assert between["train-test"] == {"number": len(shared), "first": min(shared)}
    report = audit(FolderDataModule(name="x", root=tmp_path / "faces", cache_dir=tmp_path, group=r"\d+", classes=None))
    assert report["groups"] == {"train-test": sorted({Path(name).stem for name in data.names("test")})}
    assert f"groups: {len(report['groups']['train-test'])} have images in train and test, e.g. " in format_report(
        report
    )


def test_groups_between_parts() -> None:
    division = {"train": np.array([0, 1]), "val": np.array([2]), "test": np.array([3, 4])}
    assert groups_between(division, ["b", "a", "c", "a", "b"]) == {"train-test": ["a", "b"]}
    assert groups_between(division, [""] * 5) == {}


# Folds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folds", [3, "groups"])
def test_each_fold_tests_once_and_the_next_validates(ck: Path, folds: int | str) -> None:
    number = 3 if folds == 3 else PEOPLE
    each = [opened(ck, folds=folds, fold=fold) for fold in range(number)]
    parts = [people(data) for data in each]
    assert all(sum(map(len, part.values())) == PEOPLE for part in parts)
    assert all(part["val"] == parts[(fold + 1) % number]["test"] for fold, part in enumerate(parts))
    tested = [name for data in each for name in data.names("test")]
    assert len(tested) == len(set(tested)) == 4 * PEOPLE
    if folds == "groups":
        assert [part["test"] for part in parts] == [{f"S{person:03d}"} for person in range(PEOPLE)]
    # The folds of one division have another fingerprint each, and one in common, which no other division has.
    assert len({data.fingerprint for data in each}) == number
    (common,) = {data.data_summary()["folds"]["fingerprint"] for data in each}
    assert each[0].data_summary()["folds"] == {"number": number, "fingerprint": common}
    other = opened(ck, folds=folds, fold=0, class_map={"sad": "fear"})
    assert other.data_summary()["folds"]["fingerprint"] != common


def test_folds_do_not_depend_on_the_place_or_the_order_of_the_files(ck: Path, tmp_path: Path) -> None:
    for path in ck.rglob("*.png"):
        (tmp_path / "other" / path.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, tmp_path / "other" / path.parent.name / f"{9999 - int(path.stem[-2:])}_{path.name}")
    here, there = (opened(root, folds=3, fold=1, group=r"S\d+") for root in (ck, tmp_path / "other"))
    assert set(here.hashes("test").tolist()) == set(there.hashes("test").tolist())


def test_folds_without_groups_keep_copies_together(ck: Path, tmp_path: Path) -> None:
    root = shutil.copytree(ck, tmp_path / "ck")
    for path in list(root.rglob("*.png"))[:12]:
        shutil.copy(path, path.with_name(f"copy_{path.name}"))
    data = opened(root, folds=3, fold=2, group=None)
    assert data.data_summary()["copies"] == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fold": 1}, "dataset.fold=1 needs the number of folds"),
        ({"folds": 2, "fold": 0}, "dataset.folds=2 must be null, groups or at least 3"),
        ({"folds": "people", "fold": 0}, "dataset.folds=people must be null, groups or at least 3"),
        ({"folds": 3}, "dataset.folds=3 needs dataset.fold=0 to 2"),
        ({"folds": 3, "fold": 3}, "dataset.fold=3: x has the folds 0 to 2"),
        ({"folds": 3, "fold": -1}, "dataset.fold=-1 must be 0 or more"),
        ({"folds": "groups"}, "dataset.fold=None: x has the folds 0 to 8 (dataset.folds=groups): -m 'dataset.fold=r"),
        ({"folds": "groups", "fold": 9}, "dataset.fold=9: x has the folds 0 to 8"),
        ({"folds": "groups", "fold": 0, "group": None}, "dataset.folds=groups needs the groups"),
        ({"folds": "groups", "fold": 0, "group": "S000|$"}, "32 of 36 images have no group that can be left out"),
        ({"folds": 10, "fold": 0}, "dataset.folds=10: x has 9 groups (dataset.group=auto)"),
        ({"folds": 3, "fold": 0, "manifest": "x.csv"}, "both divide the data: leave one out"),
    ],
)
def test_folds_that_there_are_not(ck: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        opened(ck, **arguments)


def test_official_parts_are_not_mixed(tmp_path: Path) -> None:
    counts = {"train": dict.fromkeys(LABELS, 5), "test": dict.fromkeys(LABELS, 2)}
    class_folders(tmp_path / "raf", counts, {"surprise": "1", "happy": "4", "sad": "5", "anger": "6"})
    with pytest.raises(ValueError, match="x has the official parts train, test, which folds would mix"):
        opened(tmp_path / "raf", RAFDBDataModule, folds=3, fold=0)


def test_a_class_that_not_every_fold_has_is_said(ck: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        opened(ck, folds="groups", fold=0)
    assert "only 8 of 9 folds have images of sad" in caplog.text


def test_groups_that_share_a_copy_are_one() -> None:
    words, joined = ["b", "c", "a", "d"], np.array([1, 0, 0, 2])
    assert number_groups(words, joined).tolist() == [1, 0, 0, 2]
