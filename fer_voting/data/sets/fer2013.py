"""FER2013 (Goodfellow et al. 2013, arXiv:1307.0414): the csv with either header, and class folders."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.division import Division
from fer_voting.data.files import ClassFolders, FilesDataModule, Layout
from fer_voting.data.index import Index, Problem, Sample
from fer_voting.data.labels import canonical
from fer_voting.data.pack import Pack
from fer_voting.data.tables import Row, file_in, open_table, plain_name, whole_number
from fer_voting.system.messages import progress_bar

log = logging.getLogger(__name__)

ID_NAMES = ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_COLUMNS = ("emotion", "pixels", "Usage")
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
SIDE = 48
FILES = ("fer2013.csv", "icml_face_data.csv")

_TRAINING = dict(zip(ID_NAMES, (3995, 436, 4097, 7215, 4830, 3171, 4965), strict=True))
_PUBLIC_TEST = dict(zip(ID_NAMES, (467, 56, 496, 895, 653, 415, 607), strict=True))
_PRIVATE_TEST = dict(zip(ID_NAMES, (491, 55, 528, 879, 594, 416, 626), strict=True))


def csv_file(base: Path) -> Path | None:
    """The csv in a folder; if there are two, the first of FILES."""
    return file_in(base, *FILES)


def csv_files(base: Path) -> list[Path]:
    """That csv, if there is one."""
    return [path] if (path := csv_file(base)) else []


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(number from 0, row by column) of a csv. Raises ValueError if a column is missing."""
    with open_table(path, _COLUMNS) as table:
        table.require(*_COLUMNS)
        yield from enumerate(progress_bar(table.by_column(), desc=f"reading {path.name}", unit="row"))


def proper_usage(text: str | None) -> str | None:
    """The one of USAGES that a cell is, in any spelling of a column's name; None for another."""
    return next((usage for usage in USAGES if plain_name(usage) == plain_name(text or "")), None)


def parse_row(path: Path, number: int, row: Row, id_names: Sequence[str] = ID_NAMES) -> Sample | Problem:
    """A row as a sample, named by its number and labelled by its emotion, a position in `id_names`."""
    where = f"{path}, row {number}"
    emotion, pixels, usage = row["emotion"], row["pixels"], row["Usage"]
    if emotion is None or pixels is None or usage is None:
        return Problem("row", where, "too few columns")
    try:
        label = dict(enumerate(id_names))[whole_number(emotion)]
    except (KeyError, ValueError):
        return Problem("label", where, f"emotion {emotion!r} is not 0 to {len(id_names) - 1}")
    if (proper := proper_usage(usage)) is None:
        return Problem("row", where, f"Usage {usage!r} is none of {', '.join(USAGES)}")
    try:
        image = bytes(map(int, pixels.split()))
    except ValueError as error:
        return Problem("row", where, f"pixels: {error}")
    if len(image) != SIDE**2:
        return Problem("row", where, f"{len(image)} pixels instead of {SIDE**2}")
    return Sample(f"{number:05d}", label, USAGES[proper], pixels=image)


def read_csv(path: Path, id_names: Sequence[str] = ID_NAMES) -> Index:
    """Every row of a csv (`parse_row`)."""
    index = Index()
    index.use(path)
    for number, row in rows(path):
        index.add(parse_row(path, number, row, id_names))
    return index


class FER2013DataModule(FilesDataModule):
    """Training, PublicTest and PrivateTest are the training, validation and test part.

    If PrivateTest is missing, PublicTest is the test part, and a stratified share of Training (`val_fraction`)
    validates: the images that select the epoch are never the ones that are reported. Class folders have one held-out
    part, PublicTest and PrivateTest together, and are divided likewise.
    """

    layouts: tuple[Layout, ...] = (
        Layout(
            "csv",
            " or ".join(FILES),
            find=lambda root: root if csv_file(root) else None,
            read=lambda base, _: read_csv(csv_files(base)[0]),
            sources=csv_files,
            expected={"train": _TRAINING, "val": _PUBLIC_TEST, "test": _PRIVATE_TEST},
        ),
        ClassFolders(canonical, dict(enumerate(ID_NAMES))).layout(
            "folders",
            "train/<class>/ and test/<class>/ with images",
            {"train": _TRAINING, "test": {k: _PUBLIC_TEST[k] + _PRIVATE_TEST[k] for k in ID_NAMES}},
        ),
    )

    def official_parts(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        division = super().official_parts(pack, usable)
        if "val" in division and "test" in division:
            log.info(f"{self.name}: PublicTest validates and PrivateTest tests")
        elif "val" in division:
            log.info(f"{self.name}: no PrivateTest images here, so PublicTest is the test part")
            division["test"] = division.pop("val")
        return division
