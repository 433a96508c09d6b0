"""What lies on disk, before anything is decoded: samples, and what is wrong or left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".pgm", ".ppm"})


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled picture that a data set's files speak of; whether it can be decoded shows when packing."""

    name: str  # unique in the data set, and the same in every copy of the layout
    label: str  # canonical where the name is an expression's (see labels.py)
    split: str  # the official part: "train", "val" or "test"
    path: Path | None = None  # the image file, or None where `pixels` holds the picture
    pixels: bytes | None = None  # a square grey picture, row by row
    box: tuple[float, float, float, float] | None = None  # the face: left, top, right, bottom in pixels
    votes: tuple[int, ...] | None = None  # raters per class, in the order of CLASSES


@dataclass(frozen=True, slots=True)
class Problem:
    """A picture that can't be used, or (kind "blank") that a reader of the audit should know of."""

    kind: str  # "missing", "unreadable", "truncated", "label", "row", "outside" or "blank"
    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.reason}"


@dataclass
class Index:
    """Everything that a reader found under a root."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # why -> how many, by the data set's own rules


def inside(root: Path, name: str) -> Path | None:
    """`root / name`, or None where a file name out of a label file leads outside `root`.

    The text decides, not the disk: a link that the user put under the root may lead anywhere.
    """
    path = os.path.normpath(name)
    return None if os.path.isabs(path) or path.split(os.sep)[0] == ".." else root / path


def image_files(folder: Path) -> Iterable[Path]:
    """The image files below `folder`, in order of their names; hidden files and folders are passed over."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from image_files(Path(entry.path))
        elif os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES:
            yield Path(entry.path)
