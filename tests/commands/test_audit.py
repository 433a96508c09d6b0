import importlib.util
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.composed import composed
from helpers.datasets import (
    FERPLUS_COLUMNS,
    SEVEN,
    affectnet_release2,
    class_image,
    fer2013_csv,
    rafdb_official,
    save,
    save_broken,
    save_truncated,
)
from omegaconf import OmegaConf
from PIL import Image

from fer_voting.audit import job
from fer_voting.config import command, make
from fer_voting.data.division import count_duplicates
from fer_voting.data.quality import audit as audit_data
from fer_voting.data.quality import format_report
from fer_voting.data.sets.fer2013 import FER2013DataModule
from fer_voting.data.sets.rafdb import EXPECTED

COUNTS = {"train": dict.fromkeys(SEVEN, 3), "test": dict.fromkeys(SEVEN, 2)}


def configuration(tmp_path: Path, dataset: str, **values: Any) -> dict[str, Any]:
    """The command's result for `dataset=... dataset.root=...`."""
    node = composed([f"dataset={dataset}", f"output_dir={tmp_path / 'outputs'}"]).dataset
    return {
        "dataset": {**{k: v for k, v in node.items() if k != "augment"}, "root": str(tmp_path / "my data")},
        "out": str(tmp_path / "report"),
        "near_duplicate_bits": None,
    } | values


def audit(config: dict[str, Any]) -> dict[str, Any]:
    return audit_data(make(config["dataset"]), config["near_duplicate_bits"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """RAF-DB with an unreadable, a truncated, a missing, a mislabelled and a blank image and three copies."""
    root = tmp_path / "my data"
    labels = rafdb_official(root, COUNTS)
    folder = root / "Image" / "aligned"
    save_broken(folder / "train_00901_aligned.jpg")
    save_truncated(folder / "train_00902_aligned.jpg", "sad", 1)
    save(folder / "train_00904_aligned.jpg", class_image("sad", 904))
    save(folder / "train_00905_aligned.png", Image.new("RGB", (32, 32), (9, 9, 9)))
    copies = {"train_00906": "test_0001", "train_00907": "test_0001", "test_0901": "test_0002"}
    for copy, original in copies.items():
        (folder / f"{copy}_aligned.jpg").write_bytes((folder / f"{original}_aligned.jpg").read_bytes())
    with labels.open("a") as file:
        file.write(
            "train_00901.jpg 5\ntrain_00902.jpg 5\ntrain_00903.jpg 5\ntrain_00904.jpg 0\ntrain_00905.jpg 5\n"
            "train_00906.jpg 7\ntrain_00907.jpg 5\ntest_0901.jpg 7\n"
        )
    return root


def test_the_report_of_a_set_with_every_defect(root: Path, tmp_path: Path) -> None:
    job(OmegaConf.create(configuration(tmp_path, "rafdb")))
    report = json.loads((tmp_path / "report" / "audit.json").read_text())
    assert report["layout"] == "aligned"
    assert report["root"] == str(root)
    assert report["parts"] == {
        "train": dict.fromkeys(SEVEN, 3) | {"sad": 5, "neutral": 4},
        "test": dict.fromkeys(SEVEN, 2) | {"neutral": 3},
    }
    assert report["expected"] == EXPECTED
    folder = root / "Image" / "aligned"
    assert {(problem["kind"], problem["path"]) for problem in report["problems"]} == {
        ("unreadable", str(folder / "train_00901_aligned.jpg")),
        ("truncated", str(folder / "train_00902_aligned.jpg")),
        ("missing", str(folder / "train_00903_aligned.*")),
        ("label", f"{folder / 'train_00904.jpg'} ({root / 'EmoLabel' / 'list_patition_label.txt'}, line 39)"),
        ("blank", "train_00905"),
    }
    assert all(problem["reason"] for problem in report["problems"])
    # test_0001 is neutral: once rightly, once as sad in training; test_0901 is a copy inside the test set.
    assert report["duplicates"] == {"train-train": 1, "test-test": 1, "train-test": 2}
    assert report["conflicts"] == {"train-train": 2, "train-test": 1}
    assert {frozenset(image["name"] for image in group) for group in report["duplicate_groups"]} == {
        frozenset({"test_0001", "train_00906", "train_00907"}),
        frozenset({"test_0002", "test_0901"}),
    }
    assert report["near_duplicates"] is None
    with Image.open(tmp_path / "report" / "class_distribution.png") as image:
        assert image.size > (600, 300)
    text = format_report(report)
    assert "missing: 1, e.g." in text
    assert "identical images: 2 of train also occur in test; 1 with conflicting labels" in text
    assert "train, published    2,524  4,772  1,982     1,290   281      717    705  12,271" in text


def test_an_audit_never_stops_at_bad_files(root: Path, tmp_path: Path) -> None:
    config = configuration(tmp_path, "rafdb")
    config["dataset"] |= {"on_error": "raise", "max_bad_fraction": 0}
    assert len(audit(config)["problems"]) == 5


def test_images_of_other_classes_are_listed_as_left_out(tmp_path: Path) -> None:
    counts = {"train": dict.fromkeys(SEVEN, 2) | {"contempt": 3, "non-face": 1}, "val": dict.fromkeys(SEVEN, 1)}
    affectnet_release2(tmp_path / "my data", counts)
    report = audit(configuration(tmp_path, "affectnet"))
    assert report["left_out"] == {"non-face": 1, "contempt": 3}
    assert report["parts"] == {"train": dict.fromkeys(SEVEN, 2), "val": dict.fromkeys(SEVEN, 1)}
    assert report["duplicates"] == {}
    assert report["problems"] == []
    assert "no unusable or blank images" in format_report(report)


def test_images_without_a_majority_of_votes_are_listed_as_left_out(tmp_path: Path) -> None:
    root = tmp_path / "my data"
    fer2013_csv(root / "fer2013.csv", {"Training": {"happy": 3}})
    votes = ["a.png,6,4,0,0,0,0,0,0,0,0", "b.png,5,5,0,0,0,0,0,0,0,0", ",0,0,0,0,0,0,0,0,0,10"]
    header = ",".join(["Usage", "Image name", *FERPLUS_COLUMNS])
    (root / "fer2013new.csv").write_text("\n".join([header, *(f"Training,{row}" for row in votes)]) + "\n")
    report = audit(configuration(tmp_path, "ferplus"))
    assert report["parts"] == {"train": dict.fromkeys(SEVEN, 0) | {"neutral": 1}}
    assert report["left_out"] == {"not a face": 1, "no majority of votes": 1}


def test_near_duplicates_are_an_option(root: Path, tmp_path: Path) -> None:
    small = Image.fromarray(np.random.default_rng(0).integers(0, 200, (6, 6, 3), np.uint8))
    original = np.asarray(small.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    for number, change in ((1, 0), (2, 3)):
        folder = root / "Image" / "aligned"
        save(
            folder / f"train_0080{number}_aligned.png",
            Image.fromarray((original + change).clip(0, 255).astype(np.uint8)),
        )
    with (root / "EmoLabel" / "list_patition_label.txt").open("a") as file:
        file.write("train_00801.jpg 2\ntrain_00802.jpg 2\n")
    report = audit(configuration(tmp_path, "rafdb", near_duplicate_bits=2))
    pairs = [{image["name"] for image in pair["images"]} for pair in report["near_duplicates"]]
    assert {"train_00801", "train_00802"} in pairs
    exact = {frozenset(image["name"] for image in group) for group in report["duplicate_groups"]}
    assert not any(pair <= group for pair in pairs for group in exact)
    with pytest.raises(ValueError, match="near_duplicate_bits=40 must be null or 0 to 8"):
        audit(configuration(tmp_path, "rafdb", near_duplicate_bits=40))


def test_counting_duplicates_by_hand() -> None:
    part_ids = np.array([0, 0, 0, 1, 1, 0, 2, 1], np.uint8)
    labels = np.array([4, 4, 5, 4, 4, 1, 1, 2])
    groups = [np.array([0, 1, 2, 3]), np.array([5, 6]), np.array([4, 7])]
    duplicates, conflicts = count_duplicates(groups, part_ids, labels)
    assert duplicates == {"train-train": 2, "train-val": 3, "train-test": 1, "val-val": 1}
    assert conflicts == {"train-train": 3, "train-val": 1, "val-val": 2}


@pytest.mark.slow
def test_the_real_faces(shared_data: Path, tmp_path: Path) -> None:
    """FER2013's copies and constant images, against a search of its arrays by other means.

    The csv holds the rows that matter and a few hundred others, so that the test takes seconds.
    """
    spec = importlib.util.spec_from_file_location("build_fer2013", shared_data / "fer2013" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    images, labels, usages = build.faces()

    alike: dict[bytes, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        alike[image.tobytes()].append(row)
    copies = [rows for rows in alike.values() if len(rows) > 1]
    leaks = [row for rows in copies for row in rows if usages[row] == 0 and any(usages[r] == 1 for r in rows)]
    constant = [row for row, image in enumerate(images) if image.min() == image.max()]
    kept = sorted({row for rows in copies for row in rows} | set(constant) | set(range(400)))
    (tmp_path / "my data").mkdir()
    with (tmp_path / "my data" / "fer2013.csv").open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for row in kept:
            pixels = " ".join(map(str, images[row].ravel().tolist()))
            file.write(f"{labels[row]},{pixels},{('Training', 'PublicTest')[usages[row]]}\n")

    report = audit(configuration(tmp_path, "fer2013"))
    assert report["duplicates"]["train-val"] == len(leaks) == 351
    inside = {usage: sum(max(sum(usages[r] == usage for r in rows) - 1, 0) for rows in copies) for usage in (0, 1)}
    assert (report["duplicates"]["train-train"], report["duplicates"]["val-val"]) == (inside[0], inside[1])
    conflicting = [
        row for row in leaks
        if any(usages[r] == 1 and labels[r] != labels[row] for r in alike[images[row].tobytes()])
    ]  # fmt: skip
    assert report["conflicts"]["train-val"] == len(conflicting) == 19
    blank = [problem for problem in report["problems"] if problem["reason"] == "all values are equal"]
    assert {kept[int(problem["path"])] for problem in blank} == set(constant)
    assert len(constant) == 12

    arguments = {"name": "fer2013", "root": tmp_path / "my data", "cache_dir": tmp_path / "outputs" / "packs"}
    plain, dropped = (FER2013DataModule(drop_leaks=drop, **arguments) for drop in (False, True))
    for data in (plain, dropped):
        data.setup()
    assert len(dropped.positions("test")) == sum(usages[row] == 1 for row in kept)
    # No PrivateTest rows: a tenth of Training validates, and Training's copies of PublicTest are in either part.
    held_out = {part: {images[kept[row]].tobytes() for row in plain.positions(part)} for part in ("val", "test")}
    for part, later in (("train", held_out["val"] | held_out["test"]), ("val", held_out["test"])):
        expected = [row for row in plain.positions(part).tolist() if images[kept[row]].tobytes() not in later]
        assert dropped.positions(part).tolist() == expected


# --- the commands ---------------------------------------------------------------------------------------------


def test_the_commands(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    words = ["dataset=rafdb", f"dataset.root={root}", f"output_dir={tmp_path / 'out put'}"]

    def run(name: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["fer_voting", *words])
        command(f"fer_voting.{name}:job", name)
        return capsys.readouterr()

    stdout, _ = run("pack")
    assert "39 images" in stdout
    assert "4 images can't be used: python -m fer_voting.audit says why" in stdout
    stdout, stderr = run("audit")
    assert "packing" not in stderr  # the pack is there
    assert "rafdb: layout aligned in " in stdout
    report = json.loads((tmp_path / "out put" / "audit" / "rafdb" / "audit.json").read_text())
    assert sum(report["parts"]["train"].values()) == 24
    assert sorted(path.name for path in (tmp_path / "out put").iterdir()) == ["audit", "packs"]


def test_a_mistake_ends_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["dataset=rafdb", "dataset.root=/nowhere", f"output_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["fer_voting.audit", *words])
    with pytest.raises(SystemExit, match=r"^error: dataset\.root=/nowhere is not a folder\n"):
        command("fer_voting.audit:job", "audit")
