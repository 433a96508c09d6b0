"""The benchmark of prediction runs whole at tiny size, and its video shows the faces that it says."""

import json
from pathlib import Path

import pytest
from helpers.processes import fork_server

from experiments.bench.video import frames, main
from fer_voting.inference.faces import CenterFace
from fer_voting.runs.run import Run


@pytest.mark.parametrize("faces", [1, 5])
def test_every_face_of_the_drawn_video_is_found(faces: int) -> None:
    detector = CenterFace()
    for index, frame in enumerate(frames(41, faces)):
        if index % 20 == 0:
            assert len(detector(frame)) == faces


@pytest.mark.slow
def test_both_parts_with_a_trained_network(trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fork_server()  # with what it has imported, the process that measures memory starts at once
    checkpoint = str(trained.best_checkpoint("soft"))
    main(["--frames", "1", "--rounds", "1", "--long", "10", "--checkpoint", checkpoint, "--out", str(tmp_path)])
    speed, memory = (json.loads((tmp_path / f"predict-{part}.json").read_text()) for part in ("speed", "memory"))
    assert [row["faces"] for row in speed["rows"] if row["runtime"] == "PyTorch, float32"] == [1, 5]
    for row in speed["rows"]:
        (seconds,) = speed["passes"][f"{row['faces']} faces"][row["runtime"]]
        assert row["frames_per_s"] == pytest.approx(1 / seconds["all"])
        assert 0 < row["decoding"] + row["detection"] + row["classification"] <= 100
        met = "met" if row["classification"] <= 20 else "missed"
        assert row["verdict"] == (met if row["faces"] == 1 else "")
    first, last, difference = (row["figure"] for row in memory["rows"])
    assert 100 < first < 10_000
    assert difference == pytest.approx(100 * abs(last / first - 1))
    for part in (speed, memory):
        assert part["environment"]["network"] == "m3 of width 16, trained on faces"
        assert part["environment"]["seed"] == 0
    text = (tmp_path / "predict.md").read_text()
    assert text in capsys.readouterr().out
    assert "memory at frame 10" in text
    assert "memory at frame 10" in (tmp_path / "predict-2.csv").read_text()
    assert r"\toprule" in (tmp_path / "predict.tex").read_text()


def test_a_part_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["weight"])
    assert "there is no part weight; there are speed, memory" in capsys.readouterr().err
