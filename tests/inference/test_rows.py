"""The files that predictions are written to."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from fer_voting.inference.frames import Frame
from fer_voting.inference.rows import RowWriter, columns, read_boxes
from fer_voting.system.text import escape

ROW = {
    "input": "a.jpg",
    "frame": 0,
    "time_s": None,
    "face_id": 0,
    "left": 1.5,
    "top": 2,
    "width": 3,
    "height": 4,
    "angle": 0.0,
    "face_score": 0.9,
    "left_eye_x": 1,
    "left_eye_y": 2,
    "right_eye_x": 3,
    "right_eye_y": 2,
    "nose_x": 2,
    "nose_y": 3,
    "left_mouth_x": 1.5,
    "left_mouth_y": 4,
    "right_mouth_x": 2.5,
    "right_mouth_y": 4,
    "class": "happy",
    "confidence": 0.75,
    "happy": 0.75,
    "sad": 0.25,
    "vote_agreement": 1.0,
    "status": "ok",
}


def write(path: Path, *rows: dict) -> Path:
    with RowWriter(path, ("happy", "sad")) as writer:
        writer.write(rows)
    return path


def read_csv(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_columns():
    assert columns(("happy", "sad")) == list(ROW)


def test_csv(tmp_path: Path):
    path = write(tmp_path / "new folder" / "rows.csv", ROW, {"input": "b.jpg", "frame": 3, "status": "no_face"})
    assert path.read_text() == (
        f"{','.join(ROW)}\n"
        "a.jpg,0,,0,1.5,2,3,4,0.0,0.9,1,2,3,2,2,3,1.5,4,2.5,4,happy,0.75,0.75,0.25,1.0,ok\n"
        f"b.jpg,3{',' * 24}no_face\n"
    )


def test_json_lines(tmp_path: Path):
    path = write(tmp_path / "rows.JSONL", ROW, {"input": "b.jpg", "frame": 3, "status": "no_face"})
    first, second = map(json.loads, path.read_text().splitlines())
    assert first == ROW
    assert second == {**dict.fromkeys(ROW), "input": "b.jpg", "frame": 3, "status": "no_face"}


def test_rows_are_on_the_disk_before_the_file_is_closed(tmp_path: Path):
    with RowWriter(tmp_path / "rows.csv", ("happy", "sad")) as writer:
        assert read_csv(tmp_path / "rows.csv") == []
        writer.write([ROW])
        assert len(read_csv(tmp_path / "rows.csv")) == 1


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0.jpg", "+1.jpg", "-1+2.jpg", "@sum.jpg"])
def test_a_file_name_is_never_a_formula(tmp_path: Path, name: str):
    """`./name` is the same file, and text to every spreadsheet."""
    (row,) = read_csv(write(tmp_path / "rows.csv", ROW | {"input": name}))
    assert row["input"] == f"./{name}"
    assert json.loads(write(tmp_path / "rows.jsonl", ROW | {"input": name}).read_text())["input"] == name


@pytest.mark.parametrize("name", ['comma, "quoted".jpg', "ümläut 😀.jpg", " space ", "new\\nline"])
def test_other_names_come_back_as_they_are(tmp_path: Path, name: str):
    (row,) = read_csv(write(tmp_path / "rows.csv", ROW | {"input": name}))
    assert row["input"] == name


def test_control_characters_reach_no_terminal(tmp_path: Path):
    name = "a\x1b[31m\r\nb\udcff\u202e.jpg"
    path = write(tmp_path / "rows.csv", ROW | {"input": name, "status": f"unreadable: {name}"})
    content = path.read_bytes()
    assert content.count(b"\n") == 2
    assert not any(byte < 32 and byte != 10 for byte in content)
    (row,) = read_csv(path)
    assert row["input"] == escape(name) == r"a\x1b[31m\r\nb\udcff\u202e.jpg"
    lines = write(tmp_path / "rows.jsonl", ROW | {"input": name}).read_text("ascii").splitlines()
    assert json.loads(lines[0])["input"] == name


def test_a_class_may_be_called_like_a_column(tmp_path: Path):
    assert columns(("input", "happy"))[-4:-2] == ["input_probability", "happy"]


def test_another_suffix_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"`out` \(='.*rows.xlsx'\) must end in \.csv or \.jsonl"):
        RowWriter(tmp_path / "rows.xlsx", ("happy",))


def test_stdout_is_csv(capsys: pytest.CaptureFixture):
    with RowWriter(None, ("happy", "sad")) as writer:
        writer.write([ROW])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("input,frame,time_s")
    assert lines[1].startswith("a.jpg,0,,0,1.5")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("fex", ["FaceRectX", "FaceRectY", "FaceScore", "happiness", "sadness"]),
        ("fer", ["left", "top", "happy", "sad"]),
    ],
)
def test_other_programs_names_of_columns_are_written_and_read_as_boxes(tmp_path: Path, names: str, expected: list[str]):
    for path in (tmp_path / "rows.csv", tmp_path / "rows.jsonl"):
        with RowWriter(path, ("happy", "sad"), names) as writer:
            writer.write([ROW])
    (row,) = read_csv(tmp_path / "rows.csv")
    assert [name for name in row if name in expected] == expected
    assert json.loads((tmp_path / "rows.jsonl").read_text())[expected[-1]] == 0.25
    locate = read_boxes(tmp_path / "rows.csv", ["a.jpg"])
    (face,) = locate(Frame("a.jpg", 0, None, np.zeros((1, 1, 3), np.uint8)))
    assert face[:6].tolist() == [1.5, 2, 3, 4, 0.9, 0]
    with pytest.raises(ValueError, match=r"`columns` \(='feat'\) must be own, fex, fer"):
        RowWriter(None, ("happy",), "feat")
