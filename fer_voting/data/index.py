"""The result of a layout's reader, before any image is decoded: samples, problems and counts of left-out images."""

import contextlib
import csv
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from fer_voting.data.formats import is_hidden, is_image
from fer_voting.system.text import escape

Counts = Mapping[str, Mapping[str, int]]
"""part -> class -> images"""
PARTS = ("train", "val", "test")
"""The parts of a data set; a pack stores a part as its position here."""

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels"""
Numbers = float | tuple[float, ...]
"""An annotation besides the label: a number (e.g. valence), or several (e.g. how many raters voted for each class)."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image of a data set. Whether it can be decoded is known after packing."""

    name: str  # unique in the data set, independent of where the data set's folder lies
    label: str  # canonical if it names an expression (labels.py)
    part: str  # the official part, one of PARTS
    path: Path | None = None  # the image file; None if `pixels` is given
    pixels: bytes | None = None  # a square grey image, row by row
    box: Box | None = None  # the face, if the image shows more than the face
    columns: Mapping[str, Numbers] = field(default_factory=dict)  # further annotations, the same names in each sample


@dataclass(frozen=True, slots=True)
class Problem:
    """An image that cannot be used.

    Kinds: "missing", "unreadable", "truncated", "label" (out of range, contradictory or none), "row" (of a label
    file), "outside" (a file name that leads out of the root). The audit adds "blank", which is used.
    """

    kind: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image that the data set's own rules exclude, e.g. AffectNet's non-faces."""

    why: str


@dataclass
class Index:
    """Everything that a reader found under a root."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> number of images

    def add(self, result: Sample | Problem | LeftOut) -> None:
        match result:
            case Sample(name=name) if not name.isprintable():
                where = escape(str(result.path or name))
                self.problems.append(Problem("unreadable", where, "its name is not text, or has control characters"))
            case Sample():
                self.samples.append(result)
            case Problem():
                self.problems.append(result)
            case LeftOut():
                self.left_out[result.why] += 1


def bases(root: Path) -> Iterator[Path]:
    """`root` and its folders, sorted: a layout may begin in each, because copies differ by one parent folder."""
    yield root
    yield from sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))


@contextlib.contextmanager
def open_table(path: Path) -> Iterator[TextIO]:
    """A CSV file as text, for the readers of the module csv.

    Raises OSError; ValueError that names the file, here or while it is read, if it is not UTF-8 or no CSV.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            yield file
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not a CSV file: {error}") from error


def inside(root: Path, name: str) -> Path | None:
    """`root / name`, or None if the name in a label file leads out of `root`.

    Only the text is checked: a symbolic link below the root may lead anywhere (`links_out` finds them).
    """
    path = os.path.normpath(name)
    return None if os.path.isabs(path) or path.split(os.sep)[0] == ".." or "\0" in path else root / path


def links_out(samples: Sequence[Sample], root: Path) -> list[Path]:
    """The image files of `samples` that are not below `root` once symbolic links are resolved."""
    real_root = os.path.realpath(root)

    def is_out(real: str) -> bool:
        return os.path.commonpath([real_root, real]) != real_root

    paths = [sample.path for sample in samples if sample.path is not None]
    folders = {folder: is_out(os.path.realpath(folder)) for folder in {path.parent for path in paths}}
    return [p for p in paths if folders[p.parent] or (os.path.islink(p) and is_out(os.path.realpath(p)))]


def files_below(folder: str | Path, seen: set[str] | None = None) -> Iterator[os.DirEntry[str]]:
    """The files below `folder`, sorted by name; hidden files and folders are skipped.

    Each folder is entered once, whatever links lead to it (`seen`: the real paths of those so far).
    """
    seen = set() if seen is None else seen
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not is_hidden(entry.name)), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir():
            yield from files_below(entry.path, seen)
        else:
            yield entry


def image_files(folder: Path) -> Iterator[Path]:
    """The image files below `folder`, sorted by name (`files_below`)."""
    return (Path(entry.path) for entry in files_below(folder) if is_image(entry.path))


def images_by_stem(folder: Path) -> dict[str, Path]:
    """File name without suffix -> image file in `folder`; of several with one stem, the last by name."""
    files = (folder / name for name in sorted(os.listdir(folder)) if not is_hidden(name))
    return {path.stem: path for path in files if is_image(path)}
