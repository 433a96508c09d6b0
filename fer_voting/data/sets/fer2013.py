"""FER2013 (Goodfellow et al. 2013, arXiv:1307.0414): the csv in both header forms, and image folders."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from fer_voting.data.files import FilesDataModule, Layout, find_split_folders, read_split_folders, split_folders
from fer_voting.data.index import Index, Problem, Sample
from fer_voting.data.labels import canonical

__all__ = ["FER2013DataModule", "csv_file", "parse_row", "rows"]

ID_NAMES = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
SIDE = 48
FILES = ("fer2013.csv", "icml_face_data.csv")
Row = dict[str | None, str | None]

_TRAINING = dict(zip(ID_NAMES, (3995, 436, 4097, 7215, 4830, 3171, 4965), strict=True))
_PUBLIC_TEST = dict(zip(ID_NAMES, (467, 56, 496, 895, 653, 415, 607), strict=True))
_PRIVATE_TEST = dict(zip(ID_NAMES, (491, 55, 528, 879, 594, 416, 626), strict=True))


def csv_file(base: Path) -> Path | None:
    """The csv in a folder, whichever of its two names it has."""
    return next((base / name for name in FILES if (base / name).is_file()), None)


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(number from 0, row by column name) of a csv; the names' leading spaces (icml_face_data.csv) are dropped.

    Raises:
        ValueError: a column is missing.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in table.fieldnames or ()]
        if missing := {"emotion", "pixels", "Usage"}.difference(columns):
            raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))}; it has {', '.join(columns)}")
        table.fieldnames = columns
        yield from enumerate(tqdm(table, desc=f"reading {path.name}", unit="row"))


def parse_row(path: Path, number: int, row: Row) -> Sample | Problem:
    """One row as a sample that is called by its number and labelled by its emotion."""
    where = f"{path}, row {number}"
    emotion, pixels, usage = row["emotion"], row["pixels"], row["Usage"]
    if emotion is None or pixels is None or usage is None:
        return Problem("row", where, "too few columns")
    if emotion.strip() not in map(str, range(len(ID_NAMES))):
        return Problem("label", where, f"emotion {emotion!r} is not 0 to {len(ID_NAMES) - 1}")
    if usage.strip() not in USAGES:
        return Problem("row", where, f"Usage {usage!r} is none of {', '.join(USAGES)}")
    try:
        picture = bytes(map(int, pixels.split()))
    except ValueError as error:
        return Problem("row", where, f"pixels: {error}")
    if len(picture) != SIDE**2:
        return Problem("row", where, f"{len(picture)} pixels instead of {SIDE**2}")
    return Sample(f"{number:05d}", ID_NAMES[int(emotion)], USAGES[usage.strip()], pixels=picture)


def read_csv(base: Path) -> Index:
    """Every row of the csv in `base`."""
    path = csv_file(base)
    assert path is not None
    index = Index()
    for number, row in rows(path):
        index.add(parse_row(path, number, row))
    return index


def folder_label(name: str) -> str:
    """A class folder's label: an expression's name, or an id of the csv."""
    return ID_NAMES[int(name)] if name in map(str, range(len(ID_NAMES))) else canonical(name)


class FER2013DataModule(FilesDataModule):
    """Training trains, PublicTest validates, PrivateTest tests. Folders have no PublicTest of their own: there, a
    share of the training images validates."""

    layouts: ClassVar = (
        Layout(
            "csv",
            " or ".join(FILES),
            lambda root: root if csv_file(root) else None,
            read_csv,
            lambda base: [base / name for name in FILES if (base / name).is_file()],
            {"train": _TRAINING, "val": _PUBLIC_TEST, "test": _PRIVATE_TEST},
        ),
        Layout(
            "folders",
            "train/<class>/ and test/<class>/ with images",
            lambda root: find_split_folders(root, folder_label),
            lambda base: read_split_folders(base, folder_label),
            lambda base: split_folders(base).values(),
            {"train": _TRAINING, "test": {k: _PUBLIC_TEST[k] + _PRIVATE_TEST[k] for k in ID_NAMES}},
        ),
    )
