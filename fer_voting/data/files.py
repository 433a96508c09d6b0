"""Data sets of files under a root: their layouts on disk, and the data module that reads them."""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import yaml
from numpy.typing import NDArray

from fer_voting.data.division import Division, format_counts, official_parts
from fer_voting.data.formats import HEIC_ADVICE, HEIC_SUFFIXES, image_formats, is_hidden, is_image, suffix_of
from fer_voting.data.groups import AUTO
from fer_voting.data.images import HASH_BYTES, PREPARATION_VERSION, READER_VERSION, decoder_digest
from fer_voting.data.index import (
    Counts,
    Index,
    LeftOut,
    NamedImages,
    Problem,
    Sample,
    bases,
    files_below,
    folded,
    links_out,
)
from fer_voting.data.labels import canonical_or_own, in_order
from fer_voting.data.module import FERDataModule
from fer_voting.data.pack import Pack, Source
from fer_voting.data.tables import decimal_number, file_in, open_table, open_text, plain_name, whole_number
from fer_voting.system.text import counted, escape
from fer_voting.targets import NUMBERS

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    Attributes:
        looks_for: for messages, what identifies this layout, e.g. "fer2013.csv".
        find: the folder under a root that holds it, or None.
        read: everything in the folder that `find` returned, given `dataset.class_names`.
        sources: the files and folders in it that `read` reads; if one changes, the pack is out of date.
        expected: published numbers of images by official part and class.
        columns: names of the samples' further annotations; a pack without them is out of date.
        options: of `read`, as text; packs that differ in them lie side by side.
        takes_all: whether every folder in the root is the data set's, so that results must not lie there.
    """

    name: str
    looks_for: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path, Sequence[str] | None], Index]
    sources: Callable[[Path], Iterable[Path]]
    expected: Counts = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    options: str = ""
    takes_all: bool = False


class FilesDataModule(FERDataModule):
    """A data set of files under `root`, in one of several layouts.

    Args:
        root: the folder that holds the data set.
        layout: name of a layout; `auto` takes the first one of `layouts` that is found.
        on_error: `skip` leaves out unusable images, `raise` stops at the first.
        max_bad_fraction: fraction of unusable images above which training is refused.
        val_fraction: fraction of the training images used for validation if there is no official validation part.
        class_names: the classes of numbered class folders in order, if it is not the data set's own.
        shared: see FERDataModule.
    """

    layouts: tuple[Layout, ...] = ()

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        layout: str = "auto",
        on_error: str = "skip",
        max_bad_fraction: float = 0.01,
        val_fraction: float = 0.1,
        class_names: Sequence[str] | None = None,
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
        self.numbered_names = None if class_names is None else [str(name) for name in class_names]

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
                if layout.takes_all and root.resolve() in self.cache_dir.resolve().parents:
                    raise ValueError(
                        f"dataset.root={self.root} holds the folder of results {self.cache_dir}, which would be taken "
                        "for a part of the data set: output_dir=DIR (or dataset.cache_dir=DIR) elsewhere"
                    )
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
            # Not the root: the same files in another place, or by another path, are one pack.
            place={
                "dataset": type(self).__name__,
                "layout": layout.name,
                "size": self.size,
                "source": stamp(layout.sources(base), base),
                **({"options": layout.options} if layout.options else {}),
            },
            state={
                "preparation": PREPARATION_VERSION,
                "reader": READER_VERSION,
                "formats": list(image_formats()),
                "decoder": decoder_digest(),
                "columns": list(layout.columns),
                "class_names": self.numbered_names,
            },
            read=lambda: self._read(layout, base),
            expected=layout.expected,
            base=base,
        )

    def _read(self, layout: Layout, base: Path) -> Index:
        index = layout.read(base, self.numbered_names)
        assert self.root is not None
        index.count_rest(Path(self.root).absolute(), self.cache_dir)
        if out := links_out(index.samples, base):
            index.notes.append(
                f"{counted(len(out), 'image', 'lies/lie')} outside of {base}, where symbolic links lead, "
                f"e.g. {escape(str(out[0]))}"
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
            val = self.sample(pack, train, self.val_fraction)
            division |= {"train": np.delete(train, val), "val": train[val]}
            log.info(
                f"{self.name}: no official validation part: a stratified {self.val_fraction:.0%} of the training "
                "images validates"
            )
        return division

    def official_parts(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        """Positions of the usable images of each official part that has any."""
        return official_parts(pack, usable)


class SampledDataModule(FilesDataModule):
    """A data set whose classes are those of its images, and of which test and validation images are sampled where it
    has no parts, stratified by class.

    Args:
        test_fraction: fraction of all images for testing if there are no parts; with 1, all of them are the test part,
            for `fer_voting.evaluate`.
        files: see FilesDataModule; `val_fraction` of the rest validates.
    """

    class_choices: ClassVar = (None,)

    def __init__(self, *, test_fraction: float = 0.1, group: str | None = AUTO, **files: Any) -> None:
        super().__init__(group=group, **files)
        if not 0 <= test_fraction <= 1:
            raise ValueError(f"dataset.test_fraction={test_fraction} must be from 0 to 1")
        self.test_fraction = test_fraction

    def names_of_classes(self, pack: Pack) -> tuple[str, ...]:
        return in_order(pack.labels)

    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        if pack.key["layout"] == "parts" or {*official_parts(pack, usable)} != {"train"} or not self.test_fraction:
            return super().divide(pack, usable)
        every = np.flatnonzero(usable)
        if self.test_fraction == 1:
            return {"test": every}
        test = every[self.sample(pack, every, self.test_fraction)]
        log.info(f"{self.name}: no test images given: a stratified {self.test_fraction:.0%} of all images tests")
        rest = usable.copy()
        rest[test] = False
        return {**super().divide(pack, rest), "test": test}


def stamp(sources: Iterable[Path], base: Path) -> str:
    """Hex digest of what could change a pack: names from `base` on, sizes and times of these files, and of the images
    and annotations in these folders.

    One `stat` per file: 3 s for the 583,300 files of AffectNet's second release on a local disk.
    """
    digest = hashlib.blake2b(digest_size=HASH_BYTES)

    def add(path: str, status: os.stat_result) -> None:
        # The change time too: it shows a file that was edited in place and got its size and modification time back.
        line = f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n"
        digest.update(line.encode(errors="surrogateescape"))

    seen: set[str] = set()
    for source in sources:
        name = os.path.relpath(source, base)
        if not source.is_dir():
            add(name, source.stat())
            continue
        for entry in files_below(source, seen):
            if _is_source(entry.name):
                # A link that leads nowhere is found when its image is read.
                add(name + entry.path.removeprefix(str(source)), entry.stat(follow_symlinks=os.path.exists(entry.path)))
    return digest.hexdigest()


def _is_source(name: str) -> bool:
    # AffectNet's second release has four label files per image; the landmarks are not read.
    return suffix_of(name) != ".npy" or name.endswith(("_exp.npy", "_val.npy", "_aro.npy"))


# Class folders, the form in which most copies of face data sets are shared ---------------------------------------

_PART_NAMES = {
    "train": ("train", "training", "train_set", "trainset"),
    "val": ("val", "valid", "validation", "val_set", "valid_set", "validation_set", "publictest"),
    "test": ("test", "testing", "test_set", "testset", "privatetest"),
}


def part_of(name: str) -> str | None:
    """The part that is called so: `Validation` is val."""
    return next((part for part, names in _PART_NAMES.items() if name.lower() in names), None)


_OFFICIAL_NAME = re.compile(
    r"(train|training|val|validation|test|publictest|privatetest)_?\d+(_aligned)?", re.IGNORECASE
)
"""Stem of an image that RAF-DB and FER2013 name by its official part: test_0001_aligned, PublicTest_123."""
LabelOf = Callable[[str], str | LeftOut]
"""A class folder's name -> its label, or why it is left out; ValueError for any other name."""
Numbers = Mapping[int, str | LeftOut]
"""Class folder's number -> its label, or why it is left out."""


def class_folders(folder: Path) -> list[Path]:
    """The folders in `folder`, sorted by name, without hidden ones."""
    return sorted(Path(entry) for entry in os.scandir(folder) if entry.is_dir() and not is_hidden(entry.name))


def part_folders(base: Path, names: Mapping[str, Sequence[str]] = _PART_NAMES) -> dict[str, Path]:
    """Part -> the folder in `base` with the first of the part's names, in any case."""
    folders = {path.name.lower(): path for path in class_folders(base)}
    # Backwards, so that the first name remains.
    return {part: folders[name] for part in names for name in reversed(names[part]) if name in folders}


@dataclass(frozen=True)
class ClassFolders:
    """How the class folders of a data set are called, and the layouts of such folders.

    Attributes:
        label_of: the label of a folder that is not called by a number.
        numbers: the data set's own numbers of its classes; without any, a number is a name as any other.
    """

    label_of: LabelOf
    numbers: Numbers = field(default_factory=dict)

    def find(self, root: Path) -> Path | None:
        """The first base whose train folder contains a class folder."""
        for base in bases(root):
            train = part_folders(base).get("train")
            if train is not None and any(self._is_class(path.name) for path in class_folders(train)):
                return base
        return None

    def _is_class(self, name: str) -> bool:
        if (number := _number(name)) is not None and self.numbers:
            return number in self.numbers
        try:
            self.label_of(name)
        except ValueError:
            return False
        return True

    def layout(self, name: str, looks_for: str, expected: Counts, **functions: Any) -> Layout:
        """The layout of class folders in train, val and test folders; `functions` replace a layout's own."""
        usual: dict[str, Any] = {
            "find": self.find,
            "read": lambda base, class_names: self.read(base, part_folders(base), class_names),
            "sources": lambda base: [*part_folders(base).values(), *side_files(base)],
        }
        return Layout(name, looks_for, **{**usual, **functions}, expected=expected)

    def read(
        self,
        base: Path,
        parts: Mapping[str, Path],
        class_names: Sequence[str] | None = None,
        listed: Mapping[str, Mapping[str, str]] | None = None,
    ) -> Index:
        """Every image in the class folders of the parts' folders, named by its path below `base`.

        Args:
            class_names: the classes of numbered folders in order.
            listed: part -> file name -> label in a label file; an image with another label is a problem.

        Raises ValueError if a class folder has no image (an empty one only in training), or if the folders' numbers are
        not the classes'.
        """
        index = Index()
        folders = [(part, folder) for part, parent in parts.items() for folder in class_folders(parent)]
        # A link in a class folder to these would give their images another label.
        own = set(map(os.path.realpath, (base, *parts.values(), *(folder for _, folder in folders))))
        found = {number for _, folder in folders if (number := _number(folder.name)) is not None}
        numbers = _numbering(index, base, found, self.numbers, class_names)
        for part, folder in folders:
            label: str | LeftOut | ValueError
            try:
                number = _number(folder.name)
                label = self.label_of(folder.name) if number is None or not numbers else numbers[number]
            except (KeyError, ValueError) as error:
                label = ValueError(f"no class has the number {error}" if isinstance(error, KeyError) else str(error))
            entries = list(files_below(folder, own - {os.path.realpath(folder)}))
            images = [Path(entry.path) for entry in entries if is_image(entry.path)]
            files = Counter(suffix_of(entry.name) or "no suffix" for entry in entries)
            if not images and (files or part == "train"):
                advice = f"; HEIC: {HEIC_ADVICE}" if set(files) & set(HEIC_SUFFIXES) else ""
                only = f"only {format_counts(files)}{advice}" if files else "it is empty: remove it if it is no class"
                raise ValueError(f"{folder} has no image, {only}")
            for path in images:
                if isinstance(label, ValueError):
                    index.add(Problem("label", str(path), str(label)), path)
                elif isinstance(label, LeftOut):
                    index.add(label, path)
                elif (other := (listed or {}).get(part, {}).get(path.name, label)) != label:
                    reason = f"the folder says {label}, the label file says {other}"
                    index.add(Problem("label", str(path), reason), path)
                else:
                    index.add(Sample(path.relative_to(base).as_posix(), label, part, path))
        if base not in parts.values():
            _note_other_parts(index, base, parts)
        _compare_with_labels(index, base, numbers)
        _compare_with_names(index)
        return index


def _note_other_parts(index: Index, base: Path, parts: Mapping[str, Path]) -> None:
    """Note folders in `base` that are called like a part that another folder is, e.g. `Training` beside `train`."""
    for path in class_folders(base):
        part = part_of(path.name) or ""
        if part in parts and path not in parts.values():
            index.notes.append(f"the {part} part is {parts[part].name}, so the folder {path.name} is not read")


def _number(name: str) -> int | None:
    """The number that a class folder is called by, if it is."""
    return int(name) if name.isascii() and name.isdecimal() and len(name) < 9 else None


def side_files(base: Path) -> list[Path]:
    """The files beside class folders that say what their numbers mean, or list labels."""
    return [path for name in (*_ORDER_FILES, _LABELS_FILE) if (path := file_in(base, name)) is not None]


_ORDER_FILES = ("data.yaml", "data.yml", "classes.txt")
_LABELS_FILE = "labels.csv"
_MAX_SIDE_BYTES = 2**24
_Names = Mapping[int, str] | Sequence[str]
"""Names of classes by number, or in order."""


def _numbering(index: Index, base: Path, found: set[int], own: Numbers, class_names: Sequence[str] | None) -> Numbers:
    """The labels of numbered class folders: by `dataset.class_names`, by a file beside them, or the data set's own.

    Raises ValueError if there are numbers without a label, or if they begin where the data set's own do not.
    """
    if not found:
        if class_names:
            raise ValueError(f"dataset.class_names is for numbered class folders, and {base} has none")
        return {}
    order: _Names
    order, source = (class_names, "dataset.class_names") if class_names else _order_beside(index, base)
    if order:
        if not isinstance(order, Mapping):
            order = dict(enumerate(order, 1 if 0 not in found and max(found) == len(order) else 0))
        numbers: Numbers = {number: canonical_or_own(name) for number, name in order.items()}
        if outside := sorted(found - numbers.keys()):
            raise ValueError(
                f"the class folders {', '.join(map(str, outside))} in {base} are none of the {len(order)} classes of "
                f"{source}"
            )
        differs = any(number in own and own[number] != numbers[number] for number in found)
        index.notes.append(
            f"numbered class folders are {_shown(numbers)}, by {source}"
            + (", where the data set's own order is another" if differs else "")
        )
        return numbers
    if own:
        other = 1 - min(own)
        if len(found) >= 6 and found == set(range(other, other + len(found))):
            raise ValueError(
                f"the class folders in {base} are numbered {min(found)} to {max(found)}, and the data set's own "
                f"numbers begin with {min(own)}: dataset.class_names=[...] says which classes they are, in order"
            )
        index.notes.append(
            f"numbered class folders are taken for {_shown(own)}; dataset.class_names=[...] gives another order"
        )
    return own


def _shown(numbers: Numbers) -> str:
    return ", ".join(f"{number} {label}" for number, label in numbers.items() if isinstance(label, str))


def _order_beside(index: Index, base: Path) -> tuple[_Names, str]:
    """Names of the classes, and the file that has them: `names` of data.yaml, classes.txt, or labels.csv's own list."""
    for path in side_files(base):
        if path.stat().st_size > _MAX_SIDE_BYTES:
            continue
        names = {".csv": _names_of_table, ".txt": _names_of_text}.get(path.suffix.lower(), _names_of_yaml)(path)
        if names:
            index.use(path)
            return names, path.name
    return (), ""


def _names_of_text(path: Path) -> _Names:
    """A name a line, each behind a number or none."""
    with open_text(path) as file:
        lines = [line.strip() for line in file.read().splitlines() if line.strip()]
    numbered = [match for line in lines if (match := re.fullmatch(r"(\d{1,8})[\s:,]+(.+)", line))]
    return {int(match[1]): match[2] for match in numbered} if len(numbered) == len(lines) else lines


def _names_of_yaml(path: Path) -> _Names:
    try:
        content = yaml.safe_load(path.read_bytes())
        names = content.get("names") if isinstance(content, dict) else None
        if isinstance(names, dict):
            return {whole_number(str(number)): str(name) for number, name in names.items()}
    except (yaml.YAMLError, UnicodeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} can't be read: {' '.join(str(error).split())[:200]}") from error
    return list(map(str, names)) if isinstance(names, list) else []


def _names_of_table(path: Path) -> _Names:
    """The names of a table of numbers and names: `id,name`."""
    with open_table(path, headless=True) as table:
        rows = list(table)
    names = {int(row[0]): row[1].strip() for row in rows if len(row) == 2 and row[0].strip().isdecimal()}
    return names if len(names) == len(rows) - 1 else {}


def _listed_number(text: str) -> int:
    """The number in a cell; -1, which is no class, for another text."""
    try:
        return whole_number(text)
    except ValueError:
        return -1


def _compare_with_labels(index: Index, base: Path, numbers: Numbers) -> None:
    """Note how often labels.csv, which lists images and classes, contradicts the folders, whose classes are used."""
    if (path := file_in(base, _LABELS_FILE)) is None:
        return
    images = NamedImages([sample.name for sample in index.samples])
    compared, differing = 0, []
    of_numbers: set[int] | None = None  # positions of their columns, which name no class
    with open_table(path, headless=True) as table:
        for row in table:
            if of_numbers is None:
                of_numbers = {i for i, cell in enumerate(row) if plain_name(cell) in NUMBERS}
            cells = [cell.strip() for i, cell in enumerate(row) if i not in of_numbers]
            for name, text in itertools.pairwise(cells):
                if labels := {index.samples[place].label for place in images.find(name)}:
                    compared += 1
                    listed = numbers.get(_listed_number(text)) if numbers else None
                    if folded(str(listed or canonical_or_own(text))) not in map(folded, labels):
                        differing.append(f"{name} ({' or '.join(labels)} by its folder, {text} by {path.name})")
                    break
    if compared or of_numbers:
        index.use(path)
    if differing:
        index.notes.append(
            f"{path.name} contradicts the class folders for {len(differing):,} of {compared:,} images, e.g. "
            f"{differing[0]}: the folders are used"
        )


_NAMES = ("image", "file", "filename", "image name", "name", "path", "image path", "file path")
"""Names of a column with an image's file; in another table, the first column has it."""


def read_numbers(base: Path, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Valence and arousal of the images by the columns of labels.csv, NaN where it has none: [N] by name.

    Args:
        base: the folder with labels.csv.
        names: of the N images, paths below `base`; a row names an image by its path, or by the end of it.

    Raises ValueError if there is no such table, or a row has another number than from -1 to 1, names several images, or
    one that another row has named.
    """
    if (path := file_in(base, _LABELS_FILE)) is None:
        raise ValueError(f"valence and arousal are columns of {base / _LABELS_FILE}, which does not exist")
    images = NamedImages(names)
    values = np.full((len(names), len(NUMBERS)), np.nan)
    listed, unknown = np.zeros(len(names), bool), 0
    with open_table(path, (*NUMBERS, *_NAMES)) as table:
        table.require(*NUMBERS)
        named = next((name for name in _NAMES if name in table.columns), table.columns[0])
        for cells in table.by_column():
            where, file = f"{path}, line {table.line}", cells[named] or ""
            found = images.find(file)
            if len(found) > 1 or listed[found].any():
                raise ValueError(f"{where}: {file} is {'several images' if len(found) > 1 else 'listed twice'}")
            unknown += not found
            listed[found] = True
            values[found] = [_number_in(cells[name], name, where) for name in NUMBERS]
    if unknown:
        log.warning(f"{path}: {unknown:,} rows name no image here")
    return dict(zip(NUMBERS, values.T, strict=True))


def _number_in(cell: str | None, name: str, where: str) -> float:
    if not (cell or "").strip():
        return np.nan
    try:
        value = decimal_number(str(cell))
    except ValueError:
        value = np.inf
    if not -1 <= value <= 1:
        raise ValueError(f"{where}: {name} is {cell}, and must be a number from -1 to 1, or empty where there is none")
    return value


def _compare_with_names(index: Index) -> None:
    """Note images whose name says another official part than their folder, e.g. test_0001.jpg in valid/."""
    found: dict[tuple[str, str], list[str]] = {}
    for sample in index.samples:
        if match := _OFFICIAL_NAME.fullmatch(Path(sample.name).stem):
            word = match[1].lower()
            part = part_of(word)
            if part != sample.part and not (word == "publictest" and sample.part == "test"):
                found.setdefault((word, sample.part), []).append(sample.name)
    for (word, part), names in found.items():
        index.notes.append(
            f"{counted(len(names), 'image')} called {word}_* in the {part} part, e.g. {names[0]}: results are "
            "not those of the official division"
        )
