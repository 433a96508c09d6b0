"""The result of a layout's reader, before any image is decoded: samples, problems and counts of left-out images."""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fer_voting.data.formats import HEIC_ADVICE, HEIC_SUFFIXES, image_suffixes, is_hidden, is_image, suffix_of
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
    """Everything that a reader found under a root: nothing disappears (`count_rest`)."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # reason -> number of images or other files
    notes: list[str] = field(default_factory=list)  # what was assumed or is contradictory, for the user to read
    _used: set[str] = field(default_factory=set)  # paths of files that are a sample, a problem, or were read
    _labels: dict[str, str] = field(default_factory=dict)  # sample's name -> label
    _spellings: dict[str, str] = field(default_factory=dict)  # folded label -> as it was first spelt

    def add(self, result: Sample | Problem | LeftOut, *files: Path) -> None:
        """Add an outcome.

        Args:
            files: those that it accounts for, besides the sample's own.
        """
        self.use(*files)
        match result:
            case Sample():
                self._add_sample(result)
            case Problem():
                self.problems.append(result)
            case LeftOut():
                self.left_out[result.why] += 1

    def use(self, *files: Path) -> None:
        """These files were read: `count_rest` does not count them."""
        self._used.update(map(str, files))

    def _add_sample(self, sample: Sample) -> None:
        if sample.path is not None:
            self.use(sample.path)
        where = str(sample.path or sample.name)
        if reason := _no_name(sample.name):
            self.problems.append(Problem("unreadable", escape(where), reason))
            return
        label = self._spellings.setdefault(folded(sample.label), sample.label)
        earlier = self._labels.setdefault(sample.name, label)
        if earlier != label:
            self.problems.append(Problem("label", where, f"listed twice, as {earlier} and as {label}"))
        elif len(self._labels) == len(self.samples):  # its name was there
            self.left_out["listed twice"] += 1
        else:
            self.samples.append(sample if label == sample.label else replace(sample, label=label))

    def count_rest(self, root: Path, without: Path) -> None:
        """Count the files below `root` that nothing was made of, by reason and suffix; not those in `without`."""
        folders: dict[str, str] = {}

        def real(path: str) -> str:
            folder, name = os.path.split(path)
            if folder not in folders:
                folders[folder] = os.path.realpath(folder)
            return os.path.join(folders[folder], name)

        used = set(map(real, self._used))
        for entry in files_below(root, {os.path.realpath(without)}, hidden=True):
            if real(entry.path) in used:
                continue
            suffix = suffix_of(entry.name)
            if any(map(is_hidden, os.path.relpath(entry.path, root).split(os.sep))):
                reason = "hidden"
            else:
                reason = "not where the layout has images" if suffix in image_suffixes() else "no image"
            self.left_out[f"{reason}: {escape(suffix) or 'no suffix'}"] += 1
        if any(f"no image: {suffix}" in self.left_out for suffix in HEIC_SUFFIXES):
            self.notes.append(f"HEIC photos are not read: {HEIC_ADVICE}")


def folded(name: str) -> str:
    """`name` in a form that is equal for two spellings of one class: "Ahegao" and "ahegao", composed and not."""
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _no_name(name: str) -> str | None:
    """Why `name` cannot name a sample; None if it can, in whatever script and with whatever spaces."""
    kinds = {unicodedata.category(char) for char in name}
    if "Cs" in kinds:
        return "its name is not text in UTF-8"
    return "its name has control characters" if "Cc" in kinds else None


def bases(root: Path) -> Iterator[Path]:
    """`root` and its folders, sorted: a layout may begin in each, because copies differ by one parent folder."""
    yield root
    yield from sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))


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


def files_below(folder: str | Path, seen: set[str] | None = None, hidden: bool = False) -> Iterator[os.DirEntry[str]]:
    """The files below `folder`, sorted by name.

    Each folder is entered once, whatever links lead to it (`seen`: the real paths of those so far).

    Args:
        hidden: also those that `is_hidden`, and those in hidden folders.
    """
    seen = set() if seen is None else seen
    if (real := os.path.realpath(folder)) in seen:
        return
    seen.add(real)
    with os.scandir(folder) as entries:
        visible = sorted((e for e in entries if hidden or not is_hidden(e.name)), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir():
            yield from files_below(entry.path, seen, hidden)
        else:
            yield entry


def image_files(folder: Path) -> Iterator[Path]:
    """The image files below `folder`, sorted by name (`files_below`)."""
    return (Path(entry.path) for entry in files_below(folder) if is_image(entry.path))


def images_by_stem(folder: Path) -> dict[str, Path]:
    """File name without suffix -> image file in `folder`; of several with one stem, the last by name."""
    files = (folder / name for name in sorted(os.listdir(folder)) if not is_hidden(name))
    return {path.stem: path for path in files if is_image(path)}


class NamedImages:
    """Finds the images that the cells of a table name: by their paths, or where one path is the end of the other.

    Args:
        names: of the N images, paths below one folder.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._whole: defaultdict[str, list[int]] = defaultdict(list)
        self._ends: defaultdict[str, list[int]] = defaultdict(list)
        for row, name in enumerate(names):
            self._whole[name].append(row)
            for end in _ends(name):
                self._ends[end].append(row)

    def find(self, cell: str) -> list[int]:
        """Positions of the images that a cell names."""
        cell = cell.strip().replace("\\", "/")
        return next((self._whole[end] for end in _ends(cell) if end in self._whole), self._ends.get(cell, []))


def _ends(path: str) -> list[str]:
    """`_ends("a/b.png") == ["a/b.png", "b.png"]`"""
    parts = path.split("/")
    return ["/".join(parts[first:]) for first in range(len(parts))]


class ListedFiles:
    """Finds the images that a list of a data set names below `folder`, as copies have them: with `\\` for `/`, with a
    path before `folder`'s name, with another suffix or one in another case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[Path, dict[str, Path]] = {}

    def find(self, name: str) -> tuple[str, Path] | None:
        """The path below the folder as text, and the file's, which may be missing; None if it leads out of `folder`."""
        parts = name.replace("\\", "/").split("/")
        if self.folder.name in parts:
            parts = parts[len(parts) - parts[::-1].index(self.folder.name) :]
        text = "/".join(parts)
        path = inside(self.folder, text)
        if path is None or not text:
            return None
        if path.parent not in self._names:
            self._names[path.parent] = self._listing(path.parent)
        names = self._names[path.parent]
        return text, names.get(path.name) or names.get(path.stem.lower()) or path

    @staticmethod
    def _listing(folder: Path) -> dict[str, Path]:
        """Name, and stem in lower case -> file."""
        try:
            files = [folder / name for name in sorted(os.listdir(folder)) if not is_hidden(name)]
        except OSError:
            return {}
        return {path.stem.lower(): path for path in files} | {path.name: path for path in files}
