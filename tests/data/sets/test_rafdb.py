from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import (
    RAFDB_IDS,
    SEVEN,
    class_folders,
    class_image,
    rafdb_official,
    save,
    save_broken,
    shown_class,
)

from fer_voting.data.sets.rafdb import RAFDBDataModule

COUNTS = {
    "train": dict(zip(SEVEN, (20, 30, 11, 10, 2, 10, 7), strict=True)),
    "test": dict(zip(SEVEN, (5, 6, 4, 3, 1, 3, 2), strict=True)),
}
# A tenth of 90 images: 2, 3, 1.1, 1, 0.2, 1, 0.7 of the classes; the largest remainder is anger's.
VAL = dict(zip(SEVEN, (2, 3, 1, 1, 0, 1, 1), strict=True))


def rafdb(tmp_path: Path, **arguments: Any) -> RAFDBDataModule:
    settings = {"root": tmp_path / "raf db", "cache_dir": tmp_path / "packs"} | arguments
    return RAFDBDataModule(name="rafdb", **settings)


def check(data: RAFDBDataModule, layout: str) -> None:
    data.setup()
    assert data.pack.key["layout"] == layout
    assert data.class_names == SEVEN
    assert data.counts() == {
        "train": {c: COUNTS["train"][c] - VAL[c] for c in SEVEN},
        "val": VAL,
        "test": COUNTS["test"],
    }
    for row in np.flatnonzero(data.pack.good):
        assert shown_class(data.pack.images[row]) == data.pack.labels[data.pack.label_ids[row]]
    every = np.concatenate([data.positions(part) for part in data.counts()])
    assert sorted(every) == sorted(np.flatnonzero(data.usable(data.pack)))
    assert set(data.pack.part_ids[data.positions("test")]) == {2}
    assert data.train_size == 81  # not balanced


@pytest.mark.parametrize("kind", ["aligned", "original"])
@pytest.mark.parametrize("parent", ["", "basic"])
def test_official(tmp_path: Path, kind: str, parent: str) -> None:
    rafdb_official(tmp_path / "raf db" / parent, COUNTS, kind)
    data = rafdb(tmp_path)
    check(data, kind)
    assert {"train_00001", "test_0001"} <= set(data.pack.names())


def test_aligned_is_taken_before_original_unless_forced(tmp_path: Path) -> None:
    for kind in ("original", "aligned"):
        rafdb_official(tmp_path / "raf db", COUNTS, kind)
    check(rafdb(tmp_path), "aligned")
    check(rafdb(tmp_path, layout="original"), "original")


def test_official_with_blemishes(tmp_path: Path) -> None:
    root = tmp_path / "raf db"
    labels = rafdb_official(root, COUNTS)
    save_broken(root / "Image" / "aligned" / "train_00901_aligned.jpg")
    save(root / "Image" / "aligned" / "train_00902_aligned.PNG", class_image("sad", 902))
    save(root / "Image" / "aligned" / "train_00903_aligned.jpg", class_image("sad", 903))
    with labels.open("a") as file:
        file.write(
            "train_00901.jpg 5\ntrain_00902.jpg 8\ntrain_00903.jpg\ntrain_00904.jpg 5\n"
            "../train_00001.jpg 5\nextra_00001.jpg 5\n\n"
        )
    data = rafdb(tmp_path, max_bad_fraction=0.2)
    check(data, "aligned")
    assert Counter(problem.kind for problem in data.pack.problems) == {
        "unreadable": 1, "label": 1, "row": 2, "missing": 1, "outside": 1
    }  # fmt: skip
    assert any("label 8 is not 1 to 7" in problem.reason for problem in data.pack.problems)


@pytest.mark.parametrize("parent", ["", "DATASET"])
def test_image_folders(tmp_path: Path, parent: str) -> None:
    class_folders(tmp_path / "raf db" / parent, COUNTS, {c: str(RAFDB_IDS.index(c)) for c in SEVEN})
    check(rafdb(tmp_path), "folders")


def test_image_folders_with_label_files_that_disagree(tmp_path: Path) -> None:
    root = tmp_path / "raf db"
    class_folders(root / "DATASET", COUNTS, {c: str(RAFDB_IDS.index(c)) for c in SEVEN})
    files = sorted((root / "DATASET" / "train").rglob("*.*"))
    rows = [f"{path.name},{path.parent.name}" for path in files]
    assert rows[0].endswith(",1")
    rows[0] = rows[0][:-1] + "2"
    (root / "train_labels.csv").write_text("\n".join(["image,label", *rows, "gone.jpg,3", "odd.jpg,9"]) + "\n")
    data = rafdb(tmp_path, max_bad_fraction=0.2)
    data.setup()
    assert sorted((problem.kind, problem.reason.split(",")[0]) for problem in data.pack.problems) == [
        ("label", "the folder says surprise"),
        ("missing", f"listed in {root / 'train_labels.csv'}"),
        ("row", "expected image"),
    ]
    assert sum(data.counts()["train"].values()) + sum(data.counts()["val"].values()) == 89


def test_the_expected_counts_are_the_published_ones() -> None:
    for layout in RAFDBDataModule.layouts:
        assert {part: sum(counts.values()) for part, counts in layout.expected.items()} == {
            "train": 12_271,
            "test": 3_068,
        }
        assert layout.expected["train"]["happy"] == 4772
        assert layout.expected["test"]["fear"] == 74


def test_no_layout_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "raf db" / "odd").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError,
        match=r"raf db holds no known layout of rafdb: looked for \(aligned\) EmoLabel/list_patition_label.txt "
        r"with Image/aligned/; \(original\) .*; \(folders\) .*; found odd",
    ):
        rafdb(tmp_path).setup()
