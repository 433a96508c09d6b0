"""Networks beside each other on worse images, from made evaluations."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.robustness import main

OTHER_STRENGTH = [{"corruption": name, "strength": at, "votes": {}} for name, at in ((None, None), ("jpeg", 20))]


def evaluation(
    folder: Path, name: str, soft: float, whole_map: float | None = None, groups: int | None = None, **other: Any
) -> Path:
    """The file of an evaluation: right on `soft` of the images as they are, and on half as many as JPEG."""
    rows = []
    for corruption, strength, factor in ((None, None, 1.0), ("jpeg", 15, 0.5)):
        votes = {"soft": soft * factor} | ({} if whole_map is None else {"whole map": whole_map * factor})
        of_votes = {vote: {"accuracy": share, "interval": [share - 0.1, share + 0.1]} for vote, share in votes.items()}
        rows.append({"corruption": corruption, "strength": strength, "votes": of_votes})
    about = {"dataset": "faces", "part": "test", "images": 20, "data_fingerprint": "f", "synthetic": True}
    about |= {
        "git_commit": "abc",
        "device": "a processor",
        "precision": "32-true",
        "robustness": rows,
        "votes": {"soft": {"groups": groups, "confusion_counts": [[3, 1], [8, 8]]}},
    }
    path = folder / f"{name}-on-faces-test.json"
    path.write_text(json.dumps(about | other))
    return path


def test_a_column_a_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [evaluation(tmp_path, "plain", 0.5), evaluation(tmp_path, "crops", 0.75, 0.25)]
    main([*map(str, files), "--out", str(tmp_path / "out")])
    assert "| none           |        – | 50.00 | 75.00 |            25.00 |" in capsys.readouterr().out
    written = (tmp_path / "out" / "robustness.md").read_text()
    assert "| corruption     | strength | plain | crops | crops, whole map |" in written
    assert "| jpeg (quality) |       15 | 25.00 | 37.50 |            12.50 |" in written
    assert "Always the most frequent class: 80.00. " in written
    assert "\nplain: plain; crops: crops. Commit abc; 32-true on a processor.\n" in written
    assert (tmp_path / "out" / "robustness.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"data_fingerprint": "g"}, "b and a were evaluated on different images"),
        ({"part": "val"}, "b and a were evaluated on different images"),
        ({"images": 19}, "b and a were evaluated on different images"),
        ({"robustness": OTHER_STRENGTH}, "b and a were evaluated on different images"),
        ({"robustness": None}, "b-on-faces-test.json is not what"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    files = [evaluation(tmp_path, "a", 0.5), evaluation(tmp_path, "b", 0.5, **change)]
    with pytest.raises(SystemExit, match=expected):
        main([*map(str, files), "--out", str(tmp_path)])


def test_intervals_say_what_they_are_over(tmp_path: Path) -> None:
    for groups, expected in ((None, "95 % bootstrap intervals over images."), (12, "95 % intervals over 12 groups.")):
        main([str(evaluation(tmp_path, "a", 0.5, groups=groups)), "--out", str(tmp_path)])
        assert f"robustness.json has the {expected}" in (tmp_path / "robustness.md").read_text()


def test_two_of_one_name_need_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(evaluation(tmp_path, "a", 0.5))
    with pytest.raises(SystemExit, match="2"):
        main([path, path])
    assert "2 files need 2 different names, not a, a: give them by --names" in capsys.readouterr().err


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"error: there is no file nothing\.json"):
        main(["nothing.json", "--out", str(tmp_path)])
