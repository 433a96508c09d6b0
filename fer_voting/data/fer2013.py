"""FER2013 (Goodfellow et al. 2013, arXiv:1307.0414): the csv in both header forms, and image folders."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from tqdm import tqdm

from fer_voting.data.base import FilesDataModule, Layout
from fer_voting.data.index import Index, Problem, Sample
from fer_voting.data.labels import canonical

ID_NAMES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
USAGES = {"Training": "train", "PublicTest": "val", "PrivateTest": "test"}
SIDE = 48
_FILES = ("fer2013.csv", "icml_face_data.csv")


def csv_file(base: Path) -> Path | None:
    """The csv in a folder, whichever of its two names it has."""
    return next((base / name for name in _FILES if (base / name).is_file()), None)


def rows(path: Path) -> Iterator[tuple[int, dict[str, str | None]]]:
    """(number from 0, row by column name) of a csv; the names' leading spaces (icml_face_data.csv) are dropped."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        table = csv.DictReader(file, skipinitialspace=True)
        table.fieldnames = [name.strip() for name in table.fieldnames or ()]
        if missing := {"emotion", "pixels", "Usage"} - set(table.fieldnames):
            raise ValueError(f"{path} lacks the columns {', '.join(sorted(missing))} (has {table.fieldnames})")
        yield from enumerate(tqdm(table, desc=f"reading {path.name}", unit="row"))


def parse_row(path: Path, number: int, row: dict[str, str | None]) -> Sample | Problem:
    """One row as a sample called `<number>`, labelled by its emotion."""
    where = f"{path} row {number}"
    emotion, pixels, usage = row["emotion"], row["pixels"], row["Usage"]
    if emotion is None or pixels is None or usage is None:
        return Problem("row", where, "too few columns")
    if not emotion.strip().isdigit() or int(emotion) >= len(ID_NAMES):
        return Problem("label", where, f"emotion {emotion!r} is not 0 to {len(ID_NAMES) - 1}")
    if usage.strip() not in USAGES:
        return Problem("row", where, f"Usage {usage!r} is none of {', '.join(USAGES)}")
    try:
        values = np.array(pixels.split(), np.int64)
    except ValueError:
        return Problem("row", where, "pixels are not all numbers")
    if len(values) != SIDE**2 or values.min() < 0 or values.max() > 255:
        return Problem("row", where, f"{len(values)} pixels: expected {SIDE**2} from 0 to 255")
    return Sample(
        name=f"{number:05d}",
        label=canonical(ID_NAMES[int(emotion)]),
        split=USAGES[usage.strip()],
        pixels=values.astype(np.uint8).tobytes(),
    )


def read_csv(base: Path) -> Index:
    """Every row of the csv."""
    index = Index()
    path = csv_file(base)
    assert path is not None
    for number, row in rows(path):
        result = parse_row(path, number, row)
        (index.problems if isinstance(result, Problem) else index.samples).append(result)  # type: ignore[attr-defined]
    return index


class FER2013DataModule(FilesDataModule):
    """Training trains, PublicTest validates, PrivateTest tests."""

    layouts: ClassVar[tuple[Layout, ...]] = (
        Layout("csv", " or ".join(_FILES), lambda root: root if csv_file(root) else None, read_csv),
    )
    expected: ClassVar = {
        "train": {
            "neutral": 4965, "happy": 7215, "sad": 4830, "surprise": 3171, "fear": 4097, "disgust": 436, "anger": 3995
        },
        "val": {"neutral": 607, "happy": 895, "sad": 653, "surprise": 415, "fear": 496, "disgust": 56, "anger": 467},
        "test": {"neutral": 626, "happy": 879, "sad": 594, "surprise": 416, "fear": 528, "disgust": 55, "anger": 491},
    }  # fmt: skip
