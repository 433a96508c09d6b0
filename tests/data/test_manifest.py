import csv
from pathlib import Path
from typing import Any

import pytest
from helpers.datasets import RAFDB_IDS, SEVEN, class_folders, class_image, rafdb_official, save

from fer_voting.data.sets.rafdb import RAFDBDataModule

COUNTS = {"train": dict.fromkeys(SEVEN, 10), "test": dict.fromkeys(SEVEN, 2)}


def rafdb(root: Path, **arguments: Any) -> RAFDBDataModule:
    data = RAFDBDataModule(name="rafdb", root=root, cache_dir=root.parent / "packs", **arguments)
    data.setup()
    return data


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rafdb_official(tmp_path / "raf", COUNTS)
    return tmp_path / "raf"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_manifest_has_each_image_once_and_is_reproducible(root: Path) -> None:
    data = rafdb(root)
    listed = rows(data.manifest_file)
    assert len(listed) == 84
    assert {(row["part"], row["name"]) for row in listed} == {
        (part, name) for part in ("train", "val", "test") for name in data.names(part)
    }
    for row in listed:
        position = data.pack.names().index(row["name"])
        assert row["label"] == data.pack.labels[data.pack.label_ids[position]]
        assert row["hash"] == data.pack.hashes[position].tobytes().hex()
    text = data.manifest_file.read_bytes()
    assert text.count(b"\n") == 85
    assert b"\r" not in text  # the same bytes on every system
    data.manifest_file.unlink()
    assert rafdb(root).manifest_file.read_bytes() == text


def test_a_given_manifest_is_used_whatever_the_data_seed(root: Path) -> None:
    first = rafdb(root)
    other = rafdb(root, data_seed=5)
    given = rafdb(root, data_seed=5, manifest=first.manifest_file)
    assert given.names("val") == first.names("val") != other.names("val")
    assert given.fingerprint == first.fingerprint
    refit = rafdb(root, manifest=first.manifest_file, refit=True)
    assert sorted(refit.names("train")) == sorted(first.names("train") + first.names("val"))


def test_the_same_images_in_another_layout_take_the_manifest(root: Path, tmp_path: Path) -> None:
    first = rafdb(root)
    other = tmp_path / "other lab"
    class_folders(other, {"train": {"happy": 1}}, {"happy": "4"})
    for row in rows(first.manifest_file):
        official = "test" if row["name"].startswith("test") else "train"
        target = other / official / str(RAFDB_IDS.index(row["label"])) / f"{row['name']}_x.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((root / "Image" / "aligned" / f"{row['name']}_aligned.jpg").read_bytes())
    given = rafdb(other, manifest=first.manifest_file)
    assert given.pack.key["layout"] == "folders"
    for part in ("train", "val", "test"):
        assert {h.tobytes() for h in given.pack.hashes[given.positions(part)]} == {
            h.tobytes() for h in first.pack.hashes[first.positions(part)]
        }


def test_copies_of_an_image_are_told_apart_by_name(root: Path) -> None:
    folder = root / "Image" / "aligned"
    copy = (folder / "train_00001_aligned.jpg").read_bytes()
    for name in ("train_00002", "train_00003"):
        (folder / f"{name}_aligned.jpg").write_bytes(copy)
    first = rafdb(root)
    listed = [row for row in rows(first.manifest_file) if row["name"] != "train_00002"]
    manifest = root.parent / "manifest.csv"
    write(manifest, listed)
    given = rafdb(root, manifest=manifest)
    every = [name for part in ("train", "val", "test") for name in given.names(part)]
    assert "train_00002" not in every
    assert {"train_00001", "train_00003"} <= set(every)


def test_a_copy_under_a_name_that_is_not_here_leaves_the_others_theirs(root: Path) -> None:
    folder = root / "Image" / "aligned"
    copy = (folder / "train_00001_aligned.jpg").read_bytes()
    (folder / "train_00002_aligned.jpg").write_bytes(copy)
    (one,) = (row for row in rows(rafdb(root).manifest_file) if row["name"] == "train_00001")
    manifest = root.parent / "manifest.csv"
    # Row by row, the first would take train_00001.
    write(manifest, [one | {"part": "train", "name": "elsewhere"}, one | {"part": "val"}])
    given = rafdb(root, manifest=manifest, needs=("val",))
    assert (given.names("train"), given.names("val")) == (["train_00002"], ["train_00001"])


def write(path: Path, listed: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, ["part", "name", "label", "hash"])
        table.writeheader()
        table.writerows(listed)


@pytest.mark.parametrize("line", ["test,a,happy", "test,a,happy,0a,0b", "Test,a,happy,0a"])
def test_a_row_that_is_none_of_a_manifest_is_refused(root: Path, line: str) -> None:
    manifest = root.parent / "manifest.csv"
    manifest.write_text(rafdb(root).manifest_file.read_text() + line)
    with pytest.raises(ValueError, match=r"manifest\.csv is no manifest: .*train, val, test"):
        rafdb(root, manifest=manifest)


def test_what_does_not_fit_is_an_error(root: Path) -> None:
    listed = rows(rafdb(root).manifest_file)
    manifest = root.parent / "manifest.csv"

    relabelled = [dict(row) for row in listed]
    relabelled[3]["label"] = "surprise" if listed[3]["label"] != "surprise" else "fear"
    write(manifest, relabelled)
    with pytest.raises(ValueError, match=rf"1 of its 84 images have another label here, e\.g\. {listed[3]['name']}"):
        rafdb(root, manifest=manifest)

    manifest.write_text("name,fold\nx,1\n")
    with pytest.raises(ValueError, match=r"manifest\.csv is no manifest: expected the columns part,name,label,hash"):
        rafdb(root, manifest=manifest)

    write(manifest, listed)
    save(root / "Image" / "aligned" / "train_00001_aligned.jpg", class_image("neutral", 777))
    with pytest.raises(ValueError, match=r"1 of its 84 images are not here, or have other content, e\.g\. train_00001"):
        rafdb(root, manifest=manifest)

    with pytest.raises(FileNotFoundError, match="nowhere"):
        rafdb(root, manifest=root / "nowhere.csv")
