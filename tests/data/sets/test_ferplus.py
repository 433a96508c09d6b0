import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import FERPLUS_COLUMNS, SEVEN, fer2013_csv

from fer_voting.data.labels import CLASSES
from fer_voting.data.sets.ferplus import FERPlusDataModule, raw_votes, strict_majority

# neutral, happiness, surprise, sadness, anger, disgust, fear, contempt, unknown, NF
ROWS = [
    ("Training", "a.png", (9, 1, 0, 0, 0, 0, 0, 0, 0, 0)),  # neutral: the single vote counts for nothing
    ("Training", "b.png", (0, 0, 0, 6, 4, 0, 0, 0, 0, 0)),  # sad, 6 of 10
    ("Training", "c.png", (4, 0, 0, 3, 3, 0, 0, 0, 0, 0)),  # neutral, but no majority
    ("Training", "d.png", (5, 0, 0, 0, 1, 1, 1, 1, 1, 0)),  # neutral: 5 of 5 after the single votes
    ("Training", "", (0, 0, 0, 0, 0, 0, 0, 0, 0, 10)),  # not a face
    ("Training", "f.png", (2, 0, 0, 0, 0, 0, 0, 0, 8, 0)),  # unknown
    ("Training", "g.png", (0, 0, 2, 0, 0, 0, 0, 8, 0, 0)),  # contempt
    ("Training", "h.png", (0, 0, 6, 0, 0, 0, 4, 0, 0, 0)),  # surprise
    ("PublicTest", "i.png", (0, 10, 0, 0, 0, 0, 0, 0, 0, 0)),  # happy
    ("PublicTest", "j.png", (5, 5, 0, 0, 0, 0, 0, 0, 0, 0)),  # a draw
    ("PublicTest", "k.png", (0, 0, 0, 0, 0, 2, 0, 0, 0, 8)),  # most raters saw no face
    ("PrivateTest", "l.png", (0, 10, 0, 0, 0, 0, 0, 0, 0, 0)),  # happy
]


def ferplus(tmp_path: Path, **arguments: Any) -> FERPlusDataModule:
    # The rows below have four classes; a training needs an image of each.
    settings = {"root": tmp_path, "cache_dir": tmp_path / "packs", "needs": ("val", "test")} | arguments
    return FERPlusDataModule(name="ferplus", **settings)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    # FER2013's own labels are all happy: nothing of them may come through.
    fer2013_csv(
        tmp_path / "fer2013.csv", {"Training": {"happy": 8}, "PublicTest": {"happy": 3}, "PrivateTest": {"happy": 1}}
    )
    write_votes(tmp_path, ROWS)
    return tmp_path


def write_votes(root: Path, rows: list[tuple[str, str, tuple[int, ...]]]) -> None:
    lines = [",".join(["Usage", "Image name", *FERPLUS_COLUMNS])]
    lines += [",".join([usage, name, *map(str, votes)]) for usage, name, votes in rows]
    (root / "fer2013new.csv").write_text("\n".join(lines) + "\n")


def labels(data: FERPlusDataModule, part: str) -> dict[str, str]:
    names = data.names(part)
    return {n: data.pack.labels[data.pack.label_ids[i]] for n, i in zip(names, data.positions(part), strict=True)}


def test_majority(root: Path) -> None:
    data = ferplus(root)
    data.setup()
    assert labels(data, "train") == {"00000": "neutral", "00001": "sad", "00003": "neutral", "00007": "surprise"}
    assert labels(data, "val") == {"00008": "happy"}
    assert data.class_names == SEVEN
    rejected = {"not a face": 1, "most raters saw no emotion": 1, "most raters saw no face": 1}
    assert data.pack.left_out == rejected | {"contempt": 1, "no majority of votes": 2}
    targets = next(iter(data.train_dataloader()))[1]
    assert targets.dtype.is_floating_point is False


def test_majority_with_contempt(root: Path) -> None:
    data = ferplus(root, classes=8)
    data.setup()
    assert labels(data, "train")["00006"] == "contempt"
    assert data.class_names == CLASSES


def test_votes_as_targets(root: Path) -> None:
    data = ferplus(root, targets="votes")
    data.setup()
    assert labels(data, "train") == {
        "00000": "neutral", "00001": "sad", "00002": "neutral", "00003": "neutral", "00007": "surprise"
    }  # fmt: skip
    _, targets, positions = next(iter(data.train_dataloader()))
    shares = dict(zip(data.pack.names(positions.numpy()), targets.numpy(), strict=True))
    order = {name: i for i, name in enumerate(SEVEN)}
    assert targets.numpy().dtype == np.float32
    assert targets.shape == (5, 7)
    assert shares["00000"][order["neutral"]] == 1
    assert shares["00002"][[order["neutral"], order["sad"], order["anger"]]] == pytest.approx([0.4, 0.3, 0.3])
    assert shares["00007"][[order["surprise"], order["fear"]]] == pytest.approx([0.6, 0.4])
    assert targets.sum(1).tolist() == pytest.approx([1] * 5)
    # Evaluation uses the most frequent vote.
    assert next(iter(data.val_dataloader()))[1].dtype.is_floating_point is False


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_votes_stay_with_their_classes_where_one_is_left_out(root: Path, share: float) -> None:
    data = ferplus(root, targets="votes", class_map={"neutral": None}, label_share=share)
    data.setup()
    _, targets, positions = next(iter(data.train_dataloader()))
    shares = dict(zip(data.pack.names(positions.numpy()), targets.tolist(), strict=True))
    expected = {"happy": share, "surprise": 0.6 * (1 - share), "fear": 0.4 * (1 - share)}
    assert shares["00007"] == pytest.approx([expected.get(name, 0) for name in SEVEN[1:]])


def test_a_share_of_each_target_is_fer2013s_label(root: Path) -> None:
    """Which is happy for every image here. By hand, row h: 0.25 x happy + 0.75 x (0.6 surprise, 0.4 fear)."""
    order = {name: i for i, name in enumerate(SEVEN)}

    def shares(**arguments: Any) -> dict[str, Any]:
        data = ferplus(root, label_share=0.25, **arguments)
        data.setup()
        _, targets, positions = next(iter(data.train_dataloader()))
        assert targets.numpy().dtype == np.float32
        assert targets.sum(1).tolist() == pytest.approx([1] * len(targets))
        return dict(zip(data.pack.names(positions.numpy()), targets.numpy(), strict=True))

    surprised = shares(targets="votes")["00007"]
    assert surprised[[order["happy"], order["surprise"], order["fear"]]] == pytest.approx([0.25, 0.45, 0.3])
    sad = shares(targets="majority")["00001"]
    assert sad[[order["happy"], order["sad"]]] == pytest.approx([0.25, 0.75])
    with pytest.raises(ValueError, match=r"dataset\.label_share=1\.5 must be from 0 to 1"):
        ferplus(root, label_share=1.5)


def test_a_pack_without_fer2013s_labels_is_built_again(root: Path) -> None:
    data = ferplus(root)
    data.setup()
    record = data.pack.folder / "pack.json"
    stored = json.loads(record.read_text())
    stored["key"]["columns"] = ["votes"]
    record.write_text(json.dumps(stored))
    again = ferplus(root, label_share=0.5)
    again.setup()
    assert set(again.pack.column("fer2013_class").tolist()) == {CLASSES.index("happy")}
    assert again.pack.column("votes")[1].tolist() == [0, 0, 6, 0, 0, 0, 4, 0, 0, 0]  # sad 6, anger 4


def test_the_votes_that_train_are_in_the_fingerprint(root: Path) -> None:
    """With the same majorities, hence labels, other votes are other targets."""

    def fingerprint(**arguments: Any) -> str:
        data = ferplus(root, **arguments)
        data.setup()
        return data.fingerprint

    before = [fingerprint(), fingerprint(targets="votes")]
    write_votes(root, [ROWS[0], ("Training", "b.png", (0, 0, 0, 7, 3, 0, 0, 0, 0, 0)), *ROWS[2:]])
    assert fingerprint() == before[0]
    assert fingerprint(targets="votes") != before[1]


def test_rows_align_by_number_and_by_usage(root: Path) -> None:
    rows = list(ROWS)
    rows[7] = ("PublicTest", *rows[7][1:])
    write_votes(root, rows)
    data = ferplus(root, max_bad_fraction=0.5)
    data.setup()
    assert [(p.kind, p.reason) for p in data.pack.problems] == [
        ("row", "Usage 'PublicTest' where FER2013 has 'Training'")
    ]
    write_votes(root, ROWS[:-1])
    with pytest.raises(ValueError, match=r"fer2013\.csv and .*fer2013new\.csv have different numbers of rows"):
        ferplus(root).setup()


def test_an_unknown_kind_of_targets_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"dataset\.targets=soft must be majority or votes"):
        ferplus(tmp_path, targets="soft")


def test_strict_majority_is_more_than_half_of_all_votes(root: Path) -> None:
    """Nothing is an outlier here: row d has 5 of 10 for neutral. A row that is not a face, an unknown, contempt and a
    draw have none."""
    usages, votes = raw_votes(root / "fer2013new.csv")
    assert usages == [usage for usage, _, _ in ROWS]
    assert votes.sum(axis=1).tolist() == [10, 10, 10, 10, 0, 10, 10, 10, 10, 10, 10, 10]
    names = [CLASSES[winner] if winner >= 0 else "" for winner in strict_majority(votes)]
    assert names == ["neutral", "sad", "", "", "", "", "", "surprise", "happy", "", "", "happy"]
    assert strict_majority(votes, classes=8)[6] == CLASSES.index("contempt")


def test_another_table_is_no_votes(tmp_path: Path) -> None:
    (tmp_path / "fer2013new.csv").write_text("Usage,Image name,neutral\nTraining,a.png,3\n")
    with pytest.raises(ValueError, match=r"fer2013new.csv, row 0: votes: 'happy'"):
        raw_votes(tmp_path / "fer2013new.csv")


def test_votes_that_cannot_be_are_problems(root: Path) -> None:
    """A cell too many, and more raters than a pack can count; no other row suffers."""
    path = root / "fer2013new.csv"
    lines = path.read_text().splitlines()
    lines[1] += ",3"
    lines[2] = lines[2].replace(lines[2].split(",")[2], "300", 1)
    before = len(ferplus(root).source().read().problems)
    path.write_text("\n".join(lines) + "\n")
    problems = ferplus(root).source().read().problems
    assert len(problems) == before + 2
    assert {"votes: more cells than columns", "votes: 300 raters"} <= {problem.reason for problem in problems}
