"""Any network on FER2013's PublicTest, against figures computed only from the csv files."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import FER2013_IDS, FERPLUS_COLUMNS, SEVEN

from experiments import public_test
from experiments.common import Report
from fer_voting import Recognizer, export
from fer_voting.data.corruptions import corrupt
from fer_voting.networks import load_network
from fer_voting.runs.run import Run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def output_dir(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results for a copy of the shared run, because they are written beside it."""
    folder = tmp_path_factory.mktemp("judged") / "outputs"
    shutil.copytree(trained.dir, folder / "runs" / "trained")
    return folder


@pytest.fixture(scope="module")
def found(root: Path, output_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("found")
    public_test.main(["--root", str(root), "--run", "trained", "--output-dir", str(output_dir), "--out", str(out)])
    assert (out / "trained-confusion.png").stat().st_size > 5_000
    assert "| pixels a side |" in (out / "trained.md").read_text()
    (figures,) = json.loads((out / "trained.json").read_text())
    return figures


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_a_quarter_that_the_photo_leaves_out_is_black_or_stretched_over(side: str) -> None:
    images = np.random.default_rng(0).integers(1, 256, (2, 24, 24, 3), dtype=np.uint8)
    turns = ("left", "top", "right", "bottom").index(side)
    cut = {kind: np.rot90(faces, turns, (1, 2)) for kind, faces in public_test.cut_at_the_edge(images, side).items()}
    turned = np.rot90(images, turns, (1, 2))  # the quarter that is left out is now on the left
    assert not cut["black"][:, :, :6].any()
    assert np.array_equal(cut["black"][:, :, 6:], turned[:, :, 6:])
    assert cut["stretched"].min() > 0
    assert np.abs(cut["stretched"][:, :, -1].astype(int) - turned[:, :, -1]).max() < 128


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def faces(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """PublicTest by the csv: images uint8 [N, 48, 48, 3], labels [N]."""
    rows = [row for row in read(root / "fer2013.csv") if row["Usage"] == "PublicTest"]
    grey = np.array([row["pixels"].split() for row in rows]).astype(np.uint8).reshape(-1, 48, 48, 1)
    return grey.repeat(3, axis=3), np.array([SEVEN.index(FER2013_IDS[int(row["emotion"])]) for row in rows])


def test_by_label(found: dict[str, Any], faces, output_dir: Path) -> None:
    images, labels = faces
    decisions = Recognizer.from_run("trained", output_dir)(images).class_ids
    by_label = found["by_label"]
    assert found["class_names"] == list(SEVEN)
    assert by_label["accuracy"] == pytest.approx((decisions == labels).mean())
    assert by_label["images"] == len(labels) == 29
    assert by_label["low"] <= by_label["accuracy"] <= by_label["high"]
    counts = np.array(by_label["confusion_counts"])
    assert [counts[label].tolist() for label in range(7)] == [
        np.bincount(decisions[labels == label], minlength=7).tolist() for label in range(7)
    ]
    assert by_label["recall"]["happy"] == pytest.approx(counts[1, 1] / 4)


def test_by_strict_majority(found: dict[str, Any], faces, root: Path, output_dir: Path) -> None:
    images, _ = faces
    decisions = Recognizer.from_run("trained", output_dir)(images).classes
    right = []
    rows = [row for row in read(root / "fer2013new.csv") if row["Usage"] == "PublicTest"]
    for row, decision in zip(rows, decisions, strict=True):
        votes = {name: int(row[name]) for name in FERPLUS_COLUMNS}
        winner = max(votes, key=lambda name: votes[name])
        if 2 * votes[winner] > sum(votes.values()):
            right.append({"happiness": "happy", "sadness": "sad"}.get(winner, winner) == decision)
    assert found["by_majority"]["images"] == len(right) < 29
    assert found["by_majority"]["accuracy"] == pytest.approx(np.mean(right))


def test_by_brightness(found: dict[str, Any], faces) -> None:
    images, _ = faces
    quarters = found["brightness"]
    assert [row["images"] for row in quarters] == [8, 7, 7, 7]
    # The network sees them in 24 pixels a side.
    assert quarters[0]["darkest"] == pytest.approx(images.mean(axis=(1, 2, 3)).min(), abs=1)
    ends = [end for row in quarters for end in (row["darkest"], row["brightest"])]
    assert ends == sorted(ends)
    right = sum(row["accuracy"] * row["images"] for row in quarters)
    assert right == pytest.approx(29 * found["by_label"]["accuracy"])


def test_by_resolution(found: dict[str, Any], faces, output_dir: Path) -> None:
    images, labels = faces
    rows = {row["resolution"]: row for row in found["resolution"]}
    assert sorted(rows) == [8, 12, 16, 24]
    decisions = Recognizer.from_run("trained", output_dir)(corrupt(images, "resolution", 8)).class_ids
    assert rows[8]["by_label"] == pytest.approx((decisions == labels).mean())
    assert rows[24]["by_majority"] == found["by_majority"]["accuracy"]


def test_a_checkpoint_and_a_shared_folder_are_judged_alike(
    found: dict[str, Any], root: Path, trained: Run, output_dir: Path, tmp_path: Path
) -> None:
    """The model card of the run has the figures, once they are there."""
    words = ["--root", str(root), "--output-dir", str(output_dir)]
    public_test.main([*words, "--run", "trained"])
    export.main(["--run", "trained", "--to", "folder", "--output-dir", str(output_dir), "--out", str(tmp_path / "net")])
    card = (tmp_path / "net" / "README.md").read_text()
    assert "## FER2013's PublicTest (soft vote)" in card
    assert f"| FER2013's label | 29 | {100 * found['by_label']['accuracy']:.2f} |" in card
    checkpoint = trained.best_checkpoint("soft")
    for name, more in (("net", ["--model", str(tmp_path / "net")]), ("best-soft", ["--checkpoint", str(checkpoint)])):
        public_test.main([*words, *more, "--out", str(tmp_path)])
        (again,) = json.loads((tmp_path / f"{name}.json").read_text())
        assert again["by_label"] == found["by_label"]
        assert again["checksum"] == found["checksum"]


def test_without_votes_and_without_faces(root: Path, output_dir: Path, tmp_path: Path) -> None:
    lines = (root / "fer2013.csv").read_text()
    (tmp_path / "fer2013.csv").write_text(lines)
    words = ["--run", "trained", "--output-dir", str(output_dir), "--out", str(tmp_path), "--root", str(tmp_path)]
    public_test.main(words)
    (found,) = json.loads((tmp_path / "trained.json").read_text())
    assert found["by_majority"] is None
    assert "FER+'s strict majority" not in (tmp_path / "trained.md").read_text().partition("Strict")[0]
    (tmp_path / "fer2013.csv").write_text(lines.replace("PublicTest", "PrivateTest"))
    with pytest.raises(SystemExit, match="has no images of FER2013's PublicTest"):
        public_test.main(words)
    with pytest.raises(SystemExit, match="nobody"):
        public_test.main(["--run", "nobody", *words[2:]])


def test_a_report_on_a_sample_names_the_weights_that_it_is_about(root: Path, tmp_path: Path) -> None:
    words = ["--root", str(root), "--output-dir", str(tmp_path), "--faces", "0"]
    with pytest.raises(SystemExit):
        public_test.publish_sample("about", "sample", words, lambda *_: Report("sample", ""))
    words[-1] = "3"
    public_test.publish_sample("about", "sample", words, lambda _, chosen: Report("sample", f"{len(chosen)} faces"))
    text = (tmp_path / "sample" / "sample.md").read_text()
    assert text.startswith("# 3 faces\n")
    assert f"\nWeights {load_network().checksum[:12]} of the network that ships; seed 0; commit " in text


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--every", "6"], "--every 6: a number from 1, and with --forms only"),
        (["--forms", "--every", "0"], "--every 0"),
        (["--forms", "--vote", "hard"], "leave out --cut and --vote"),
    ],
)
def test_options_that_would_mean_nothing_are_refused(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        public_test.main(["--root", "nowhere", *words])
    assert reason in capsys.readouterr().err


def test_the_forms_of_an_exported_network(
    root: Path, output_dir: Path, found: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An export of a run: the full form's figures are those of the network, and the model card shows the table."""
    folder = tmp_path / "mine"
    words = ["--run", "trained", "--output-dir", str(output_dir), "--to", "folder", "--out", str(folder)]
    words += ["--precision", "float16", "--onnx", "float32"]  # as the one that ships
    export.main(words)
    judged = ["--root", str(root), "--model", str(folder), "--output-dir", str(output_dir), "--forms"]
    public_test.main(judged)
    (figures,) = json.loads((output_dir / "public_test" / "mine-forms.json").read_text())
    rows = {row["form"]: row for row in figures["forms"]}
    assert list(rows) == ["full", "adaptive", "whole"]
    for kind in ("by_label", "by_majority"):
        assert rows["full"][kind] == pytest.approx(found[kind]["accuracy"])
        assert 0 < rows["whole"][kind] < 1
    assert rows["full"]["time"] == 1
    assert min(row["milliseconds"] for row in rows.values()) > 0
    assert "left out: full, int8: `precision` (='int8') needs an ONNX file" in capsys.readouterr().out
    public_test.main(judged[:-1])
    export.main([*words[:-2], "--out", str(tmp_path / "again")])  # without the ONNX file, which takes seconds
    card = (tmp_path / "again" / "README.md").read_text()
    assert "## FER2013's PublicTest (soft vote)" in card
    assert "## Forms" in card
    assert f"| whole | float32 | {100 * rows['whole']['by_label']:.2f} |" in card
