"""AffectNet (Mollahosseini et al. 2019, doi:10.1109/TAFFC.2017.2740923) in its three releases and as image folders."""

import csv
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from fer_voting.data.division import draw
from fer_voting.data.files import FilesDataModule, Layout, find_split_folders, read_split_folders, split_folders
from fer_voting.data.index import IMAGE_SUFFIXES, Index, LeftOut, Problem, Sample, bases, inside
from fer_voting.data.labels import CLASSES, canonical
from fer_voting.data.module import Division
from fer_voting.data.pack import Pack

__all__ = ["AffectNetDataModule"]

log = logging.getLogger(__name__)

# The ids of every release: CLASSES, and then these.
NO_CLASS = ("none", "uncertain", "non-face")

_TRAIN = dict(zip(CLASSES, (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750), strict=True))
_VAL = dict(zip(CLASSES, (500, 500, 500, 500, 500, 500, 500, 499), strict=True))
EXPECTED = {"train": _TRAIN, "val": _VAL}


def label_of_id(number: int) -> str | LeftOut:
    """An expression id's class, or why such images are left out.

    Raises:
        ValueError: no release has this id.
    """
    if not 0 <= number < len(CLASSES) + len(NO_CLASS):
        raise ValueError(f"expression {number} is not 0 to {len(CLASSES) + len(NO_CLASS) - 1}")
    return CLASSES[number] if number < len(CLASSES) else LeftOut(NO_CLASS[number - len(CLASSES)])


def label_of_text(text: str) -> str | LeftOut:
    """The same for an id or a name in any spelling, as folders and annotations have them."""
    text = text.strip().lower()
    if text.isdigit():
        return label_of_id(int(text))
    plain = text.replace("-", "").replace("_", "").replace(" ", "")
    for name in NO_CLASS:
        if plain == name.replace("-", ""):
            return LeftOut(name)
    return canonical(text)


# --------------------------------------------------------------------------------------------------------------
# Release 1: CSV files, whole pictures with a face box
# --------------------------------------------------------------------------------------------------------------

_COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
    "facial_landmarks", "expression", "valence", "arousal",
)  # fmt: skip
_CSV_FILES = {"train": "training.csv", "val": "validation.csv"}


def _csv_folder(root: Path) -> Path | None:
    for base in bases(root):
        for folder in (base / "Manually_Annotated_file_lists", base):
            if all((folder / name).is_file() for name in _CSV_FILES.values()):
                return folder
    return None


def _image_folder(root: Path) -> Path | None:
    named = (base / "Manually_Annotated_Images" for base in bases(root))
    return next((path for path in (*named, root / "Manually_Annotated") if path.is_dir()), None)


def _release1_parts(root: Path) -> list[Path]:
    """training.csv, validation.csv and the folder of images."""
    lists, images = _csv_folder(root), _image_folder(root)
    assert lists is not None
    assert images is not None
    return [*(lists / name for name in _CSV_FILES.values()), images]


def read_release1(root: Path) -> Index:
    """Rows of training.csv and validation.csv; the pictures are cropped to their face box when packed."""
    *lists, images = _release1_parts(root)
    index = Index()
    for split, path in zip(_CSV_FILES, lists, strict=True):
        with path.open(newline="", encoding="utf-8-sig") as file:
            columns = list(_COLUMNS)  # some copies lack the header
            table = csv.reader(file)
            for row in tqdm(table, desc=f"reading {path.name}", unit="row"):
                if table.line_num == 1 and _COLUMNS[0] in (cell.strip() for cell in row):
                    columns = [cell.strip() for cell in row]
                else:
                    index.add(_release1_row(images, split, columns, row, f"{path}, line {table.line_num}"))
    return index


def _release1_row(
    images: Path, split: str, columns: list[str], row: list[str], where: str
) -> Sample | Problem | LeftOut:
    if len(row) < len(columns):
        return Problem("row", where, f"{len(row)} columns instead of {len(columns)}")
    cells = dict(zip(columns, row, strict=False))
    name = cells["subDirectory_filePath"]
    if (path := inside(images, name)) is None:
        return Problem("outside", where, f"{name!r} leads out of {images}")
    try:
        label = label_of_id(int(cells["expression"]))
    except ValueError as error:
        return Problem("label", f"{path} ({where})", str(error))
    if isinstance(label, LeftOut):
        return label
    try:
        x, y, width, height = (float(cells[f"face_{side}"]) for side in ("x", "y", "width", "height"))
    except ValueError as error:
        return Problem("row", where, f"face box: {error}")
    if width < 0:
        return LeftOut("no face box")
    return Sample(f"{split}/{name}", label, split, path, box=(x, y, x + width, y + height))


# --------------------------------------------------------------------------------------------------------------
# Releases 2 and 3: cropped pictures, an annotation file each
# --------------------------------------------------------------------------------------------------------------

_SET_NAMES = {"train": ("train_set",), "val": ("val_set", "valid_set", "validation_set")}


def _set_folders(base: Path) -> dict[str, Path]:
    """ "train" and "val" -> the folder that has its images and annotations."""
    found = {split: next((base / n for n in names if (base / n).is_dir()), None) for split, names in _SET_NAMES.items()}
    return {split: folder for split, folder in found.items() if folder is not None}


def _annotation_files(folder: Path, ending: str) -> Iterator[tuple[str, Path]]:
    """(image id, file) of every annotation in a folder, by its ending."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending):
                yield entry.name.removesuffix(ending), Path(entry.path)


def _find_annotated(root: Path, ending: str) -> Path | None:
    for base in (path for parent in bases(root) for path in (parent / "human_annotated", parent)):
        folder = base / "train_set" / "annotations"
        if folder.is_dir() and next(_annotation_files(folder, ending), None) is not None:
            return base
    return None


def _read_annotated(base: Path, ending: str, read_label: Callable[[Path], str | LeftOut]) -> Index:
    index = Index()
    for split, folder in _set_folders(base).items():
        annotations = dict(_annotation_files(folder / "annotations", ending))
        images = {
            os.path.splitext(entry.name)[0]: Path(entry.path)
            for entry in os.scandir(folder / "images")
            if os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES
        }
        ids = sorted(annotations.keys() | images.keys(), key=lambda name: (len(name), name))
        for name in tqdm(ids, desc=f"reading {folder.name}/annotations", unit="file"):
            index.add(_annotated(split, name, images.get(name), annotations.get(name), folder, read_label))
    return index


def _annotated(
    split: str,
    name: str,
    image: Path | None,
    annotation: Path | None,
    folder: Path,
    read_label: Callable[[Path], str | LeftOut],
) -> Sample | Problem | LeftOut:
    if annotation is None:
        return Problem("label", str(image), f"no annotation in {folder / 'annotations'}")
    try:
        label = read_label(annotation)
    except (ValueError, KeyError, TypeError, OSError, EOFError) as error:
        return Problem("label", str(annotation), f"{type(error).__name__}: {error}")
    if isinstance(label, LeftOut):
        return label
    if image is None:
        return Problem("missing", str(folder / "images" / f"{name}.*"), f"no image for {annotation.name}")
    return Sample(f"{split}/{name}", label, split, image)


def _npy_label(path: Path) -> str | LeftOut:
    """The file holds a number, or a string of one."""
    return label_of_id(int(np.load(path, allow_pickle=False).item()))


def _json_label(path: Path) -> str | LeftOut:
    return label_of_text(str(json.loads(path.read_text(encoding="utf-8"))["human-label"]))


# --------------------------------------------------------------------------------------------------------------
# The data set
# --------------------------------------------------------------------------------------------------------------


class AffectNetDataModule(FilesDataModule):
    """The official validation images test; as many of each class are drawn from the training images to validate
    (paper, section 3.2.1). Where a copy in folders has both a val and a test folder, they are taken as they are.

    Args:
        val_per_class: images of each class that are drawn to validate.
        files: see FilesDataModule.
    """

    layouts: ClassVar = (
        Layout(
            "release1",
            "training.csv and validation.csv (in Manually_Annotated_file_lists/) with Manually_Annotated_Images/",
            lambda root: root if _csv_folder(root) and _image_folder(root) else None,
            read_release1,
            _release1_parts,
            EXPECTED,
        ),
        Layout(
            "release2",
            "train_set/images/ with train_set/annotations/*_exp.npy, and val_set/",
            lambda root: _find_annotated(root, "_exp.npy"),
            lambda base: _read_annotated(base, "_exp.npy", _npy_label),
            lambda base: _set_folders(base).values(),
            EXPECTED,
        ),
        Layout(
            "release3",
            "human_annotated/train_set/images/ with human_annotated/train_set/annotations/*.json, and validation_set/",
            lambda root: _find_annotated(root, ".json"),
            lambda base: _read_annotated(base, ".json", _json_label),
            lambda base: _set_folders(base).values(),
        ),
        Layout(
            "folders",
            "train/<class name or id>/ and val/ or test/ with images",
            lambda root: find_split_folders(root, label_of_text),
            lambda base: read_split_folders(base, label_of_text),
            lambda base: split_folders(base).values(),
            EXPECTED,
        ),
    )
    class_choices: ClassVar = (7, 8)

    def __init__(self, *, val_per_class: int = 500, **files: Any) -> None:
        super().__init__(**files)
        if val_per_class < 1:
            raise ValueError(f"dataset.val_per_class={val_per_class} must be at least 1")
        self.val_per_class = val_per_class

    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        parts = self.official_parts(pack, usable)
        if "val" in parts and "test" in parts:
            log.info(f"{self.name}: takes the val and test folders as they are")
            return parts
        train = parts["train"]
        labels = self.class_ids(pack)[train]
        counts = dict(zip(self.class_names, np.bincount(labels, minlength=len(self.class_names)), strict=True))
        for label, count in counts.items():
            if count <= self.val_per_class:
                raise ValueError(
                    f"dataset.val_per_class={self.val_per_class}: {self.name} has only {count} training images "
                    f"of class {label} here"
                )
        drawn = draw(pack.hashes[train], labels, [self.val_per_class] * len(self.class_names), self.data_seed)
        rest = np.delete(train, drawn)
        official = parts.get("val", parts.get("test"))
        return {"train": rest, "val": train[drawn]} | ({} if official is None else {"test": official})
