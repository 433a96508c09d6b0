"""The command for a GPU at tiny size on this machine."""

import json
from pathlib import Path

import pytest
import torch
from helpers.train import REPO

from experiments.bench.gpu import main
from fer_voting.inference.runtime import PRECISIONS


@pytest.mark.slow
def test_its_parts_at_tiny_size(tmp_path: Path) -> None:
    main(["--quick", "--out", str(tmp_path), "speed", "prediction", "training"])
    speed = json.loads((tmp_path / "gpu" / "speed.json").read_text())
    rate, share, waiting = (row["figure"] for row in speed["rows"])
    assert rate > 0
    assert 0 < share < 100
    assert 0 < waiting < 100
    assert speed["environment"]["quick"] is True
    prediction = json.loads((tmp_path / "gpu" / "prediction.json").read_text())
    assert [row["what"] for row in prediction["rows"]] == [f"m1, aligned faces, 3 at once, {p}" for p in PRECISIONS]
    assert all(row["figure"] > 0 for row in prediction["rows"])
    (result,) = [json.loads(path.read_text()) for path in tmp_path.glob("outputs/runs/faces-m3-*/result.json")]
    assert result["status"] == "finished"


def test_the_marked_tests_stand_in_the_file_that_it_runs() -> None:
    mark = "pytest.mark." + "gpu"
    assert [path.name for path in REPO.glob("tests/**/test_*.py") if mark in path.read_text()] == ["test_on_gpu.py"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here, so the script would really start")
def test_without_a_gpu_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--root", "somewhere"])
    assert "GPU" in capsys.readouterr().err.splitlines()[-1]
