"""Rules that every reader of a data set follows, over kinds of names, files and layouts (docs/datasets.md)."""

import logging
import shlex
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import (
    CLASSES,
    FERPLUS_COLUMNS,
    RAFDB_IDS,
    SEVEN,
    affectnet_release1,
    affectnet_release2,
    class_folders,
    class_image,
    fer2013_csv,
    rafdb_official,
    release1_row,
    save,
    save_broken,
    shown_class,
    write_release1_csv,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fer_voting.config import compose
from fer_voting.data.division import differences
from fer_voting.data.files import part_folders
from fer_voting.data.formats import is_hidden
from fer_voting.data.labels import as_class_map, read_class_map
from fer_voting.data.module import FERDataModule
from fer_voting.data.quality import audit, format_report
from fer_voting.data.sets.affectnet import AffectNetDataModule
from fer_voting.data.sets.fer2013 import FER2013DataModule
from fer_voting.data.sets.ferplus import FERPlusDataModule, read_votes
from fer_voting.data.sets.folder import FOLDERS, FolderDataModule
from fer_voting.data.sets.rafdb import RAFDBDataModule
from fer_voting.system.text import counted

ALPHABETICAL = sorted(CLASSES)


def opened(kind: type[Any], root: Path, **arguments: Any) -> Any:
    settings = {"classes": kind.class_choices[0], "cache_dir": root.parent / "packs"} | arguments
    data = kind(name="x", root=root, **settings)
    data.setup()
    return data


def shows_its_labels(data: FERDataModule) -> bool:
    labels = [data.pack.labels[i] for i in data.pack.label_ids]
    return [shown_class(image) for image in data.pack.images] == labels


# 1: nothing disappears ----------------------------------------------------------------------------------------------

OTHER_FILES = st.sampled_from(
    ("notes.txt", "Thumbs.db", "a.heic", "._1.png", ".DS_Store", "x.csv", "clip.mp4", "LICENSE")
)
PLACES = st.sampled_from(
    ("", "train", "train/happy", "train/happy/deeper", "test/sad", "__MACOSX/train/happy", "extra")
)


@settings(max_examples=25, deadline=None)
@given(others=st.sets(st.tuples(PLACES, OTHER_FILES), max_size=8), stray=st.integers(0, 2))
def test_every_file_is_a_sample_a_problem_or_counted(others: set[tuple[str, str]], stray: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "faces"
        class_folders(root, {"train": {"happy": 4, "sad": 4}, "test": {"happy": 1, "sad": 1}}, {c: c for c in SEVEN})
        save_broken(root / "train" / "sad" / "broken.png")
        for place, name in others:
            (root / place).mkdir(parents=True, exist_ok=True)
            (root / place / name).write_bytes(b"no image")
        for number in range(stray):
            save(root / "train" / f"{number}.png", class_image("happy", number))
        data = opened(FolderDataModule, root, max_bad_fraction=0.5)
        assert int(data.pack.good.sum()) == 10
        assert len(data.pack.problems) == 1
        files = [path for path in root.rglob("*") if path.is_file()]
        assert len(files) == 11 + sum(data.pack.left_out.values())
        hidden = sum(any(map(is_hidden, path.relative_to(root).parts)) for path in files)
        assert hidden == sum(n for reason, n in data.pack.left_out.items() if reason.startswith("hidden: "))
        assert data.pack.left_out.get("not where the layout has images: .png", 0) == stray
        assert data.data_summary()["left_out"] == dict(data.pack.left_out)


def test_a_class_folder_that_loses_all_its_files_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "faces"
    class_folders(root, {"train": {"happy": 4, "sad": 4}}, {c: c for c in SEVEN})
    (root / "train" / "fear").mkdir()
    (root / "train" / "fear" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match=r"fear has no image, only \.heic 1; HEIC: convert them"):
        opened(FolderDataModule, root)


@pytest.mark.parametrize("kind", [FolderDataModule, RAFDBDataModule])
def test_an_empty_class_folder_is_an_error_in_training(tmp_path: Path, kind: type[Any]) -> None:
    root = tmp_path / "faces"
    class_folders(root, {"train": dict.fromkeys(SEVEN, 4), "test": {"sad": 1}}, {c: c for c in SEVEN})
    (root / "test" / "fear").mkdir()
    assert opened(kind, root).counts()["test"]["fear"] == 0
    for path in (root / "train" / "fear").iterdir():
        path.unlink()
    (root / "train" / "fear" / ".DS_Store").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"train/fear has no image, it is empty: remove it if it is no class"):
        opened(kind, root)


def test_results_below_the_class_folders_are_no_class(tmp_path: Path) -> None:
    class_folders(tmp_path, {"": {"happy": 5, "sad": 5}}, {c: c for c in SEVEN})
    with pytest.raises(ValueError, match=r"holds the folder of results .*outputs/packs, .*: output_dir=DIR"):
        opened(FolderDataModule, tmp_path, cache_dir=tmp_path / "outputs" / "packs")


def folders_without(label: str) -> Callable[[Path], type[Any]]:
    def make(root: Path) -> type[Any]:
        train = {name: 20 for name in SEVEN if name != label}
        class_folders(root, {"train": train, "test": dict.fromkeys(SEVEN, 4)}, {c: c for c in SEVEN})
        return FolderDataModule

    return make


def official_rafdb_without_anger(root: Path) -> type[Any]:
    rafdb_official(root, {"train": dict.fromkeys(SEVEN[:6], 20), "test": dict.fromkeys(SEVEN, 4)})
    return RAFDBDataModule


def fer2013_without_anger(root: Path) -> type[Any]:
    counts = {"Training": dict.fromkeys(SEVEN[:6], 20), "PrivateTest": dict.fromkeys(SEVEN, 4)}
    fer2013_csv(root / "fer2013.csv", counts)
    return FER2013DataModule


def affectnet_without_anger(root: Path) -> type[Any]:
    affectnet_release1(root, {"train": dict.fromkeys(SEVEN[:6], 9), "val": dict.fromkeys(SEVEN, 4)})
    return AffectNetDataModule


@pytest.mark.parametrize(
    "make", [folders_without("anger"), official_rafdb_without_anger, fer2013_without_anger, affectnet_without_anger]
)
def test_a_class_without_training_images_is_an_error(tmp_path: Path, make: Callable[[Path], type[Any]]) -> None:
    kind = make(tmp_path / "faces")
    arguments = {"val_per_class": 2} if kind is AffectNetDataModule else {}
    with pytest.raises(ValueError, match=r"no training images of anger: 'dataset.class_map=\{anger: null\}' trains"):
        opened(kind, tmp_path / "faces", **arguments)
    data = opened(kind, tmp_path / "faces", class_map={"anger": None}, **arguments)
    assert data.class_names == SEVEN[:6]
    assert data.pack.left_out["class anger"] == 4
    assert opened(kind, tmp_path / "faces", needs=("test",), **arguments)


@pytest.mark.parametrize("missing", [[], ["anger"]])
def test_the_audit_says_that_training_would_be_refused(tmp_path: Path, missing: list[str]) -> None:
    train = {name: 3 for name in SEVEN if name not in missing}
    class_folders(tmp_path / "faces", {"train": train, "test": dict.fromkeys(SEVEN, 1)}, {c: c for c in SEVEN})
    report = audit(FolderDataModule(name="x", root=tmp_path / "faces", cache_dir=tmp_path / "packs", classes=None))
    refused = "there are no training images of anger: 'dataset.class_map={anger: null}' trains without"
    assert report["refused"] == (refused if missing else None)
    assert (f"training is refused: {refused}" in format_report(report).splitlines()) == bool(missing)


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_one_class_is_named(tmp_path: Path, parts: tuple[str, ...]) -> None:
    class_folders(tmp_path / "faces", {part: {"happy": 9} for part in parts}, {"happy": "Joy"})
    number, place = 9 * len(parts), parts[0] and "train/"
    message = (
        rf"^x: there is only one class in .*faces: happy \({number} images, e\.g\. {place}Joy/0000.jpg\)\. Two or more"
    )
    with pytest.raises(ValueError, match=message):
        opened(FolderDataModule, tmp_path / "faces")


def test_a_class_map_that_leaves_one_class_or_none_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "faces", {"": {"happy": 9, "sad": 9}}, {c: c for c in SEVEN})
    with pytest.raises(
        ValueError, match=r"only one class in .*faces by dataset\.class_map=\{'sad': 'happy'\}: happy \(18"
    ):
        opened(FolderDataModule, tmp_path / "faces", class_map={"sad": "happy"})
    with pytest.raises(ValueError, match=r"there is no class in .*faces by dataset\.class_map="):
        opened(FolderDataModule, tmp_path / "faces", class_map={"sad": None, "happy": None})


def test_a_class_that_the_whole_data_set_lacks_is_an_error_too(tmp_path: Path) -> None:
    affectnet_release1(tmp_path / "a", {"train": dict.fromkeys(SEVEN, 9), "val": dict.fromkeys(SEVEN, 4)})
    arguments = {"val_per_class": 2, "classes": 8}
    with pytest.raises(ValueError, match=r"no training images of contempt: 'dataset.class_map=\{contempt: null\}'"):
        opened(AffectNetDataModule, tmp_path / "a", **arguments)
    assert opened(AffectNetDataModule, tmp_path / "a", class_map={"contempt": None}, **arguments).class_names == SEVEN


def test_a_manifest_without_a_class_in_training_is_an_error(tmp_path: Path) -> None:
    class_folders(tmp_path / "faces", {"": {"happy": 9, "sad": 9, "fear": 9}}, {c: c for c in SEVEN})
    lines = opened(FolderDataModule, tmp_path / "faces").manifest_file.read_text().splitlines()
    manifest = tmp_path / "own.csv"
    manifest.write_text("\n".join(line for line in lines if not (line.startswith("train,") and ",fear," in line)))
    with pytest.raises(ValueError, match="no training images of fear"):
        opened(FolderDataModule, tmp_path / "faces", manifest=manifest)


@pytest.mark.parametrize("target", ["faces", "faces/train", "faces/train/happy"])
def test_a_link_to_other_classes_gives_their_images_no_other_label(tmp_path: Path, target: str) -> None:
    class_folders(tmp_path / "faces", {"train": {"happy": 9, "sad": 9}}, {c: c for c in SEVEN})
    (tmp_path / "faces" / "train" / "sad" / "link").symlink_to(tmp_path / target)
    data = opened(FolderDataModule, tmp_path / "faces")
    assert len(data.pack) == 18
    assert shows_its_labels(data)


def test_a_second_folder_of_a_part_is_named(tmp_path: Path) -> None:
    counts = {part: {"happy": 9, "sad": 9} for part in ("train", "Training", "test")}
    class_folders(tmp_path / "faces", counts, {c: c for c in SEVEN})
    data = opened(FolderDataModule, tmp_path / "faces")
    assert "the train part is train, so the folder Training is not read" in data.data_summary()["notes"]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".JPG", "", ".jpg_large"])
def test_an_image_is_read_whatever_it_is_called(tmp_path: Path, suffix: str) -> None:
    for label in ("happy", "sad"):
        for number in range(10):
            path = tmp_path / "faces" / label / f"{number}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            class_image(label, number).save(path, "JPEG", quality=95, subsampling=0)
    data = opened(FolderDataModule, tmp_path / "faces")
    assert len(data.pack) == 20
    assert shows_its_labels(data)


# 3: a name is any name ----------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=("Cc", "Cs"), exclude_characters="/"), min_size=1, max_size=40).filter(
    lambda name: not is_hidden(name) and len(name.encode()) <= 200
)


@settings(max_examples=40, deadline=None)
@given(names=st.sets(NAMES, min_size=1, max_size=5))
def test_a_name_is_any_name(names: set[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "faces"
        for number in range(10):
            for label in ("happy", "sad"):
                save(root / label / f"{number}.png", class_image(label, number))
        for number, name in enumerate(sorted(names)):
            save(root / "happy" / f"{name}.png", class_image("happy", 100 + number))
        data = opened(FolderDataModule, root)
        assert not data.pack.problems
        assert {f"happy/{name}.png" for name in names} <= set(data.pack.names())
        again = opened(FolderDataModule, root, manifest=data.manifest_file)
        assert again.fingerprint == data.fingerprint


@pytest.mark.parametrize(("name", "reason"), [("a\nb", "control characters"), ("a\udcffb", "not text in UTF-8")])
def test_a_name_that_is_refused_has_its_reason(tmp_path: Path, name: str, reason: str) -> None:
    class_folders(tmp_path / "faces", {"": {"happy": 5, "sad": 5}}, {c: c for c in SEVEN})
    save(tmp_path / "faces" / "sad" / "plain.png", class_image("sad", 1))
    (tmp_path / "faces" / "sad" / "plain.png").rename(tmp_path / "faces" / "sad" / f"{name}.png")
    data = opened(FolderDataModule, tmp_path / "faces", max_bad_fraction=0.5)
    assert [problem.reason for problem in data.pack.problems if reason in problem.reason]
    assert len(data.pack) == 10


# 4: a path is typed as in any program -------------------------------------------------------------------------------

SHELL_WORDS = (
    "archive (3)",
    "AffectNet, 8",
    "lr=1",
    "it's",
    "[FER]",
    "50%",
    "$x",
    "#1",
    "a b ",
    "été",
    "{a}",
    "a\\b",
)
SHELL_WORDS += (
    "1e5",
    "b  c",
    "+plus",
    "!x",
    "a;b",
    'a"b',
    "a:b",
    "照片",
    "0123",
    "true",
    "choice(1,2)",
    "a,b",
    "\u3000x",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHELL_WORDS)
def test_a_path_is_typed_as_in_any_program(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    keys = ("dataset.root", "dataset.cache_dir", "dataset.manifest", "output_dir", "init_from", "teacher")
    config = compose(["dataset=folder", *(f"{key}={tmp_path / name}" for key in keys)])
    for key in keys:
        node = config
        for word in key.split("."):
            node = node[word]
        assert node == str(tmp_path / name)


def test_a_path_that_omegaconf_would_replace_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "${x}").mkdir()
    with pytest.raises(ValueError, match=r"\$\{x\}: a path with \$\{ in it can't be an option's value: rename it, or"):
        compose(["dataset=folder", f"dataset.root={tmp_path}/${{x}}"])


@settings(max_examples=100, deadline=None)
@given(names=st.sets(NAMES.filter(lambda name: name not in (".", "..") and name.strip()), min_size=2, max_size=2))
def test_no_two_folders_have_one_name(names: set[str]) -> None:
    folder_name = compose.__globals__["_folder_name"]
    first, second = (folder_name(f"/data/{name}") for name in names)
    assert first.isascii()
    assert first != second or len({Path(f"/data/{name}").name for name in names}) < 2


# 5: a layout is recognised or refused -------------------------------------------------------------------------------


def yolo(root: Path) -> None:
    for part in ("train", "valid"):
        save(root / part / "images" / "1.jpg", class_image("sad", 1))
        (root / part / "labels").mkdir()


def kdef(root: Path) -> None:
    for expression in ("AN", "DI", "AF", "HA", "SA", "SU", "NE"):
        save(root / "AF01" / f"AF01{expression}S.JPG", class_image("sad", 1))


def jaffe(root: Path) -> None:
    for number in range(3):
        save(root / f"KA.AN{number}.39.tiff", class_image("sad", number))


ELEVEN = {"train": dict.fromkeys(CLASSES, 2), "val": dict.fromkeys(CLASSES, 1)}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: affectnet_release1(root, ELEVEN), "AffectNet's layout release1, .*: dataset=affectnet"),
        (lambda root: affectnet_release2(root, ELEVEN), "AffectNet's layout release2, .*: dataset=affectnet"),
        (lambda root: rafdb_official(root, {"train": {"sad": 2}, "test": {"sad": 1}}), "RAF-DB's .* dataset=rafdb"),
        (lambda root: fer2013_csv(root / "fer2013.csv", {"Training": {"sad": 2}}), "FER2013's .* dataset=fer2013"),
        (yolo, "YOLO's layout"),
        (kdef, "KDEF's layout"),
        (jaffe, "JAFFE's layout"),
        (lambda root: class_folders(root / "in", {"": {"sad": 2, "happy": 2}}, {c: c for c in SEVEN}), "root=.*/in$"),
    ],
)
def test_another_layout_is_named(tmp_path: Path, make: Any, message: str) -> None:
    make(tmp_path / "faces")
    with pytest.raises(ValueError, match=message):
        opened(FolderDataModule, tmp_path / "faces")


def test_classes_that_are_no_expressions_are_listed_and_suggested(tmp_path: Path) -> None:
    class_folders(tmp_path / "faces", {"": {"sad": 9, "fear": 9}}, {"sad": "cats", "fear": "suprise"})
    notes = "\n".join(opened(FolderDataModule, tmp_path / "faces").data_summary()["notes"])
    assert "no class is an expression: the folders cats, suprise were taken for classes" in notes
    assert "dataset.class_map={suprise: surprise}" in notes


def test_class_names_fold_case_across_parts(tmp_path: Path) -> None:
    for part, names in (("train_set", ("Ahegao", "e\u0301te\u0301")), ("val_set", ("ahegao", "\u00e9t\u00e9"))):
        for name in names:
            for number in range(3):
                save(tmp_path / "faces" / part / name / f"{number}{part}.png", class_image("sad", number))
    data = opened(FolderDataModule, tmp_path / "faces")
    assert data.class_names == ("Ahegao", "e\u0301te\u0301")
    assert sum(data.counts()["val"].values()) == 6


# 6: numbers for classes are never guessed silently ------------------------------------------------------------------


def numbered(root: Path, order: list[str], first: int) -> None:
    names = {label: str(first + order.index(label)) for label in order}
    class_folders(root, {part: dict.fromkeys(order, 6) for part in ("train", "val", "test")}, names)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("by", ["data.yaml", "classes.txt", "labels.csv", "option"])
@pytest.mark.parametrize("kind", [AffectNetDataModule, FolderDataModule])
def test_an_order_of_numbers_is_read_or_given(tmp_path: Path, kind: type[Any], by: str, first: int) -> None:
    root, arguments = tmp_path / "faces", {}
    numbered(root, ALPHABETICAL, first)
    if by == "data.yaml":
        (root / by).write_text(f"nc: 8\nnames: {ALPHABETICAL}\n")
    elif by == "classes.txt":
        (root / by).write_text("\n".join(ALPHABETICAL))
    elif by == "labels.csv":
        (root / by).write_text("\n".join(["id,name", *(f"{first + i},{name}" for i, name in enumerate(ALPHABETICAL))]))
    else:
        arguments = {"class_names": ALPHABETICAL}
    data = opened(kind, root, classes=kind.class_choices[-1], **arguments)
    assert data.class_names == CLASSES
    assert shows_its_labels(data)
    (note,) = data.pack.notes
    assert f"numbered class folders are {first} anger" in note
    assert not [reason for reason in data.pack.left_out if reason.startswith("no image")]


@pytest.mark.parametrize(("name", "line", "head"), [
    ("data.yaml", "  {}: {}", "names:"), ("classes.txt", "{} {}", None), ("labels.csv", "{},{}", "id,name"),
])  # fmt: skip
@pytest.mark.parametrize("without", ["1", "7"])
def test_numbers_beside_names_are_those_of_the_folders(
    tmp_path: Path, name: str, line: str, head: str | None, without: str
) -> None:
    """From 1, and with a folder less: the place in the list is another number."""
    root, order = tmp_path / "faces", sorted(SEVEN)
    numbered(root, order, 1)
    for part in ("train", "val", "test"):
        shutil.rmtree(root / part / without)
    lines = [line.format(1 + place, label) for place, label in enumerate(order)]
    (root / name).write_text("\n".join(lines if head is None else [head, *lines]) + "\n")
    assert shows_its_labels(opened(FolderDataModule, root))


def test_an_assumed_order_is_said_and_one_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    numbered(tmp_path / "own", list(CLASSES), 0)
    (note,) = opened(AffectNetDataModule, tmp_path / "own").pack.notes
    assert "taken for 0 neutral, 1 happy" in note
    numbered(tmp_path / "one", list(CLASSES), 1)
    with pytest.raises(
        ValueError, match=r"numbered 1 to 8, and the data set's own numbers begin with 0: dataset.class"
    ):
        opened(AffectNetDataModule, tmp_path / "one")
    numbered(tmp_path / "zero", list(SEVEN), 0)
    with pytest.raises(ValueError, match=r"numbered 0 to 6, and the data set's own numbers begin with 1"):
        opened(RAFDBDataModule, tmp_path / "zero")
    with pytest.raises(ValueError, match=r"the class folders 3, 4, 5, 6 in .* are none of the 3 classes"):
        opened(FolderDataModule, tmp_path / "zero", class_names=["a", "b", "c"])


# 7: class_map -------------------------------------------------------------------------------------------------------


def test_a_class_map_renames_and_leaves_out(tmp_path: Path) -> None:
    names = {"fear": "afraid", "contempt": "contempt", "happy": "Happy", "sad": "sadness"}
    class_folders(tmp_path / "faces", {"": dict.fromkeys(names, 20)}, names)
    plain = opened(FolderDataModule, tmp_path / "faces")
    data = opened(FolderDataModule, tmp_path / "faces", class_map={"Afraid": "fear", "contempt": None, "sad": "low"})
    assert data.pack.folder == plain.pack.folder
    assert data.class_names == ("happy", "fear", "low")
    assert data.pack.left_out == {"class contempt": 20}
    for part in data.counts():
        for row in data.positions(part):
            label = {"low": "sad"}.get(name := data.pack.labels[data.pack.label_ids[row]], name)
            assert shown_class(data.pack.images[row]) == label
    with pytest.raises(ValueError, match=r"dataset\.class_map: x has no class afrad; its classes are .*afraid"):
        opened(FolderDataModule, tmp_path / "faces", class_map={"afrad": "fear"})


def test_published_counts_are_of_the_classes_by_their_map(tmp_path: Path) -> None:
    folders = {"disgust": "3", "anger": "6", "happy": "4", "fear": "2"}
    class_folders(tmp_path / "raf", {part: dict.fromkeys(folders, 5) for part in ("train", "test")}, folders)
    drop = dict.fromkeys(("neutral", "sad", "surprise", "fear"))
    data = opened(RAFDBDataModule, tmp_path / "raf", class_map={"disgust": "anger", **drop})
    assert data.expected == {"train": {"anger": 717 + 705, "happy": 4772}, "test": {"anger": 160 + 162, "happy": 1185}}


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(names=st.dictionaries(st.text(min_size=1, max_size=20).filter(str.isprintable), st.none() | st.just("fear")))
def test_a_class_map_that_is_suggested_can_be_typed(names: dict[str, str | None]) -> None:
    (word,) = shlex.split(as_class_map(names))
    assert read_class_map(compose(["dataset=folder", word]).dataset.class_map) == names


def test_a_whole_flat_set_can_be_the_test_part(tmp_path: Path) -> None:
    class_folders(tmp_path / "faces", {"": {"happy": 3, "fear": 2}}, {c: c for c in SEVEN})
    data = opened(FolderDataModule, tmp_path / "faces", test_fraction=1, needs=("test",))
    assert data.counts() == {"test": {"happy": 3, "fear": 2}}
    with pytest.raises(ValueError, match="there are no train images"):
        opened(FolderDataModule, tmp_path / "faces", test_fraction=1)


# 8 and 9: boxes -----------------------------------------------------------------------------------------------------


def test_rafdb_originals_are_cropped_by_their_boxes(tmp_path: Path) -> None:
    counts = {"train": dict.fromkeys(SEVEN, 10), "test": dict.fromkeys(SEVEN, 1)}
    rafdb_official(tmp_path / "raf", counts, "original")
    assert "there is no Annotation/boundingbox" in opened(RAFDBDataModule, tmp_path / "raf").pack.notes[0]
    boxes = tmp_path / "raf" / "Annotation" / "boundingbox"
    boxes.mkdir(parents=True)
    for path in (tmp_path / "raf" / "Image" / "original").iterdir():
        whole = Image.new("RGB", (200, 150), (255, 255, 255))
        whole.paste(Image.open(path), (100, 50))
        whole.save(path, quality=95, subsampling=0)
        (boxes / f"{path.stem}_boundingbox.txt").write_text("100.0 50.0 132.0 82.0 \n")
    data = opened(RAFDBDataModule, tmp_path / "raf")
    assert shows_its_labels(data)
    assert not data.pack.notes
    assert not data.pack.left_out
    (boxes / "train_00001_boundingbox.txt").unlink()
    data = opened(RAFDBDataModule, tmp_path / "raf", max_bad_fraction=0.1)
    assert "no box of four numbers" in data.pack.problems[0].reason


def test_a_list_of_rafdb_may_have_the_names_of_the_aligned_images(tmp_path: Path) -> None:
    path = rafdb_official(tmp_path / "raf", {"train": dict.fromkeys(SEVEN, 9), "test": dict.fromkeys(SEVEN, 1)})
    plain = opened(RAFDBDataModule, tmp_path / "raf")
    path.write_text(path.read_text().replace(".jpg", "_aligned.jpg"))
    assert opened(RAFDBDataModule, tmp_path / "raf").fingerprint == plain.fingerprint


# 10: two sources of one fact ----------------------------------------------------------------------------------------


def ferplus(root: Path, shift: int) -> None:
    lines = fer2013_csv(root / "fer2013.csv", {"Training": dict.fromkeys(SEVEN, 40)})
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(7), 40))
    rows = [f"{label},{line.split(',')[1]},Training" for label, line in zip(labels, lines[1:], strict=True)]
    (root / "fer2013.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    ids = ("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")
    votes = [",".join("8" if column == ids[label] else "0" for column in FERPLUS_COLUMNS) for label in labels]
    votes = votes[shift:] + votes[:shift]
    header = ",".join(["Usage", "Image name", *FERPLUS_COLUMNS])
    (root / "fer2013new.csv").write_text("\n".join([header, *(f"Training,a.png,{row}" for row in votes)]) + "\n")


@pytest.mark.parametrize("shift", [0, 1, 7])
def test_votes_of_other_rows_are_refused(tmp_path: Path, shift: int) -> None:
    root = tmp_path / "fer"
    root.mkdir()
    ferplus(root, shift)
    if shift:
        with pytest.raises(ValueError, match=r"do not belong together: up to row \d+, only \d+% of 100 labels agree"):
            opened(FERPlusDataModule, root)
    else:
        assert len(opened(FERPlusDataModule, root).pack) == 280


@pytest.fixture(scope="module")
def rows_of_fer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A folder with fer2013.csv, and 280 rows of votes; about 65 % of the labels agree, as in the real files."""
    root = tmp_path_factory.mktemp("rows") / "fer"
    root.mkdir()
    ferplus(root, 0)
    header, *rows = (root / "fer2013new.csv").read_text().splitlines()
    generator = np.random.default_rng(1)
    other = [row if generator.random() < 0.6 else rows[i - 50] for i, row in enumerate(rows)]
    return root, [header, *other]


@settings(max_examples=12, deadline=None)
@given(kind=st.sampled_from(("own", "shifted", "one removed", "permuted")), place=st.integers(1, 170))
def test_votes_of_moved_rows_are_refused_wherever_they_begin_to_differ(
    rows_of_fer: tuple[Path, list[str]], kind: str, place: int
) -> None:
    root, (header, *rows) = rows_of_fer
    if kind == "shifted":
        rows = rows[place:] + rows[:place]
    elif kind == "one removed":
        rows = [*rows[: place - 1], *rows[place:], rows[place - 1]]
    elif kind == "permuted":
        rows = [rows[i] for i in np.random.default_rng(place).permutation(len(rows))]
    (root / "fer2013new.csv").write_text("\n".join([header, *rows]))
    if kind == "own":
        assert len(read_votes(root).samples) == 280
    else:
        with pytest.raises(ValueError, match="do not belong together"):
            read_votes(root)


COUNTED = st.dictionaries(st.sampled_from(SEVEN), st.integers(0, 9), min_size=1)


@given(st.dictionaries(st.sampled_from(("train", "val", "test")), COUNTED), st.data())
def test_counts_are_compared_with_the_published_ones(here: dict[str, dict[str, int]], data: st.DataObject) -> None:
    published = data.draw(st.dictionaries(st.sampled_from(("train", "val", "test")), COUNTED))
    said = list(differences(here, published))
    differing = [
        part
        for part, counts in here.items()
        if any(published.get(part, {}).get(label, count) != count for label, count in counts.items())
    ]
    assert [line.split()[2] for line in said] == differing


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_contradictions_between_lists_names_and_folders_are_counted(data: st.DataObject) -> None:
    """Each image lies in a part and a class; a list gives it a class, and its name an official part."""
    drawn = st.tuples(*map(st.sampled_from, (("train", "val", "test"), SEVEN, SEVEN, ("train", "test", "mine"))))
    images = data.draw(st.lists(drawn, min_size=1, max_size=20))
    with tempfile.TemporaryDirectory() as folder:
        root, rows = Path(folder), ["name;label"]
        for number, (part, label, listed, word) in enumerate(images):
            path = root / part / label / f"{word}_{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            rows.append(f"{path.name};{listed}")
        (root / "labels.csv").write_text("\n".join(rows))
        index = FOLDERS.read(root, part_folders(root))
    assert len(index.samples) == len(images)
    contradicted = sum(label != listed for _, label, listed, _ in images)
    notes = [note for note in index.notes if note.startswith("labels.csv contradicts")]
    assert [note.partition(", e.g.")[0].split(" for ")[1] for note in notes] == (
        [f"{contradicted} of {len(images)} images"] if contradicted else []
    )
    elsewhere = Counter((word, part) for part, _, _, word in images if word not in ("mine", part))
    named = [note.partition(" part, e.g.")[0] for note in index.notes if "official division" in note]
    assert sorted(named) == sorted(f"{counted(n, 'image')} called {w}_* in the {p}" for (w, p), n in elsewhere.items())


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("prefix", ["", "C:\\data\\"])
def test_labels_beside_class_folders_that_contradict_them_are_said(tmp_path: Path, separator: str, prefix: str) -> None:
    class_folders(tmp_path / "faces", {"": {"happy": 9, "fear": 9}}, {c: c for c in SEVEN})
    files = sorted((tmp_path / "faces").rglob("*.*"))
    folder = prefix + "{}" + ("\\" if prefix else "/")
    rows = [
        f"{i},{folder.format(p.parent.name)}{p.name},{'sad' if i < 2 else p.parent.name},0.8"
        for i, p in enumerate(files)
    ]
    text = "\ufeff" + "\r\n".join([",pth,label,relFCs", *rows]).replace(",", separator)
    (tmp_path / "faces" / "labels.csv").write_text(text, encoding="utf-8")
    (note,) = opened(FolderDataModule, tmp_path / "faces").pack.notes
    assert note.startswith("labels.csv contradicts the class folders for 2 of 18 images, e.g. ")


def test_paths_beside_class_folders_whose_files_have_the_same_names_contradict_nothing(tmp_path: Path) -> None:
    names = [f"{label}/{number}.png" for label in ("happy", "fear") for number in range(9)]
    for name in names:
        save(tmp_path / "faces" / name, class_image(name.split("/")[0], int(name[-5])))
    rows = [f"/data/faces/{name},{name.split('/')[0]}" for name in names]
    (tmp_path / "faces" / "labels.csv").write_text("\n".join(["path,label", *rows]))
    assert opened(FolderDataModule, tmp_path / "faces").pack.notes == []


@pytest.mark.parametrize(("name", "part", "said"), [
    ("test_{:04d}_aligned", "valid", True), ("test_{:04d}", "train", True), ("PublicTest_{}", "test", False),
    ("train_{:05d}", "valid", True), ("PrivateTest_{}", "val", True), ("Training_{}", "train", False),
])  # fmt: skip
def test_official_images_in_another_part_are_named(tmp_path: Path, name: str, part: str, said: bool) -> None:
    for folder in {"train", part, "test"}:
        for label in SEVEN:
            for number in range(10):
                own = name.format(number) if folder == part else f"x{number}"
                save(tmp_path / "raf" / folder / label / f"{own}.png", class_image(label, number + 50 * len(folder)))
    notes = opened(RAFDBDataModule, tmp_path / "raf").pack.notes
    assert [note for note in notes if "results are not those of the official division" in note] == notes[: int(said)]


# 11: copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_copies_are_never_on_both_sides_of_a_division_that_we_make(tmp_path: Path, seed: int) -> None:
    """Copies of one label and of two; the parts that are made are the test and the validation part."""
    generator = np.random.default_rng(seed)
    for number in range(60):
        for copy in range(generator.integers(1, 4)):
            label = ("happy", "sad")[generator.integers(2)]
            save(tmp_path / "faces" / label / f"{number}_{copy}.png", class_image("happy", number))
    data = opened(FolderDataModule, tmp_path / "faces", data_seed=seed, test_fraction=0.3, val_fraction=0.3)
    assert data.data_summary()["copies"] == {}
    contents = [set(data.pack.hashes[data.positions(part)].tolist()) for part in ("train", "val", "test")]
    assert sum(map(len, contents)) == len(set().union(*contents))


def test_copies_between_given_parts_are_said_and_recorded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class_folders(
        tmp_path / "faces", {"train": {"happy": 9, "sad": 9}, "test": {"happy": 3, "sad": 3}}, {c: c for c in SEVEN}
    )
    shutil.copy(tmp_path / "faces/test/happy/0000.jpg", tmp_path / "faces/train/happy/copy.jpg")
    with caplog.at_level(logging.WARNING):
        data = opened(FolderDataModule, tmp_path / "faces")
    part = next(p for p in ("train", "val") if "train/happy/copy.jpg" in data.names(p))
    assert data.data_summary()["copies"] == {f"{part}-test": 1}
    assert f"1 {part} image also occurs in test: dataset.drop_leaks=true leaves them out" in caplog.text


# AffectNet's lists --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"subDirectory_filePath": lambda name: name.replace("/", "\\")},
        {"subDirectory_filePath": lambda name: f"Manually_Annotated_Images/{name}"},
        {"subDirectory_filePath": lambda name: f"C:\\data\\Manually_Annotated_Images\\{name}".replace("/", "\\")},
        {"subDirectory_filePath": lambda name: f"{name.rpartition('.')[0]}.jpeg"},
        {"subDirectory_filePath": lambda name: f"{name.rpartition('.')[0]}.JPG"},
        {"expression": lambda number: f"{number}.0"},
    ],
)
@pytest.mark.parametrize("twice", [False, True])
def test_lists_of_affectnet_as_copies_have_them(tmp_path: Path, change: dict[str, Any], twice: bool) -> None:
    counts = {"train": dict.fromkeys(SEVEN, 3), "val": dict.fromkeys(SEVEN, 1)}
    rows, _ = affectnet_release1(tmp_path / "a", counts)
    rows = [row | {key: function(row[key]) for key, function in change.items()} for row in rows] * (1 + twice)
    write_release1_csv(tmp_path / "a" / "Manually_Annotated_file_lists" / "training.csv", rows)
    data = opened(AffectNetDataModule, tmp_path / "a", val_per_class=1)
    assert shows_its_labels(data)
    assert len(data.pack) == 28
    assert data.pack.left_out == ({"listed twice": 21} if twice else {})


def test_a_row_that_contradicts_an_earlier_one_is_a_problem(tmp_path: Path) -> None:
    counts = {"train": dict.fromkeys(SEVEN, 20), "val": dict.fromkeys(SEVEN, 1)}
    rows, _ = affectnet_release1(tmp_path / "a", counts)
    rows.append(release1_row(rows[0]["subDirectory_filePath"], "anger", (40, 20, 32, 32)))
    write_release1_csv(tmp_path / "a" / "Manually_Annotated_file_lists" / "training.csv", rows)
    data = opened(AffectNetDataModule, tmp_path / "a", val_per_class=1)
    assert Counter(problem.reason for problem in data.pack.problems) == {"listed twice, as neutral and as anger": 1}


def test_the_numbers_of_rafdb_are_its_own(tmp_path: Path) -> None:
    names = {label: str(RAFDB_IDS.index(label)) for label in SEVEN}
    class_folders(tmp_path / "raf", {"train": dict.fromkeys(SEVEN, 9), "test": dict.fromkeys(SEVEN, 1)}, names)
    assert shows_its_labels(opened(RAFDBDataModule, tmp_path / "raf"))
