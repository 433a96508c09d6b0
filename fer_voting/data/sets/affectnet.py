"""AffectNet (Mollahosseini et al. 2019, doi:10.1109/TAFFC.2017.2740923): its three releases and class folders."""

import contextlib
import json
import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.division import Division, official_parts
from fer_voting.data.files import ClassFolders, FilesDataModule, Layout, part_folders
from fer_voting.data.formats import is_hidden
from fer_voting.data.images import open_image
from fer_voting.data.index import Index, LeftOut, ListedFiles, Problem, Sample, bases, images_by_stem
from fer_voting.data.labels import CLASSES, canonical
from fer_voting.data.pack import Pack
from fer_voting.data.sampling import sample_by_class
from fer_voting.data.tables import decimal_number, file_in, open_table, small_file, whole_number
from fer_voting.system.messages import progress_bar
from fer_voting.system.text import counted
from fer_voting.targets import NUMBERS

log = logging.getLogger(__name__)

# The ids of every release: CLASSES, then these.
NO_CLASS = ("none", "uncertain", "non-face")

_TRAIN = dict(zip(CLASSES, (74874, 134415, 25459, 14090, 6378, 3803, 24882, 3750), strict=True))
_VAL = dict(zip(CLASSES, (500, 500, 500, 500, 500, 500, 500, 499), strict=True))
EXPECTED = {"train": _TRAIN, "val": _VAL}


def label_of_id(number: int) -> str | LeftOut:
    """The class of an expression id, or why its images are left out. Raises ValueError for an unknown id."""
    if not 0 <= number < len(CLASSES) + len(NO_CLASS):
        raise ValueError(f"expression {number} is not 0 to {len(CLASSES) + len(NO_CLASS) - 1}")
    return CLASSES[number] if number < len(CLASSES) else LeftOut(NO_CLASS[number - len(CLASSES)])


def label_of_text(text: str) -> str | LeftOut:
    """`label_of_id` for an id or a name in any spelling, as in folders and annotations."""
    text = text.strip().lower()
    if text.isdecimal():
        return label_of_id(int(text))
    plain = text.replace("-", "").replace("_", "").replace(" ", "")
    for name in NO_CLASS:
        if plain == name.replace("-", ""):
            return LeftOut(name)
    return canonical(text)


def _numbers(read: Callable[[str], float]) -> dict[str, float]:
    """Valence and arousal as `read` finds them by name; NaN for -2, which means none, and for whatever is no number."""
    numbers = {}
    for name in NUMBERS:
        try:
            value = read(name)
        except (KeyError, ValueError, OSError):
            value = math.nan
        numbers[name] = value if -1 <= value <= 1 else math.nan
    return numbers


IMAGES_LOOKED_AT, FEWEST_IMAGES = 200, 5
"""How many images are opened to compare their sizes with their boxes, and fewer than which say nothing."""


# Release 1: CSV files, whole images with a face box -------------------------------------------------------------

_COLUMNS = (
    "subDirectory_filePath", "face_x", "face_y", "face_width", "face_height",
    "facial_landmarks", "expression", "valence", "arousal",
)  # fmt: skip
_CSV_FILES = {"train": "training.csv", "val": "validation.csv"}


def _csv_folder(root: Path) -> Path | None:
    for base in bases(root):
        for folder in (base / "Manually_Annotated_file_lists", base):
            if all(file_in(folder, name) for name in _CSV_FILES.values()):
                return folder
    return None


def _image_folder(root: Path) -> Path | None:
    named = (base / "Manually_Annotated_Images" for base in bases(root))
    return next((path for path in (*named, root / "Manually_Annotated") if path.is_dir()), None)


def _release1_sources(root: Path) -> list[Path]:
    """training.csv, validation.csv and the folder of images."""
    lists, images = _csv_folder(root), _image_folder(root)
    assert lists is not None
    assert images is not None
    return [*filter(None, (file_in(lists, name) for name in _CSV_FILES.values())), images]


def read_release1(root: Path) -> Index:
    """The rows of training.csv and validation.csv; packing crops the images to the square about their face box."""
    *lists, folder = _release1_sources(root)
    index, images = Index(), ListedFiles(folder)
    index.use(*lists)
    for part, path in zip(_CSV_FILES, lists, strict=True):
        with open_table(path, _COLUMNS, headless=True) as table:  # some copies lack the header
            for row in progress_bar(table, desc=f"reading {path.name}", unit="row"):
                _add_release1_row(index, images, part, table.columns, row, f"{path}, line {table.line}")
    _refuse_corners(lists, index.samples)
    return index


def _refuse_corners(lists: Sequence[Path], samples: Sequence[Sample]) -> None:
    """Raises ValueError if face_width and face_height `hold_corners`, as the sizes of some images say."""
    boxed = [sample for sample in samples if sample.box is not None]
    rows: list[tuple[float, ...]] = []
    for sample in boxed[:: max(1, len(boxed) // IMAGES_LOOKED_AT)]:
        assert sample.path is not None
        assert sample.box is not None
        # Whoever decodes the image reports what is wrong with it.
        with contextlib.suppress(Exception), open_image(sample.path) as image:
            rows.append((*sample.box, *image.size))
    if len(rows) >= FEWEST_IMAGES and hold_corners(np.array(rows)):
        raise ValueError(
            f"{lists[0]} and {lists[1].name}: the columns face_width and face_height hold the boxes' right and lower "
            "ends: as sizes, most boxes leave their image. Subtract face_x and face_y from them"
        )


def hold_corners(rows: NDArray[np.float64]) -> bool:
    """Whether the sizes of boxes are their right and lower ends.

    As sizes, boxes leave their images; as ends, none does, and the boxes are squarer.

    Faces that really leave their image do so by less than a fifth, or are squarer by their sizes.

    Args:
        rows: left, top, right, bottom of each box by its sizes, and width and height of its image: [N, 6].
    """
    left, top, right, bottom, width, height = rows.T
    x, y = right - left, bottom - top
    fit = (left < x) & (x <= width) & (top < y) & (y <= height)
    if fit.mean() < 0.95:
        return False
    by_ends, by_sizes = (np.median(np.abs(np.log(w[fit] / h[fit]))) for w, h in ((x - left, y - top), (x, y)))
    beyond = np.maximum(right / width, bottom / height) - 1
    far = by_ends <= by_sizes and (beyond > 0.2).mean() > 0.5
    often = by_ends < 0.5 * by_sizes and (beyond > 0.02).mean() > 0.3
    return bool(far or often)


def _add_release1_row(
    index: Index, images: ListedFiles, part: str, columns: list[str], row: list[str], where: str
) -> None:
    if len(row) < len(columns):
        return index.add(Problem("row", where, f"{len(row)} columns instead of {len(columns)}"))
    cells = dict(zip(columns, row, strict=False))
    if missing := [name for name in _COLUMNS[:7] if name not in cells]:
        return index.add(Problem("row", where, f"there is no column {missing[0]}"))
    if (found := images.find(cells["subDirectory_filePath"])) is None:
        reason = f"{cells['subDirectory_filePath']!r} leads out of {images.folder}"
        return index.add(Problem("outside", where, reason))
    name, path = found
    return index.add(_release1_sample(cells, part, name, path, where), path)


def _release1_sample(cells: dict[str, str], part: str, name: str, path: Path, where: str) -> Sample | Problem | LeftOut:
    try:
        label = label_of_id(whole_number(cells["expression"]))
    except ValueError as error:
        return Problem("label", f"{path} ({where})", str(error))
    if isinstance(label, LeftOut):
        return label
    try:
        x, y, width, height = (decimal_number(cells[f"face_{side}"]) for side in ("x", "y", "width", "height"))
    except ValueError as error:
        return Problem("row", where, f"face box: {error}")
    if width < 0:
        return LeftOut("no face box")
    numbers = _numbers(lambda column: decimal_number(cells[column]))
    return Sample(f"{part}/{name}", label, part, path, box=(x, y, x + width, y + height), columns=numbers)


# Releases 2 and 3: cropped images, an annotation file each ------------------------------------------------------

_SET_NAMES = {"train": ("train_set",), "val": ("val_set", "valid_set", "validation_set")}


def _annotation_files(folder: Path, ending: str) -> Iterator[tuple[str, Path]]:
    """(image id, file) of every annotation in a folder."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(ending) and not is_hidden(entry.name):
                yield entry.name.removesuffix(ending), Path(entry.path)


def _find_annotated(root: Path, ending: str) -> Path | None:
    for base in (path for parent in bases(root) for path in (parent / "human_annotated", parent)):
        folder = base / "train_set" / "annotations"
        if folder.is_dir() and next(_annotation_files(folder, ending), None) is not None:
            return base
    return None


_NUMBER_ENDINGS = {"valence": "_val.npy", "arousal": "_aro.npy"}
"""Endings of the second release's files of numbers, beside those of the expressions."""


def _read_annotated(base: Path, ending: str, read_label: Callable[[Path], str | LeftOut], has_numbers: bool) -> Index:
    index = Index()
    for part, folder in part_folders(base, _SET_NAMES).items():
        annotations = dict(_annotation_files(folder / "annotations", ending))
        images = images_by_stem(folder / "images")
        for name in sorted(images.keys() - annotations.keys()):
            index.add(Problem("label", str(images[name]), f"no annotation in {folder / 'annotations'}"), images[name])
        ids = sorted(annotations, key=lambda name: (len(name), name))
        for name in progress_bar(ids, desc=f"reading {folder.name}/annotations", unit="file"):
            number_files = {}
            if has_numbers:
                number_files = {key: annotations[name].with_name(name + end) for key, end in _NUMBER_ENDINGS.items()}
                index.use(*number_files.values())
            try:
                label = read_label(small_file(annotations[name]))
            except (ValueError, KeyError, TypeError, EOFError, RecursionError, FileNotFoundError) as error:
                files = [annotations[name], *([images[name]] if name in images else [])]
                index.add(Problem("label", str(annotations[name]), f"{type(error).__name__}: {error}"), *files)
                continue
            index.use(annotations[name])
            if isinstance(label, LeftOut):
                index.add(label, *([images[name]] if name in images else []))
            elif name not in images:
                index.add(Problem("missing", str(folder / "images" / f"{name}.*"), f"no image for {annotations[name]}"))
            else:
                numbers = _numbers(partial(_number_of_file, number_files)) if has_numbers else {}
                index.add(Sample(f"{part}/{name}", label, part, images[name], columns=numbers))
    return index


def _number_of_file(files: Mapping[str, Path], name: str) -> float:
    return decimal_number(_npy_text(small_file(files[name])))


def _npy_label(path: Path) -> str | LeftOut:
    return label_of_id(whole_number(_npy_text(path)))


def _npy_text(path: Path) -> str:
    """The number in a file, which holds it or a string of it, as text. Raises ValueError, or FileNotFoundError."""
    try:
        # Mapped, so that a header that claims a huge array costs no memory; `np.load` takes archives too.
        array = np.load(path, allow_pickle=False, mmap_mode="r")
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "iufU":
            raise ValueError("the file holds no number")
        return str(array.item())
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy raises a type for each kind of damage
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _json_label(path: Path) -> str | LeftOut:
    return label_of_text(str(json.loads(path.read_text(encoding="utf-8"))["human-label"]))


def _annotated_layout(name: str, looks_for: str, ending: str, read_label: Any, **about: Any) -> Layout:
    return Layout(
        name,
        looks_for,
        find=lambda root: _find_annotated(root, ending),
        read=lambda base, _: _read_annotated(base, ending, read_label, "columns" in about),
        sources=lambda base: part_folders(base, _SET_NAMES).values(),
        **about,
    )


class AffectNetDataModule(FilesDataModule):
    """The official validation images are the test part; as many of each class are taken from the training images for
    validation (paper, section 3.2.1). Class folders with both val and test are used as they are. The first two releases
    have valence and arousal.

    Args:
        val_per_class: images of each class taken for validation.
        files: see FilesDataModule.
    """

    layouts: tuple[Layout, ...] = (
        Layout(
            "release1",
            "training.csv and validation.csv (in Manually_Annotated_file_lists/) with Manually_Annotated_Images/",
            find=lambda root: root if _csv_folder(root) and _image_folder(root) else None,
            read=lambda root, _: read_release1(root),
            sources=_release1_sources,
            expected=EXPECTED,
            columns=NUMBERS,
        ),
        _annotated_layout(
            "release2",
            "train_set/images/ with train_set/annotations/*_exp.npy, and val_set/",
            "_exp.npy",
            _npy_label,
            expected=EXPECTED,
            columns=NUMBERS,
        ),
        _annotated_layout(
            "release3",
            "human_annotated/train_set/images/ with human_annotated/train_set/annotations/*.json, and validation_set/",
            ".json",
            _json_label,
        ),
        ClassFolders(
            label_of_text, {number: label_of_id(number) for number in range(len(CLASSES) + len(NO_CLASS))}
        ).layout("folders", "train/<class name or id>/ and val/ or test/ with images", EXPECTED),
    )
    class_choices: ClassVar = (7, 8)
    numbers: ClassVar = NUMBERS

    def __init__(self, *, val_per_class: int = 500, **files: Any) -> None:
        super().__init__(**files)
        if val_per_class < 1:
            raise ValueError(f"dataset.val_per_class={val_per_class} must be at least 1")
        self.val_per_class = val_per_class

    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        official = official_parts(pack, usable)
        if "val" in official and "test" in official:
            log.info(f"{self.name}: the val and test folders are used as they are")
            return official
        train = official["train"]
        self.refuse_classes_without_images(train)
        labels = self.class_ids(pack)[train]
        counts = dict(zip(self.class_names, np.bincount(labels, minlength=len(self.class_names)), strict=True))
        for label, count in counts.items():
            if 0 < count <= self.val_per_class:
                raise ValueError(
                    f"dataset.val_per_class={self.val_per_class}: {self.name} has only "
                    f"{counted(count, 'training image')} of class {label} here"
                )
        wanted = [self.val_per_class * bool(count) for count in counts.values()]
        val = sample_by_class(pack.hashes[train], labels, wanted, self.data_seed, self.group_ids(pack, train))
        log.info(
            f"{self.name}: the official validation images are the test part; validation takes "
            f"{counted(self.val_per_class, 'training image')} of each class"
        )
        held_out = official.get("val", official.get("test"))
        test = {} if held_out is None else {"test": held_out}
        return {"train": np.delete(train, val), "val": train[val], **test}
