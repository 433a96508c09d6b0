from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import FER2013_IDS, SEVEN, class_folders, fer2013_csv, shown_class

from fer_voting.data.sets.fer2013 import FER2013DataModule, rows

COUNTS = {
    "Training": dict(zip(SEVEN, (4, 5, 3, 3, 2, 1, 2), strict=True)),
    "PublicTest": dict.fromkeys(SEVEN, 2),
    "PrivateTest": dict.fromkeys(SEVEN, 1),
}


def fer2013(tmp_path: Path, **arguments: Any) -> FER2013DataModule:
    settings = {"root": tmp_path / "fer 2013", "cache_dir": tmp_path / "packs"} | arguments
    return FER2013DataModule(name="fer2013", **settings)


def check_images(data: FER2013DataModule) -> None:
    for row in np.flatnonzero(data.pack.good):
        assert shown_class(data.pack.images[row]) == data.pack.labels[data.pack.label_ids[row]]


@pytest.mark.parametrize(("name", "spaces"), [("fer2013.csv", False), ("icml_face_data.csv", True)])
def test_csv(tmp_path: Path, name: str, spaces: bool) -> None:
    lines = fer2013_csv(tmp_path / "fer 2013" / name, COUNTS, spaces)
    data = fer2013(tmp_path)
    data.setup()
    assert data.pack.key["layout"] == "csv"
    assert data.counts() == {"train": COUNTS["Training"], "val": COUNTS["PublicTest"], "test": COUNTS["PrivateTest"]}
    check_images(data)
    assert (data.pack.images == data.pack.images[..., :1]).all()
    cell = lines[1].split(",")[2 if spaces else 1]
    assert data.pack.images[0, ..., 0].ravel().tolist() == [int(value) for value in cell.split()]
    assert data.names("val")[0] == "00020"


def test_without_private_test_rows_public_test_tests(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The images that select the epoch must not be the ones that are reported."""
    caplog.set_level("INFO")
    training = dict.fromkeys(SEVEN, 10) | {"happy": 20}
    fer2013_csv(tmp_path / "fer 2013" / "fer2013.csv", {"Training": training, "PublicTest": COUNTS["PublicTest"]})
    data = fer2013(tmp_path)
    data.setup()
    assert data.counts() == {
        "train": dict.fromkeys(SEVEN, 9) | {"happy": 18},
        "val": dict.fromkeys(SEVEN, 1) | {"happy": 2},
        "test": COUNTS["PublicTest"],
    }
    assert set(data.pack.part_ids[data.positions("val")]) == {0}
    assert "no PrivateTest images here, so PublicTest is the test part" in caplog.text
    assert "no official validation part: a stratified 10% of the training images validates" in caplog.text


def test_training_rows_alone_have_no_test_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    fer2013_csv(tmp_path / "fer 2013" / "fer2013.csv", {"Training": dict.fromkeys(SEVEN, 10)})
    data = fer2013(tmp_path)
    data.setup()
    assert not data.has_test
    assert list(data.counts()) == ["train", "val"]
    assert "there are no test images, so nothing is tested" in caplog.text


def test_rows_with_blemishes(tmp_path: Path) -> None:
    path = tmp_path / "fer 2013" / "fer2013.csv"
    lines = fer2013_csv(path, COUNTS)
    pixels = lines[1].split(",")[1]
    bad = [
        f"7,{pixels},Training",
        f"happy,{pixels},Training",
        f"3,{pixels},Train",
        f"3,{pixels[: len(pixels) // 2]},Training",
        f"3,{pixels.replace(pixels.split()[0], '256', 1)},Training",
        "3,abc,Training",
        "3",
    ]
    path.write_text("\n".join([*lines, *bad]) + "\n")
    data = fer2013(tmp_path, max_bad_fraction=0.5)
    data.setup()
    assert data.counts()["train"] == COUNTS["Training"]
    assert Counter(problem.kind for problem in data.pack.problems) == {"label": 2, "row": 5}
    check_images(data)
    with pytest.raises(ValueError, match=r"7 of 48 images can't be used \(label 2, row 5\).*max_bad_fraction=0.01"):
        fer2013(tmp_path).setup()
    with pytest.raises(ValueError, match=r"label: .*row 41: emotion '7' is not 0 to 6 \(dataset.on_error=raise\)"):
        fer2013(tmp_path, on_error="raise").setup()


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    (tmp_path / "fer 2013").mkdir()
    (tmp_path / "fer 2013" / "fer2013.csv").write_text("emotion,Usage\n3,Training\n")
    with pytest.raises(ValueError, match=r"fer2013\.csv lacks the columns pixels; it has emotion, Usage"):
        fer2013(tmp_path).setup()


@pytest.mark.parametrize(
    "folder_names", [{c: c for c in SEVEN} | {"anger": "angry"}, {c: str(FER2013_IDS.index(c)) for c in SEVEN}]
)
def test_folders(tmp_path: Path, folder_names: dict[str, str]) -> None:
    train = dict(zip(SEVEN, (10, 20, 10, 10, 10, 10, 10), strict=True))
    test = dict.fromkeys(SEVEN, 3)
    class_folders(tmp_path / "fer 2013", {"train": train, "test": test}, folder_names)
    data = fer2013(tmp_path)
    data.setup()
    assert data.pack.key["layout"] == "folders"
    assert data.counts() == {
        "train": {c: n * 9 // 10 for c, n in train.items()},
        "val": {c: n // 10 for c, n in train.items()},
        "test": test,
    }
    check_images(data)


def test_the_expected_counts_are_those_of_the_real_rows(shared_data: Path) -> None:
    rows = np.load(shared_data / "fer2013" / "rows.npz")
    expected = FER2013DataModule.layouts[0].expected
    for usage, part in enumerate(("train", "val")):
        counts = np.bincount(rows["labels"][rows["usage"] == usage])
        assert dict(zip(FER2013_IDS, counts.tolist(), strict=True)) == expected[part]


def test_a_header_with_line_breaks_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "fer2013.csv").write_text('"emotion\npixels",Usage\n')
    with pytest.raises(ValueError, match="lacks the columns") as error:
        list(rows(tmp_path / "fer2013.csv"))
    assert "\n" not in str(error.value)
