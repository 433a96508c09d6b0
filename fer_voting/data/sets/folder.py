"""Any folder of class folders: a user's own faces."""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from fer_voting.data.files import (
    ClassFolders,
    Layout,
    SampledDataModule,
    class_folders,
    part_folders,
    read_numbers,
    side_files,
)
from fer_voting.data.formats import is_image
from fer_voting.data.groups import NAMED, named_like
from fer_voting.data.index import Index, files_below
from fer_voting.data.labels import CLASSES, as_class_map, canonical_or_own, in_order, suggestions
from fer_voting.data.pack import Pack
from fer_voting.data.sets.affectnet import AffectNetDataModule
from fer_voting.data.sets.ckplus48 import CKPlus48DataModule
from fer_voting.data.sets.expw import ExpWDataModule
from fer_voting.data.sets.fer2013 import FER2013DataModule
from fer_voting.data.sets.ferplus import FERPlusDataModule
from fer_voting.data.sets.rafdb import RAFDBDataModule
from fer_voting.targets import NUMBERS

log = logging.getLogger(__name__)


FOLDERS = ClassFolders(canonical_or_own)
OTHERS = {
    "affectnet": ("AffectNet", AffectNetDataModule.layouts[:3]),
    "rafdb": ("RAF-DB", RAFDBDataModule.layouts[:2]),
    "ferplus": ("FER+", FERPlusDataModule.layouts),
    "fer2013": ("FER2013", FER2013DataModule.layouts[:1]),
    "ckplus48": ("CK+", CKPlus48DataModule.layouts),
    "expw": ("ExpW", ExpWDataModule.layouts),
}
"""Option of `dataset` -> its data set, and those of its layouts that are no class folders."""


def refuse_other_layouts(root: Path) -> None:
    """Raises ValueError if `root` is no folder of class folders, but another layout that is known."""
    for option, (name, layouts) in OTHERS.items():
        for layout in layouts:
            if layout.find(root) is not None:
                raise ValueError(f"{root} has {name}'s layout {layout.name}, not class folders: dataset={option}")
    for folder in (root, *part_folders(root).values()):
        if (folder / "images").is_dir() and (folder / "labels").is_dir():
            raise ValueError(
                f"{folder} has YOLO's layout (images/ beside labels/), not class folders: cut the faces out by their "
                "boxes, into a folder for each class"
            )
    folders = class_folders(root)
    if part_folders(root) or any(canonical_or_own(folder.name) in CLASSES for folder in folders):
        return
    names = [entry.name for entry in itertools.islice(files_below(root), 2000) if is_image(entry.path)]
    if names and (named := named_like(names)) is not None:
        raise ValueError(f"{root} has {NAMED[named]}'s layout, not class folders: dataset={named}")
    for folder in folders:
        inner = [path.name for path in class_folders(folder)]
        if sum(canonical_or_own(name) in CLASSES for name in inner) >= 2 or "train" in map(str.lower, inner):
            raise ValueError(f"{root} holds the folder {folder.name} of class folders: dataset.root={folder}")


def _find_parts(root: Path) -> Path | None:
    return root if any(class_folders(folder) for folder in part_folders(root).values()) else None


def _find_flat(root: Path) -> Path | None:
    has_images = any(next(iter(files_below(folder)), None) for folder in class_folders(root))
    return root if has_images and not part_folders(root) else None


def _read(parts: Callable[[Path], Mapping[str, Path]]) -> Callable[[Path, Sequence[str] | None], Index]:
    def read(root: Path, class_names: Sequence[str] | None) -> Index:
        refuse_other_layouts(root)
        index = FOLDERS.read(root, parts(root), class_names)
        names = in_order(sample.label for sample in index.samples)
        if meant := suggestions(names):
            index.notes.append(f"class folders that may mean an expression: {as_class_map(meant)}")
        if names and not set(names) & set(CLASSES):
            index.notes.append(
                f"no class is an expression: the folders {', '.join(names[:20])}{', …' * (len(names) > 20)} were taken "
                "for classes"
            )
        return index

    return read


class FolderDataModule(SampledDataModule):
    """Class folders in train, val and test folders, or only class folders. The classes are the folders: expressions
    in the canonical order, then others by name. Without parts, test and validation images are sampled, stratified by
    class; without a val folder, validation images. A file labels.csv beside them may have valence and arousal
    (`files.read_numbers`).
    """

    layouts: tuple[Layout, ...] = (
        FOLDERS.layout(
            "parts",
            "train/<class>/, and val/ or test/, with images",
            {},
            find=_find_parts,
            read=_read(part_folders),
        ),
        Layout(
            "flat",
            "<class>/ with images",
            find=_find_flat,
            read=_read(lambda root: {"train": root}),
            sources=lambda root: [*class_folders(root), *side_files(root)],
            takes_all=True,
        ),
    )
    numbers: ClassVar = NUMBERS

    def find_layout(self) -> tuple[Layout, Path]:
        try:
            return super().find_layout()
        except FileNotFoundError:
            if self.root is not None and Path(self.root).is_dir():
                refuse_other_layouts(Path(self.root).absolute())
            raise

    def make_pack(self) -> Pack:
        pack = super().make_pack()
        if self.target.numbers:
            assert self.base is not None
            pack.columns |= read_numbers(self.base, pack.names())
        return pack
