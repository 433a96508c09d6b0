"""Any folder of class folders: a user's own faces."""

import logging
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.division import Division
from fer_voting.data.files import (
    FilesDataModule,
    Layout,
    class_folders,
    part_folders,
    part_folders_layout,
    read_class_folders,
)
from fer_voting.data.index import Index, image_files
from fer_voting.data.labels import CLASSES, canonical
from fer_voting.data.pack import Pack
from fer_voting.data.sampling import sample_share

log = logging.getLogger(__name__)


def label_of(name: str) -> str:
    """The canonical name of an expression; any other folder's name as it is."""
    try:
        return canonical(name)
    except ValueError:
        return name


def _find_parts(root: Path) -> Path | None:
    train = part_folders(root).get("train")
    return root if train is not None and class_folders(train) else None


def _find_flat(root: Path) -> Path | None:
    has_images = any(next(iter(image_files(folder)), None) for folder in class_folders(root))
    return root if has_images and not part_folders(root) else None


def _read_flat(root: Path) -> Index:
    index = Index()
    read_class_folders(index, root, root, "train", label_of)
    return index


class FolderDataModule(FilesDataModule):
    """Class folders in train, val and test folders, or only class folders. The classes are the folders: expressions
    in the canonical order, then others by name. Missing parts are sampled, stratified by class.

    Args:
        test_fraction: fraction of all images for testing if there are no train, val and test folders.
        files: see FilesDataModule; `val_fraction` of the rest validates.
    """

    layouts: ClassVar[tuple[Layout, ...]] = (
        part_folders_layout("parts", "train/<class>/, and val/ or test/, with images", label_of, {}, find=_find_parts),
        Layout("flat", "<class>/ with images", find=_find_flat, read=_read_flat, sources=class_folders),
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
        if pack.key["layout"] == "parts" or not self.test_fraction:
            return super().divide(pack, usable)
        every = np.flatnonzero(usable)
        test = sample_share(pack.hashes[every], self.class_ids(pack)[every], self.test_fraction, self.data_seed)
        log.info(f"{self.name}: no test folder: a stratified {self.test_fraction:.0%} of all images tests")
        rest = np.zeros_like(usable)
        rest[np.delete(every, test)] = True
        return {**super().divide(pack, rest), "test": every[test]}
