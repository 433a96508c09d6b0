"""Folders of class folders, the form in which most copies of face data sets are shared."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from fer_voting.data.index import Index, LeftOut, Problem, Sample, bases, image_files

__all__ = ["class_folders", "find_split_folders", "read_class_folders", "read_split_folders", "split_folders"]

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
