"""What lies on disk, before anything is decoded: samples, and what is wrong or left out."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["IMAGE_SUFFIXES", "Box", "Index", "LeftOut", "Problem", "Sample", "bases", "image_files", "inside"]

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm"})

Box = tuple[float, float, float, float]
"""left, top, right, bottom in pixels"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture that a data set's files speak of; whether it can be decoded shows when packing."""

    name: str  # unique in the data set, and the same wherever the layout's folder lies
    label: str  # canonical where the name is an expression's (labels.py)
    split: str  # the official part: "train", "val" or "test"
    path: Path | None = None  # the image file, or None where `pixels` holds the picture
    pixels: bytes | None = None  # a square grey picture, row by row
    box: Box | None = None  # the face, where the picture shows more than it
    votes: tuple[int, ...] | None = None  # raters' votes, in an order that the data set defines


@dataclass(frozen=True, slots=True)
class Problem:
    """A picture that can't be used.

    Kinds: "missing", "unreadable", "truncated", "label" (out of range, contradictory or none), "row" (of a label
    file), "outside" (a file name that leads out of the root). The audit adds "blank", which is usable.
    """

    kind: str
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A picture that the data set's own rules leave out, e.g. AffectNet's non-faces."""

    why: str


@dataclass
class Index:
    """Everything that a reader found under a root."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # why -> how many

    def add(self, result: Sample | Problem | LeftOut) -> None:
        match result:
            case Sample():
                self.samples.append(result)
            case Problem():
                self.problems.append(result)
            case LeftOut():
                self.left_out[result.why] += 1


def bases(root: Path) -> Iterator[Path]:
    """Where a layout may begin: `root`, and its folders in order, because copies differ in one parent folder."""
    yield root
    yield from sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def inside(root: Path, name: str) -> Path | None:
    """`root / name`, or None where a name out of a label file leads outside `root`.

    The text decides, not the disk: a link that the user put under the root may lead anywhere.
    """
    path = os.path.normpath(name)
    return None if os.path.isabs(path) or path.split(os.sep)[0] == ".." else root / path


def image_files(folder: Path) -> Iterator[Path]:
    """The image files below `folder`, in order of their names; hidden files and folders are passed over."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from image_files(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            yield Path(entry.path)
