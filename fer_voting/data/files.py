"""Data sets of files under a root: their layouts on disk, and the data module that reads them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.division import Division, format_counts, official_parts
from fer_voting.data.formats import image_formats, is_hidden, suffix_of
from fer_voting.data.images import HASH_BYTES, PREPARATION_VERSION, READER_VERSION, decoder_digest
from fer_voting.data.index import (
    Counts,
    Index,
    LeftOut,
    Problem,
    Sample,
    bases,
    files_below,
    image_files,
    links_out,
)
from fer_voting.data.module import FERDataModule
from fer_voting.data.pack import Pack, Source
from fer_voting.data.sampling import sample_share

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    Attributes:
        looks_for: for messages, what identifies this layout, e.g. "fer2013.csv".
        find: the folder under a root that holds it, or None.
        read: everything in the folder that `find` returned.
        sources: the files and folders in it that `read` reads; if one changes, the pack is out of date.
        expected: published numbers of images by official part and class.
        columns: names of the samples' further annotations; a pack without them is out of date.
    """

    name: str
    looks_for: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path], Index]
    sources: Callable[[Path], Iterable[Path]]
    expected: Counts = field(default_factory=dict)
    columns: tuple[str, ...] = ()


class FilesDataModule(FERDataModule):
    """A data set of files under `root`, in one of several layouts.

    Args:
        root: the folder that holds the data set.
        layout: name of a layout; `auto` takes the first one of `layouts` that is found.
        on_error: `skip` leaves out unusable images, `raise` stops at the first.
        max_bad_fraction: fraction of unusable images above which training is refused.
        val_fraction: fraction of the training images used for validation if there is no official validation part.
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
        self.root, self.layout = None if root is None else str(root), layout
        self.on_error, self.max_bad_fraction, self.val_fraction = on_error, max_bad_fraction, val_fraction

    def find_layout(self) -> tuple[Layout, Path]:
        """The layout under `root`, and the folder that holds it.

        Raises ValueError if `root` is not set, FileNotFoundError if it is no folder or holds no known layout.
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
        names = sorted(entry.name for entry in root.iterdir())[:8]
        looked_for = "; ".join(f"({layout.name}) {layout.looks_for}" for layout in candidates)
        raise FileNotFoundError(
            f"dataset.root={self.root} holds no known layout of {self.name}: looked for {looked_for}; "
            f"found {', '.join(names) or 'an empty folder'}"
        )

    def source(self) -> Source:
        layout, base = self.find_layout()
        log.info(f"{self.name}: layout {layout.name} in {base}")
        return Source(
            place={"dataset": type(self).__name__, "layout": layout.name, "root": str(base), "size": self.size},
            state={
                "preparation": PREPARATION_VERSION,
                "reader": READER_VERSION,
                "formats": list(image_formats()),
                "decoder": decoder_digest(),
                "source": stamp(layout.sources(base)),
                "columns": list(layout.columns),
            },
            read=lambda: self._read(layout, base),
            expected=layout.expected,
        )

    def _read(self, layout: Layout, base: Path) -> Index:
        index = layout.read(base)
        if out := links_out(index.samples, base):
            log.warning(
                f"{self.name}: {len(out):,} images lie outside of {base}, where symbolic links lead, e.g. {out[0]}"
            )
        return index

    def check(self, pack: Pack) -> None:
        """Raises ValueError for more than `max_bad_fraction` unusable images, or with on_error=raise for any."""
        if not (bad := pack.problems):
            return
        if self.on_error == "raise":
            raise ValueError(f"{bad[0]} (dataset.on_error=raise)")
        total = int(pack.good.sum()) + len(bad)
        kinds = Counter(problem.kind for problem in bad)
        message = f"{self.name}: {len(bad):,} of {total:,} images can't be used ({format_counts(kinds)}), e.g. {bad[0]}"
        if len(bad) > self.max_bad_fraction * total:
            raise ValueError(
                f"{message}; dataset.max_bad_fraction={self.max_bad_fraction} allows fewer: "
                "python -m fer_voting.audit with the same dataset options lists them all"
            )
        log.warning(f"{message}: left out")

    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        """The official parts; without a validation part, a stratified share of the training images validates."""
        division = self.official_parts(pack, usable)
        if "val" not in division and "train" in division:
            train = division["train"]
            val = sample_share(pack.hashes[train], self.class_ids(pack)[train], self.val_fraction, self.data_seed)
            division |= {"train": np.delete(train, val), "val": train[val]}
            log.info(
                f"{self.name}: no official validation part: a stratified {self.val_fraction:.0%} of the training "
                "images validates"
            )
        return division

    def official_parts(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        """Positions of the usable images of each official part that has any."""
        return official_parts(pack, usable)


def stamp(sources: Iterable[Path]) -> str:
    """Hex digest of what could change a pack: names, sizes and times of these files, and of the images and
    annotations in these folders.

    One `stat` per file: 3 s for the 583,300 files of AffectNet's second release on a local disk.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)

    def add(path: str, status: os.stat_result) -> None:
        # The change time too: it shows a file that was edited in place and got its size and modification time back.
        line = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))

    seen: set[str] = set()
    for source in sources:
        if not source.is_dir():
            add(str(source), source.stat())
            continue
        for entry in files_below(source, seen):
            if _is_source(entry.name):
                # A link that leads nowhere is found when its image is read.
                add(entry.path, entry.stat(follow_symlinks=os.path.exists(entry.path)))
    return digest.hexdigest()


def _is_source(name: str) -> bool:
    # AffectNet's second release has four label files per image; only the expression is read.
    return suffix_of(name) != ".npy" or name.endswith("_exp.npy")


# Class folders, the form in which most copies of face data sets are shared ---------------------------------------

_PART_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
LabelOf = Callable[[str], str | LeftOut]
"""A class folder's name -> its label, or why it is left out; ValueError for any other name."""


def class_folders(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted by name, without hidden ones."""
    return sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))


def part_folders(base: Path, names: Mapping[str, Sequence[str]] = _PART_NAMES) -> dict[str, Path]:
    """Part -> the folder in `base` with the first of the part's names, in any case."""
    folders = {path.name.lower(): path for path in class_folders(base)}
    # Backwards, so that the first name remains.
    return {part: folders[name] for part in names for name in reversed(names[part]) if name in folders}


def find_part_folders(root: Path, label_of: LabelOf) -> Path | None:
    """The first base whose train folder contains a class folder."""
    for base in bases(root):
        train = part_folders(base).get("train")
        if train is not None and any(_is_class(path.name, label_of) for path in class_folders(train)):
            return base
    return None


def part_folders_layout(name: str, looks_for: str, label_of: LabelOf, expected: Counts, **functions: Any) -> Layout:
    """The layout of class folders in train, val and test folders; `functions` replace a layout's own."""

    def read(base: Path) -> Index:
        index = Index()
        for part, folder in part_folders(base).items():
            read_class_folders(index, base, folder, part, label_of)
        return index

    usual: dict[str, Any] = {
        "find": lambda root: find_part_folders(root, label_of),
        "read": read,
        "sources": lambda base: part_folders(base).values(),
    }
    return Layout(name, looks_for, **{**usual, **functions}, expected=expected)


def read_class_folders(
    index: Index,
    base: Path,
    folder: Path,
    part: str,
    label_of: LabelOf,
    expected_labels: Mapping[str, str] | None = None,
) -> None:
    """Add every image in `folder`'s class folders to `index`, named by its path below `base`.

    Args:
        expected_labels: file name -> label in a label file; an image with another label is a problem.
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
            elif (other := (expected_labels or {}).get(path.name, label)) != label:
                index.add(Problem("label", str(path), f"the folder says {label}, the label file says {other}"))
            else:
                index.add(Sample(name, label, part, path))


def _is_class(name: str, label_of: LabelOf) -> bool:
    try:
        label_of(name)
    except ValueError:
        return False
    return True
