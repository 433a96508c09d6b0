import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import (
    AFFECTNET_IDS,
    SEVEN,
    affectnet_release1,
    affectnet_release2,
    affectnet_release3,
    class_folders,
    class_image,
    release1_row,
    save,
    save_broken,
    save_truncated,
    shown_class,
    write_release1_csv,
)

from fer_voting.data.labels import CLASSES
from fer_voting.data.sets.affectnet import AffectNetDataModule
from fer_voting.targets import ValenceArousal

COUNTS = {
    "train": dict(zip(AFFECTNET_IDS, (9, 12, 8, 7, 6, 5, 8, 6, 2, 3, 4), strict=True)),
    "val": dict(zip(AFFECTNET_IDS, (3, 3, 3, 3, 3, 3, 3, 2, 1, 1, 1), strict=True)),
}


def affectnet(tmp_path: Path, **arguments: Any) -> AffectNetDataModule:
    root = tmp_path / "my data"
    settings = {"root": root, "cache_dir": tmp_path / "packs", "val_per_class": 3} | arguments
    return AffectNetDataModule(name="affectnet", **settings)


def check(data: AffectNetDataModule, layout: str, classes: tuple[str, ...] = SEVEN) -> None:
    """The layout was found, counts are exact, every image shows its label, the parts are disjoint and whole."""
    data.setup()
    assert data.pack.key["layout"] == layout
    assert data.class_names == classes
    assert data.counts() == {
        "train": {c: COUNTS["train"][c] - 3 for c in classes},
        "val": dict.fromkeys(classes, 3),
        "test": {c: COUNTS["val"][c] for c in classes},
    }
    check_images(data)
    assert sorted(np.concatenate([data.positions(part) for part in data.counts()])) == sorted(
        np.flatnonzero(data.usable(data.pack))
    )
    # The official validation images test, and nothing else.
    assert set(data.pack.part_ids[data.positions("test")]) == {1}
    assert set(data.pack.part_ids[data.positions("train")]) == {0}


def check_images(data: AffectNetDataModule) -> None:
    for row in np.flatnonzero(data.pack.good):
        assert shown_class(data.pack.images[row]) == data.pack.labels[data.pack.label_ids[row]], data.pack.names()[row]


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("parent", ["", "Manually_Annotated"])
def test_release1(tmp_path: Path, header: bool, parent: str) -> None:
    affectnet_release1(tmp_path / "my data", COUNTS, header, parent)
    data = affectnet(tmp_path)
    check(data, "release1")
    assert data.pack.left_out == {"none": 3, "uncertain": 4, "non-face": 5, "contempt": 8}
    assert data.pack.problems == []


def test_release1_with_the_csv_files_at_the_root(tmp_path: Path) -> None:
    root = tmp_path / "my data"
    affectnet_release1(root, COUNTS)
    for path in (root / "Manually_Annotated_file_lists").iterdir():
        path.rename(root / path.name)
    check(affectnet(tmp_path), "release1")


def test_release1_crops_by_the_face_box(tmp_path: Path) -> None:
    affectnet_release1(tmp_path / "my data", COUNTS)
    data = affectnet(tmp_path, size=32)
    data.setup()
    for row, name in enumerate(data.pack.names()):
        if name.endswith((".png", ".bmp", ".TIF")):  # formats that keep every value
            number = int(name[-8:-4]) if name.startswith("train") else int(name[-8:-4]) + 1000
            label = data.pack.labels[data.pack.label_ids[row]]
            assert (data.pack.images[row] == np.asarray(class_image(label, number))).all()


def test_release1_with_every_blemish(tmp_path: Path) -> None:
    root = tmp_path / "my data"
    rows, images = affectnet_release1(root, COUNTS)
    box = (40, 20, 32, 32)
    save_broken(images / "0" / "broken.jpg")
    save(images / "0" / "far.jpg", class_image("neutral", 7))
    save_truncated(images / "0" / "short.jpg", "happy", 7)
    save(tmp_path / "secret.png", class_image("happy", 1))
    rows += [
        release1_row("0/broken.jpg", "happy", box),
        release1_row("0/short.jpg", "happy", (0, 0, 128, 128)),
        release1_row("0/missing.jpg", "sad", box),
        release1_row("../../secret.png", "happy", box),
        release1_row(str(tmp_path / "secret.png"), "happy", box),
        release1_row(rows[0]["subDirectory_filePath"], 11, box),
        release1_row(rows[1]["subDirectory_filePath"], "neutral", ("x", 20, 32, 32)),
        release1_row("0/far.jpg", "neutral", (500, 500, 32, 32)),
        release1_row(rows[3]["subDirectory_filePath"], "neutral", (40, 20, -1, -1)),
        dict(list(rows[4].items())[:6]),
    ]
    write_release1_csv(root / "Manually_Annotated_file_lists" / "training.csv", rows)
    data = affectnet(tmp_path, max_bad_fraction=0.2)
    check(data, "release1")
    assert Counter(problem.kind for problem in data.pack.problems) == {
        "unreadable": 2,  # the broken file, and the box outside its image
        "truncated": 1,
        "missing": 1,
        "outside": 2,
        "label": 1,
        "row": 2,
    }
    assert data.pack.left_out["no face box"] == 1
    told = "\n".join(map(str, data.pack.problems))
    assert "expression 11 is not 0 to 10" in told
    assert "training.csv, line 81: 6 columns instead of 9" in told
    assert f"'../../secret.png' leads out of {images}" in told


@pytest.mark.parametrize("val_name", ["val_set", "valid_set"])
def test_release2(tmp_path: Path, val_name: str) -> None:
    affectnet_release2(tmp_path / "my data", COUNTS, val_name)
    data = affectnet(tmp_path)
    check(data, "release2")
    assert data.pack.left_out == {"none": 3, "uncertain": 4, "non-face": 5, "contempt": 8}
    assert {"train/0", "val/0"} <= set(data.pack.names())


@pytest.mark.parametrize("release", [1, 2])
def test_valence_and_arousal_of_the_first_two_releases(tmp_path: Path, release: int) -> None:
    """-2, and what is no number from -1 to 1, means none: such an image is left out, but only where numbers are."""
    root = tmp_path / "my data"
    if release == 1:
        rows, _ = affectnet_release1(root, COUNTS)
        for row, value in zip(rows, ("-2", "7", "word", "", "1", "0,25"), strict=False):
            row["valence"] = value
        write_release1_csv(root / "Manually_Annotated_file_lists" / "training.csv", rows)
    else:
        affectnet_release2(root, COUNTS)
        annotations = root / "train_set" / "annotations"
        for number, value in enumerate((-2.0, 7, "word")):
            np.save(annotations / f"{number}_val.npy", value)
        (annotations / "3_val.npy").unlink()
        np.save(annotations / "4_val.npy", 1.0)
        np.save(annotations / "5_val.npy", "0.25")
    numbers, classes = affectnet(tmp_path, target=ValenceArousal()), affectnet(tmp_path)
    for data in (numbers, classes):
        data.setup()
    valence = numbers.pack.column("valence")[:6]
    assert np.isnan(valence[:4]).all()
    assert valence[4:].tolist() == [1, 0.25]
    assert classes.pack.left_out.get("no valence or arousal") is None
    assert numbers.pack.left_out["no valence or arousal"] == 4
    counts = [sum(sum(part.values()) for part in data.counts().values()) for data in (classes, numbers)]
    assert counts[1] == counts[0] - 4


def test_a_release_without_numbers_says_so(tmp_path: Path) -> None:
    affectnet_release3(tmp_path / "my data", COUNTS)
    with pytest.raises(ValueError, match="has no column valence; its columns are label only"):
        affectnet(tmp_path, target=ValenceArousal()).setup()


def test_release2_with_blemishes(tmp_path: Path) -> None:
    root = tmp_path / "my data"
    affectnet_release2(root, COUNTS)
    folder = root / "train_set"
    save(folder / "images" / "900.JPG", class_image("happy", 900))  # no annotation
    np.save(folder / "annotations" / "901_exp.npy", "1")  # no image
    for number, content in ((902, "11"), (903, "happy"), (905, 1.5)):
        save(folder / "images" / f"{number}.jpg", class_image("happy", number))
        np.save(folder / "annotations" / f"{number}_exp.npy", content)
    save(folder / "images" / "904.jpg", class_image("happy", 904))
    (folder / "annotations" / "904_exp.npy").write_bytes(b"")
    data = affectnet(tmp_path, max_bad_fraction=0.2)
    check(data, "release2")
    assert Counter(problem.kind for problem in data.pack.problems) == {"label": 5, "missing": 1}


@pytest.mark.parametrize("inside", [False, True])
def test_release3(tmp_path: Path, inside: bool) -> None:
    root = tmp_path / "my data"
    affectnet_release3(root, COUNTS)
    data = affectnet(tmp_path, root=root / "human_annotated" if inside else root)
    check(data, "release3")


@pytest.mark.parametrize(
    "folder_names",
    [
        {label: str(number) for number, label in enumerate(AFFECTNET_IDS)},
        dict(
            zip(
                AFFECTNET_IDS,
                ("Neutral", "happiness", "SADNESS", "surprise", "fearful", "disgust", "Angry", "Contempt", "None",
                 "Uncertain", "Non-Face"),
                strict=True,
            )
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("val_name", ["val", "test"])
def test_image_folders(tmp_path: Path, folder_names: dict[str, str], val_name: str) -> None:
    counts = {"train": COUNTS["train"], val_name: COUNTS["val"]}
    class_folders(tmp_path / "my data", counts, folder_names)
    data = affectnet(tmp_path)
    data.setup()
    assert data.pack.key["layout"] == "folders"
    assert data.counts()["test"] == {c: COUNTS["val"][c] for c in SEVEN}
    assert data.counts()["train"] == {c: COUNTS["train"][c] - 3 for c in SEVEN}
    check_images(data)
    assert data.pack.left_out == {"none": 3, "uncertain": 4, "non-face": 5, "contempt": 8}


def test_image_folders_with_a_class_that_nobody_knows(tmp_path: Path) -> None:
    names = {label: label for label in AFFECTNET_IDS} | {"contempt": "bored"}
    class_folders(tmp_path / "my data", COUNTS, names)
    data = affectnet(tmp_path)
    with pytest.raises(ValueError, match=r"8 of 84 images can't be used \(label 8\).*no expression is called 'bored'"):
        data.setup()


def test_image_folders_with_three_parts_are_taken_as_they_are(tmp_path: Path) -> None:
    seven = dict.fromkeys(SEVEN, 2)
    class_folders(tmp_path / "my data", {"train": seven, "val": seven, "test": seven}, {c: c for c in SEVEN})
    data = affectnet(tmp_path)
    data.setup()
    assert data.counts() == {"train": seven, "val": seven, "test": seven}
    assert set(data.pack.part_ids[data.positions("val")]) == {1}


def test_eight_classes(tmp_path: Path) -> None:
    affectnet_release2(tmp_path / "my data", COUNTS)
    check(affectnet(tmp_path, classes=8), "release2", CLASSES)


def test_seven_and_eight_classes_share_a_pack(tmp_path: Path) -> None:
    affectnet_release2(tmp_path / "my data", COUNTS)
    seven, eight = affectnet(tmp_path), affectnet(tmp_path, classes=8)
    assert seven.make_pack().folder == eight.make_pack().folder
    with pytest.raises(ValueError, match=r"dataset\.classes=6 must be 7 or 8 for affectnet"):
        affectnet(tmp_path, classes=6)


def test_a_layout_can_be_forced(tmp_path: Path) -> None:
    affectnet_release1(tmp_path / "my data", COUNTS)
    affectnet_release2(tmp_path / "my data", COUNTS)
    check(affectnet(tmp_path), "release1")
    check(affectnet(tmp_path, layout="release2"), "release2")
    with pytest.raises(FileNotFoundError, match=r"looked for \(release3\) human_annotated/train_set/"):
        affectnet(tmp_path, layout="release3").setup()
    with pytest.raises(ValueError, match=r"dataset.layout=release4 must be auto, release1 or release2"):
        affectnet(tmp_path, layout="release4")


def test_a_class_too_small_for_validation_is_named(tmp_path: Path) -> None:
    affectnet_release2(tmp_path / "my data", COUNTS)
    with pytest.raises(ValueError, match=r"val_per_class=5: affectnet has only 5 training images of class disgust"):
        affectnet(tmp_path, val_per_class=5).setup()


def test_other_counts_than_the_papers_are_reported_not_fatal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    affectnet_release2(tmp_path / "my data", COUNTS)
    affectnet(tmp_path).setup()
    assert "the official train part has 55 images here instead of 283,901 (neutral 9 instead of 74,874," in caplog.text
    assert "the official val part has 21 images here instead of 3,500" in caplog.text


def test_the_expected_counts_are_the_papers() -> None:
    for layout in AffectNetDataModule.layouts:
        if layout.expected:
            totals = {part: sum(counts[c] for c in SEVEN) for part, counts in layout.expected.items()}
            assert totals == {"train": 283_901, "val": 3_500}
            assert sum(totals.values()) == 287_401
            assert {part: sum(counts.values()) for part, counts in layout.expected.items()} == {
                "train": 287_651,
                "val": 3_999,
            }


def test_release1_without_a_column(tmp_path: Path) -> None:
    """Each row is a problem; none ends the reading."""
    rows, _ = affectnet_release1(tmp_path / "my data", COUNTS)
    short = [{name: cell for name, cell in row.items() if name != "expression"} for row in rows]
    write_release1_csv(tmp_path / "my data" / "Manually_Annotated_file_lists" / "training.csv", short)
    index = affectnet(tmp_path).source().read()
    assert len(index.problems) == len(rows)
    assert {problem.reason for problem in index.problems} == {"there is no column expression"}


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b"'shape': ()", b"'shape':(()", "TokenError"),
        (b"<i8", b"<U2", "Error"),
        (b"<i8", b"<m8", "holds no number"),
    ],
)
def test_release2_with_a_label_that_numpy_cannot_read(tmp_path: Path, old: bytes, new: bytes, told: str) -> None:
    affectnet_release2(tmp_path / "my data", COUNTS)
    path = tmp_path / "my data" / "train_set" / "annotations" / "0_exp.npy"
    np.save(path, 0x7FFFFFFF7FFFFFFF)  # as text, no characters
    path.write_bytes(path.read_bytes().replace(old, new))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (problem,) = affectnet(tmp_path).source().read().problems
    assert problem.kind == "label"
    assert told in problem.reason
