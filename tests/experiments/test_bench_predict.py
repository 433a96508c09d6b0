"""The benchmark of prediction runs whole at tiny size, and its video shows the faces that it says."""

import json
from pathlib import Path

import pytest

from experiments.bench_predict import frames, main
from fer_voting.inference.detector import CenterFaceDetector


@pytest.mark.parametrize("faces", [1, 5])
def test_every_face_of_the_drawn_video_is_found(faces: int) -> None:
    detector = CenterFaceDetector()
    for index, frame in enumerate(frames(41, faces)):
        if index % 20 == 0:
            assert len(detector(frame)) == faces


@pytest.mark.slow
def test_both_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--frames", "2", "--rounds", "1", "--long", "120", "--width", "4", "--out", str(tmp_path)])
    speed, memory = (json.loads((tmp_path / f"predict-{part}.json").read_text()) for part in ("speed", "memory"))
    shares = [row["figure"] for row in speed["rows"] if "share of" in row["what"] and "PyTorch, float32" in row["what"]]
    assert len(shares) == 6
    assert sum(shares[:3]) == pytest.approx(100)
    first, last, growth = (row["figure"] for row in memory["rows"])
    assert 100 < first < 10_000
    assert growth == pytest.approx(100 * (last / first - 1))
    text = (tmp_path / "predict.md").read_text()
    assert text in capsys.readouterr().out
    assert "memory at frame 120" in text


def test_a_part_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["weight"])
    assert "there is no part weight; there are speed, memory" in capsys.readouterr().err
