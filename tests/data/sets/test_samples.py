"""The samples that the readers list, pinned: a pack is built once, so a changed reader must make it out of date."""

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.datasets import (
    AFFECTNET_IDS,
    FER2013_IDS,
    FERPLUS_COLUMNS,
    RAFDB_IDS,
    SEVEN,
    affectnet_release1,
    affectnet_release2,
    affectnet_release3,
    class_folders,
    fer2013_csv,
    rafdb_official,
)

from fer_voting.data.files import FilesDataModule
from fer_voting.data.images import READER_VERSION, content_hash
from fer_voting.data.sets.affectnet import AffectNetDataModule
from fer_voting.data.sets.fer2013 import FER2013DataModule
from fer_voting.data.sets.ferplus import FERPlusDataModule
from fer_voting.data.sets.folder import FolderDataModule
from fer_voting.data.sets.rafdb import RAFDBDataModule

ELEVEN = {part: dict.fromkeys(AFFECTNET_IDS, count) for part, count in (("train", 2), ("val", 1))}
TWO_PARTS = {part: dict.fromkeys(SEVEN, count) for part, count in (("train", 2), ("test", 1))}
USAGES = {"Training": dict.fromkeys(SEVEN, 2), "PublicTest": {"happy": 1}, "PrivateTest": {"sad": 1}}


def ferplus(root: Path) -> None:
    fer2013_csv(root / "fer2013.csv", {"Training": {"happy": 3}})
    votes = ["a.png,6,3,1,0,0,0,0,0,0,0", "b.png,0,0,0,0,0,0,0,8,2,0", ",0,0,0,0,0,0,0,0,0,10"]
    header = ",".join(["Usage", "Image name", *FERPLUS_COLUMNS])
    (root / "fer2013new.csv").write_text("\n".join([header, *(f"Training,{row}" for row in votes)]) + "\n")


def numbered(names: tuple[str, ...]) -> dict[str, str]:
    return {label: str(names.index(label)) for label in SEVEN}


@pytest.mark.parametrize(
    ("kind", "layout", "make", "digest"),
    [
        (AffectNetDataModule, "release1", lambda root: affectnet_release1(root, ELEVEN), "ef6cef3ad29c"),
        (AffectNetDataModule, "release2", lambda root: affectnet_release2(root, ELEVEN), "e9b647b66f24"),
        (AffectNetDataModule, "release3", lambda root: affectnet_release3(root, ELEVEN), "7b7ecf7f4d50"),
        (
            AffectNetDataModule,
            "folders",
            lambda root: class_folders(root, ELEVEN, {n: n for n in AFFECTNET_IDS}),
            "dd166afa1b3e",
        ),
        (RAFDBDataModule, "aligned", lambda root: rafdb_official(root, TWO_PARTS), "057e5d32f80b"),
        (RAFDBDataModule, "original", lambda root: rafdb_official(root, TWO_PARTS, "original"), "77d3e1555a91"),
        (RAFDBDataModule, "folders", lambda root: class_folders(root, TWO_PARTS, numbered(RAFDB_IDS)), "5f7110597feb"),
        (FER2013DataModule, "csv", lambda root: fer2013_csv(root / "fer2013.csv", USAGES), "5fec3db79858"),
        (
            FER2013DataModule,
            "folders",
            lambda root: class_folders(root, TWO_PARTS, numbered(FER2013_IDS)),
            "3ba31985e54c",
        ),
        (FERPlusDataModule, "csv", ferplus, "03bd4cba9080"),
        (
            FolderDataModule,
            "parts",
            lambda root: class_folders(root, TWO_PARTS, {n: n.upper() for n in SEVEN}),
            "07c24eb7e00f",
        ),
        (FolderDataModule, "flat", lambda root: class_folders(root, {"": {"sad": 2}}, {"sad": "mine"}), "2586efa7e36e"),
    ],
)
def test_a_reader_lists_the_same_samples_as_long_as_the_version_is_the_same(
    tmp_path: Path, kind: type[FilesDataModule], layout: str, make: Callable[[Path], object], digest: str
) -> None:
    root = tmp_path / "root"
    root.mkdir()
    make(root)
    data = kind(name="x", root=root, cache_dir=tmp_path, classes=kind.class_choices[0])
    source = data.source()
    assert source.place["layout"] == layout
    index = source.read()
    listed = []
    for s in index.samples:
        numbers = tuple(s.columns.values()) or None
        if "votes" in s.columns:
            numbers = (*s.columns["votes"], s.columns["fer2013_class"])
        listed.append(
            (s.name, s.label, s.part, s.path and s.path.relative_to(root).as_posix(), s.pixels, s.box, numbers)
        )
    assert not index.problems
    assert READER_VERSION == 5
    found = content_hash(repr((listed, sorted(index.left_out.items()))).encode()).hex()[:12]
    assert found == digest, "raise READER_VERSION with these digests: packs of other samples are out of date"
