"""Sets of laboratories, in the layouts that their descriptions give, and a user's own set whose paths say the class.

An image shows its class in its red channel. Frames that do not show it, and other angles and lights, show another.
"""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.composed import composed
from helpers.datasets import (
    FER2013_IDS,
    SEVEN,
    SIX,
    ckplus48,
    ckplus_official,
    class_image,
    expw,
    grey_pixels,
    jaffe,
    kdef,
    oulu_casia,
    save,
    save_broken,
    shown_class,
)

from fer_voting.config import make
from fer_voting.data.index import Index
from fer_voting.data.sets.folder import FolderDataModule
from fer_voting.data.sets.named import NamedDataModule

PEOPLE = 4
SEVEN_OF_CK = (*SIX, "contempt")
MADE: dict[str, tuple[Callable[[Path], Any], dict[str, int]]] = {
    "ckplus": (ckplus_official, dict.fromkeys(SEVEN_OF_CK, 3 * PEOPLE)),
    "ckplus48": (ckplus48, dict.fromkeys(SEVEN_OF_CK, 3 * PEOPLE)),
    "jaffe": (jaffe, dict.fromkeys(SEVEN, 3 * PEOPLE)),
    "kdef": (kdef, dict.fromkeys(SEVEN, 2 * PEOPLE)),
    "oulu_casia": (oulu_casia, dict.fromkeys(SIX, 3 * PEOPLE)),
    "expw": (expw, dict.fromkeys(SEVEN, 10)),
}
"""Option of `dataset` -> what makes a set in its layout, and the images of each class that are read."""


def configured(option: str, root: Path, *words: str) -> Any:
    """The data module that a command makes."""
    command = [f"dataset={option}", f"dataset.root={root}", f"output_dir={root.parent / 'out'}", *words]
    return make(composed(command).dataset)


def index_of(data: Any) -> Index:
    """Everything that the reader finds, and every other file below the root."""
    return data.source().read()


def counted(index: Index) -> dict[str, int]:
    return dict(Counter(sample.label for sample in index.samples))


@pytest.mark.slow
@pytest.mark.parametrize("option", MADE)
@pytest.mark.parametrize("parent", ["", "copy"])
def test_a_set_is_read_in_its_layout_and_its_people_are_kept_apart(option: str, parent: str, tmp_path: Path) -> None:
    maker, counts = MADE[option]
    maker(tmp_path / "root" / parent)
    words = ["dataset.folds=3", "dataset.fold=0"] if option == "expw" else ["dataset.folds=groups", "dataset.fold=1"]
    data = configured(option, tmp_path / "root", *words)
    data.setup()
    assert Counter(data.pack.labels[label] for label in data.pack.label_ids) == counts
    assert data.class_names == tuple(name for name in (*SEVEN, "contempt") if name in counts)
    for row in range(len(data.pack)):
        assert shown_class(data.pack.images[row]) == data.pack.labels[data.pack.label_ids[row]]
    if option != "expw":
        assert data.data_summary()["groups"] == {"number": PEOPLE, "between": {}}
        parts = [
            {name.rpartition("/")[2][1 if option == "kdef" else 0 :][:4] for name in data.names(p)}
            for p in data.counts()
        ]
        if option in ("ckplus", "ckplus48"):
            assert parts == [{"S005", "S008"}, {"S007"}, {"S006"}]


@pytest.mark.parametrize("option", MADE)
def test_every_file_is_a_sample_a_problem_or_counted(option: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    MADE[option][0](root)
    (root / "ReadMe.txt").write_text("x")
    save(root / "portrait.png", class_image("sad", 1))
    save_broken(root / "._1.png")
    index = index_of(configured(option, root))
    files = sum(path.is_file() for path in root.rglob("*"))
    read = len(index._used)
    beside = sum(count for why, count in index.left_out.items() if why.startswith(("no image", "hidden", "not where")))
    assert read + beside == files
    assert index.left_out["hidden: .png"] == 1
    assert index.left_out["not where the layout has images: .png"] == 1
    assert not index.problems
    if option != "expw":
        assert index.notes == ["1 image is not named as the others, and not read, e.g. portrait.png"]


@pytest.mark.parametrize(
    ("option", "words", "counts", "left_out"),
    [
        ("ckplus", [], {}, {"other frames": 7 * 3 * PEOPLE, "no label file": 6 * PEOPLE}),
        ("ckplus", ["dataset.neutral_frames=1"], {"neutral": 7 * PEOPLE}, {"other frames": 7 * 2 * PEOPLE}),
        ("ckplus", ["dataset.last_frames=1"], dict.fromkeys(SEVEN_OF_CK, PEOPLE), {"other frames": 7 * 5 * PEOPLE}),
        ("ckplus", ["dataset.last_frames=99", "dataset.neutral_frames=2"], dict.fromkeys(SEVEN_OF_CK, 24), {}),
        ("kdef", [], {}, {"angle HL": 56, "angle FL": 56}),
        ("kdef", ["dataset.keep.angle=[S,HL]"], dict.fromkeys(SEVEN, 4 * PEOPLE), {"angle HL": 0, "angle FL": 56}),
        ("kdef", ["dataset.keep=null"], dict.fromkeys(SEVEN, 6 * PEOPLE), {"angle FL": 0}),
        ("oulu_casia", [], {}, {"camera NI": 36 * PEOPLE, "light Weak": 36 * PEOPLE, "other frames": 18 * PEOPLE}),
        ("oulu_casia", ["dataset.keep.light=[Weak]", "dataset.neutral_frames=1"], {"neutral": 6 * PEOPLE}, {}),
        ("jaffe", ["dataset.labels.NE=null"], {"neutral": 0}, {"label NE": 3 * PEOPLE}),
    ],
)  # fmt: skip
def test_options_choose_images_and_the_rest_is_counted(
    option: str, words: list[str], counts: dict[str, int], left_out: dict[str, int], tmp_path: Path
) -> None:
    MADE[option][0](tmp_path / "root")
    index = index_of(configured(option, tmp_path / "root", *words))
    expected = {name: count for name, count in (MADE[option][1] | counts).items() if count}
    if not (set(counts) - {"neutral"}) or words:
        assert {name: count for name, count in counted(index).items() if name in expected} == expected
    assert {why: index.left_out[why] for why in left_out} == left_out


def test_packs_of_other_options_lie_side_by_side(tmp_path: Path) -> None:
    ckplus_official(tmp_path / "root")
    first, second = (configured("ckplus", tmp_path / "root", f"dataset.neutral_frames={count}") for count in (0, 1))
    assert first.pack_folder(first.source()) != second.pack_folder(second.source())


def test_ten_people_are_divided_and_counts_compared_with_the_published_ones(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    jaffe(tmp_path / "root", people=10)
    data = configured("jaffe", tmp_path / "root")
    data.setup()
    people = {part: {name[:2] for name in data.names(part)} for part in ("train", "val", "test")}
    assert sum(map(len, people.values())) == len(set().union(*people.values())) == 10
    assert "210 images here instead of 213 (happy 30 instead of 31" in caplog.text


# CK+'s files of labels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"8", "label '8' is none of 0, 1, 2, 3, 4, 5, 6, 7"),
        (b"", "label '' is none of"),
        (b"2.5", "label '2.5' is none of"),
        (b"nan", "label 'nan' is none of"),
        (b"\xff\x00", "is not text in UTF-8"),
        (b"5 " * 600_000, "an annotation is a file of at most 1,000,000 bytes"),
    ],
)
def test_a_label_that_cannot_be_read_makes_its_images_problems(tmp_path: Path, text: bytes, reason: str) -> None:
    ckplus_official(tmp_path / "root", people=1)
    (tmp_path / "root/Emotion/S005/001/S005_001_00000006_emotion.txt").write_bytes(text)
    index = index_of(configured("ckplus", tmp_path / "root"))
    assert len(index.problems) == 6
    assert {problem.kind for problem in index.problems} == {"label"}
    assert all(reason in problem.reason for problem in index.problems)
    assert "anger" not in counted(index)


def test_two_labels_of_a_sequence_and_labels_without_images_are_problems(tmp_path: Path) -> None:
    root = tmp_path / "root"
    ckplus_official(root, people=2)
    (root / "Emotion/S005/001/S005_001_00000005_emotion.txt").write_text("3.0")
    (root / "Emotion/S005/002/S005_002_00000005_emotion.txt").write_text("2")  # says the same
    (root / "Emotion/S999_001_00000005_emotion.txt").write_text("3.0")
    index = index_of(configured("ckplus", root))
    assert Counter(problem.kind for problem in index.problems) == {"label": 6, "missing": 1}
    assert "_00000005_emotion.txt and" in index.problems[0].reason
    assert counted(index) == dict.fromkeys(SEVEN_OF_CK, 6) | {"anger": 3}
    assert not [why for why in index.left_out if ".txt" in why and index.left_out[why]]


# A user's own set -----------------------------------------------------------------------------------------------------


def own(root: Path, **options: Any) -> NamedDataModule:
    return NamedDataModule(name="own", root=root, cache_dir=root.parent / "out", classes=None, **options)


def test_paths_of_a_users_own_say_class_person_part_and_frame(tmp_path: Path) -> None:
    for part in ("Training", "Validation", "test"):
        for person in ("anna", "ben"):
            for label in ("Joy", "tired"):
                for frame in (8, 9, 10):
                    name = f"{person}-{label}-{frame}.png"
                    save(tmp_path / "own" / part / name, class_image("happy", hash((part, person, frame)) % 9999))
    pattern = r"(?P<part>[^/]+)/(?P<person>\w+)-(?P<label>\w+)-(?P<frame>\d+)\.png$"
    data = own(tmp_path / "own", pattern=pattern, last_frames=2)
    data.setup()
    assert data.class_names == ("happy", "tired")
    assert data.counts() == {part: {"happy": 4, "tired": 4} for part in ("train", "val", "test")}
    assert not [name for part in data.counts() for name in data.names(part) if name.endswith("-8.png")]
    assert data.data_summary()["groups"]["between"]["train-test"] == {"number": 2, "first": "anna"}
    index = own(tmp_path / "own", pattern=r"(?P<part>\w+)-(?P<label>\w+)-(?P<frame>\d+)").read(tmp_path / "own")
    assert {problem.reason for problem in index.problems} == {
        f"{name!r} is no part: train, val or test" for name in ("anna", "ben")
    }


def test_images_that_are_all_of_the_test_part_are_all_tested(tmp_path: Path) -> None:
    for number in range(20):
        save(tmp_path / "own/test" / f"{'joy' if number % 2 else 'sad'}-{number}.png", class_image("sad", number))
    pattern = r"(?P<part>\w+)/(?P<label>[a-z]+)-\d+\.png$"
    data = own(tmp_path / "own", pattern=pattern, needs=("test",))
    data.setup()
    assert data.counts() == {"test": {"happy": 10, "sad": 10}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": None}, "dataset.pattern is not set"),
        ({"pattern": "(?P<label>"}, "is no regular expression"),
        ({"pattern": "(?P<person>x)"}, "dataset.pattern=(?P<person>x) has no group (?P<label>...)"),
        ({"pattern": "(?P<label>x)", "last_frames": 3}, "has no group (?P<frame>...)"),
        ({"pattern": "(?P<label>x)", "neutral_frames": 1}, "dataset.neutral_frames=1 needs dataset.last_frames"),
        ({"pattern": "(?P<label>x)", "keep": {"angle": ["S"]}}, "has no group (?P<angle>...)"),
        ({"pattern": "(?P<label>x)", "label_files": "(?P<sequence>x)"}, "dataset.pattern=(?P<label>x) has no group"),
        ({"pattern": "(?P<sequence>x)", "label_files": "x"}, "dataset.label_files=x has no group (?P<sequence>...)"),
        ({"pattern": "(?P<label>x)", "last_frames": 0}, "dataset.last_frames=0 must be null or at least 1"),
        ({"pattern": "(?P<label>x)", "neutral_frames": -1}, "dataset.neutral_frames=-1 at least 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        own(tmp_path, **options)


def test_a_root_without_such_images_or_with_results_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "own" / "1.png", class_image("happy", 1))
    with pytest.raises(FileNotFoundError, match=r"looked for \(names\) images whose paths fit \(\?P<label>x\)"):
        own(tmp_path / "own", pattern="(?P<label>x)").setup()
    with pytest.raises(ValueError, match="holds the folder of results"):
        own(tmp_path / "own", pattern="(?P<label>1)").__class__(
            name="own", root=tmp_path / "own", cache_dir=tmp_path / "own/out", classes=None, pattern="(?P<label>1)"
        ).setup()


@pytest.mark.parametrize(
    ("option", "title"), [("ckplus", "CK+"), ("kdef", "KDEF"), ("jaffe", "JAFFE"), ("expw", "ExpW")]
)
def test_class_folders_are_not_looked_for_in_another_layout(option: str, title: str, tmp_path: Path) -> None:
    MADE[option][0](tmp_path / "root")
    data = FolderDataModule(name="x", root=tmp_path / "root", cache_dir=tmp_path, classes=None)
    with pytest.raises(ValueError, match=re.escape(f"{title}'s layout") + f".*dataset={option}"):
        data.setup()


# ckextended.csv and ExpW's list ---------------------------------------------------------------------------------------


def test_the_csv_of_ckplus_has_fer2013s_classes_and_contempt(tmp_path: Path) -> None:
    ids = (*FER2013_IDS, "contempt")
    lines = ["emotion,pixels,Usage"]
    for usage, count in (("Training", 8), ("PublicTest", 1), ("PrivateTest", 1)):
        lines += [f"{i},{grey_pixels(n, 10 * k)},{usage}" for k in range(count) for i, n in enumerate(ids)]
    lines += [f"8,{grey_pixels('sad', 1)},Training", "3,1 2 3,Training"]
    (tmp_path / "root").mkdir()
    (tmp_path / "root/ckextended.csv").write_text("\n".join(lines) + "\n")
    data = configured("ckplus48", tmp_path / "root", "dataset.max_bad_fraction=0.1")
    data.setup()
    assert data.counts() == {p: dict.fromkeys(data.class_names, n) for p, n in (("train", 8), ("val", 1), ("test", 1))}
    assert data.class_names == (*SEVEN, "contempt")
    for row in np.flatnonzero(data.pack.good):
        shown = round((float(data.pack.images[row].mean()) - 20) / 20)
        assert (*SEVEN, "contempt")[shown] == data.pack.labels[data.pack.label_ids[row]]
    assert [problem.kind for problem in data.pack.problems] == ["label", "row"]
    assert data.pack.notes == ["ckextended.csv names no person: the same may be in several parts"]


def test_rows_of_expw_that_cannot_be_read_are_problems(tmp_path: Path) -> None:
    path = expw(tmp_path / "root")
    rows = [
        "x.jpg 0 1 1 9",
        "happy_man_0.jpg 0 a 5 37 52 1 3",
        "happy_man_0.jpg 0 20 5 37 52 1 7",
        "../x 0 1 1 9 9 1 1",
    ]
    rows += ["gone.jpg 0 1 1 9 9 1 1", "happy_man_2.jpg 9 70 5 37 99 1 1"]
    with path.open("a") as file:
        file.write("\n".join(rows) + "\n")
    data = configured("expw", tmp_path / "root", "dataset.max_bad_fraction=0.2")
    data.setup()
    kinds = Counter(problem.kind for problem in data.pack.problems)
    assert kinds == {"row": 2, "label": 1, "outside": 1, "missing": 1, "unreadable": 1}
