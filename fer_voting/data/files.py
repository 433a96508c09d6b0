"""Data sets that are files under a root: their layouts on disk, and the data module that reads them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.division import draw_share
from fer_voting.data.index import Index, LeftOut, Problem, Sample, bases, image_files
from fer_voting.data.module import Counts, Division, FERDataModule, Source, listed
from fer_voting.data.pack import PREPARATION, SPLITS, Pack, stamp

__all__ = [
    "FilesDataModule",
    "Layout",
    "class_folders",
    "find_split_folders",
    "read_class_folders",
    "read_split_folders",
    "split_folders",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    Attributes:
        looks_for: for the user, what tells this layout, e.g. "fer2013.csv".
        find: the folder that holds it under a root, or None.
        read: everything in the folder that `find` gave.
        parts: the files and folders in it that `read` reads; a change in them makes a pack out of date.
        expected: published numbers of images, by official split and class.
    """

    name: str
    looks_for: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path], Index]
    parts: Callable[[Path], Iterable[Path]]
    expected: Counts = field(default_factory=dict)


class FilesDataModule(FERDataModule):
    """A data set of files under `root`, in one of several layouts.

    Args:
        root: the folder that holds the data set.
        layout: `auto` takes the first layout of `layouts` that is found.
        on_error: `skip` leaves out what can't be used, `raise` stops at the first.
        max_bad_fraction: share of unusable images above which training stops.
        val_fraction: share of the training images that validates where there is no official validation part.
        shared: see FERDataModule.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ()

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        layout: str = "auto",
        on_error: str = "skip",
        max_bad_fraction: float = 0.01,
        val_fraction: float = 0.1,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        known = [layout.name for layout in self.layouts]
        if layout not in ("auto", *known):
            raise ValueError(f"dataset.layout={layout} must be auto, {' or '.join(known)}")
        if on_error not in ("skip", "raise"):
            raise ValueError(f"dataset.on_error={on_error} must be skip or raise")
        if not 0 < val_fraction < 1:
            raise ValueError(f"dataset.val_fraction={val_fraction} must be between 0 and 1")
        self.root, self.layout = root, layout
        self.on_error, self.max_bad_fraction, self.val_fraction = on_error, max_bad_fraction, val_fraction

    def find_layout(self) -> tuple[Layout, Path]:
        """The layout under `root`, and the folder in which it lies.

        Raises:
            ValueError: `root` is not set.
            FileNotFoundError: there is no such folder, or no known layout in it.
        """
        if self.root is None:
            raise ValueError(f"dataset.root is not set: give the folder that holds {self.name}, dataset.root=DIR")
        root = Path(self.root).absolute()
        if not root.is_dir():
            raise FileNotFoundError(f"dataset.root={self.root} is not a folder")
        candidates = [layout for layout in self.layouts if self.layout in ("auto", layout.name)]
        for layout in candidates:
            if (base := layout.find(root)) is not None:
                return layout, base
        there = sorted(entry.name for entry in root.iterdir())[:8]
        looked_for = "; ".join(f"({layout.name}) {layout.looks_for}" for layout in candidates)
        raise FileNotFoundError(
            f"dataset.root={self.root} holds no layout of {self.name} that is known: looked for {looked_for}; "
            f"found {', '.join(there) or 'an empty folder'}"
        )

    def source(self) -> Source:
        layout, base = self.find_layout()
        log.info(f"{self.name}: layout {layout.name} in {base}")
        identity = {
            "dataset": type(self).__name__,
            "layout": layout.name,
            "root": str(base),
            "size": self.size,
            "preparation": PREPARATION,
            "source": stamp(layout.parts(base)),
        }
        return Source(identity, lambda: layout.read(base), expected=layout.expected)

    def check(self, pack: Pack) -> None:
        """Raises ValueError where more than `max_bad_fraction` of the images, or with on_error=raise any, is bad."""
        if not (bad := pack.problems):
            return
        if self.on_error == "raise":
            raise ValueError(f"{bad[0]} (dataset.on_error=raise)")
        total = int(pack.good.sum()) + len(bad)
        kinds = Counter(problem.kind for problem in bad)
        told = f"{self.name}: {len(bad):,} of {total:,} images can't be used ({listed(kinds)}), e.g. {bad[0]}"
        if len(bad) > self.max_bad_fraction * total:
            raise ValueError(
                f"{told}; dataset.max_bad_fraction={self.max_bad_fraction} allows fewer: "
                "python -m fer_voting.audit with the same dataset options lists them all"
            )
        log.warning(f"{told}: left out")

    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        """The official parts; where there is no validation part, a stratified share of the training images."""
        parts = self.official_parts(pack, usable)
        if "val" not in parts and "train" in parts:
            train = parts["train"]
            drawn = draw_share(pack.hashes[train], self.class_ids(pack)[train], self.val_fraction, self.data_seed)
            parts |= {"train": np.delete(train, drawn), "val": train[drawn]}
        return parts

    @staticmethod
    def official_parts(pack: Pack, usable: NDArray[np.bool_]) -> Division:
        """Positions of the usable images of each official split that has any."""
        parts = {split: np.flatnonzero(usable & (pack.split_ids == i)) for i, split in enumerate(SPLITS)}
        return {split: positions for split, positions in parts.items() if len(positions)}


# Folders of class folders, the form in which most copies of face data sets are shared ------------------------

_SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
LabelOf = Callable[[str], str | LeftOut]
"""A class folder's name -> its label, or why it is left out; ValueError for a name that is neither."""


def class_folders(folder: Path) -> list[Path]:
    """The folders in `folder`, in order of their names; hidden ones are passed over."""
    return sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def split_folders(base: Path) -> dict[str, Path]:
    """ "train", "val" and "test" -> the folder in `base` that is called so, whatever its case."""
    there = {path.name.lower(): path for path in class_folders(base)}
    found = {split: next((there[n] for n in names if n in there), None) for split, names in _SPLIT_NAMES.items()}
    return {split: path for split, path in found.items() if path is not None}


def find_split_folders(root: Path, label_of: LabelOf) -> Path | None:
    """The first base with a train folder in which some folder is a class."""
    for base in bases(root):
        train = split_folders(base).get("train")
        if train is not None and any(_is_class(path.name, label_of) for path in class_folders(train)):
            return base
    return None


def read_split_folders(base: Path, label_of: LabelOf) -> Index:
    """The class folders in `base`'s train, val and test folders."""
    index = Index()
    for split, folder in split_folders(base).items():
        read_class_folders(index, base, folder, split, label_of, {})
    return index


def read_class_folders(
    index: Index,
    base: Path,
    folder: Path,
    split: str,
    label_of: LabelOf,
    expected_labels: Mapping[str, str],
) -> None:
    """Add every image in `folder`'s class folders to `index`, named by its path below `base`.

    Args:
        expected_labels: file name -> what a label file says; a picture of which it says otherwise is a problem.
    """
    for class_folder in class_folders(folder):
        label: str | LeftOut | ValueError
        try:
            label = label_of(class_folder.name)
        except ValueError as error:
            label = error
        for path in image_files(class_folder):
            name = path.relative_to(base).as_posix()
            if isinstance(label, ValueError):
                index.add(Problem("label", str(path), str(label)))
            elif isinstance(label, LeftOut):
                index.add(label)
            elif (other := expected_labels.get(path.name, label)) != label:
                index.add(Problem("label", str(path), f"the folder says {label}, the label file says {other}"))
            else:
                index.add(Sample(name, label, split, path))


def _is_class(name: str, label_of: LabelOf) -> bool:
    try:
        label_of(name)
    except ValueError:
        return False
    return True
