"""Any folder of class folders: a user's own faces."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.division import draw_share
from fer_voting.data.files import (
    FilesDataModule,
    Layout,
    class_folders,
    read_class_folders,
    read_split_folders,
    split_folders,
)
from fer_voting.data.index import Index, image_files
from fer_voting.data.labels import CLASSES, canonical
from fer_voting.data.module import Division
from fer_voting.data.pack import Pack

__all__ = ["FolderDataModule"]


def label_of(name: str) -> str:
    """An expression's canonical name, or a class of the user's own as it is written."""
    try:
        return canonical(name)
    except ValueError:
        return name


def _find_splits(root: Path) -> Path | None:
    train = split_folders(root).get("train")
    return root if train is not None and class_folders(train) else None


def _find_flat(root: Path) -> Path | None:
    has_images = any(next(iter(image_files(folder)), None) for folder in class_folders(root))
    return root if has_images and not split_folders(root) else None


def _read_flat(root: Path) -> Index:
    index = Index()
    read_class_folders(index, root, root, "train", label_of, {})
    return index


class FolderDataModule(FilesDataModule):
    """Class folders in train, val and test folders, or without these. The classes are the folders: expressions in
    the canonical order, then others by name. What the folders leave open is drawn, stratified.

    Args:
        test_fraction: share of all images that tests where there are no train, val and test folders.
        files: see FilesDataModule; `val_fraction` of the rest validates.
    """

    layouts: ClassVar = (
        Layout(
            "splits",
            "train/<class>/, and val/ or test/, with images",
            _find_splits,
            lambda base: read_split_folders(base, label_of),
            lambda base: split_folders(base).values(),
        ),
        Layout("flat", "<class>/ with images", _find_flat, _read_flat, class_folders),
    )
    class_choices: ClassVar = (None,)

    def __init__(self, *, test_fraction: float = 0.1, **files: Any) -> None:
        super().__init__(**files)
        if not 0 <= test_fraction < 1:
            raise ValueError(f"dataset.test_fraction={test_fraction} must be from 0 to 1")
        self.test_fraction = test_fraction

    def names_of_classes(self, pack: Pack) -> tuple[str, ...]:
        return (*(n for n in CLASSES if n in pack.labels), *(n for n in pack.labels if n not in CLASSES))

    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        if pack.identity["layout"] == "splits" or not self.test_fraction:
            return super().divide(pack, usable)
        every = np.flatnonzero(usable)
        drawn = draw_share(pack.hashes[every], self.class_ids(pack)[every], self.test_fraction, self.data_seed)
        rest = np.zeros_like(usable)
        rest[np.delete(every, drawn)] = True
        return {**super().divide(pack, rest), "test": every[drawn]}
