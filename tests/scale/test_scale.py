"""Measurements that grow with images and runs, small; `python -m tests.scale.run` records large ones."""

import json
from pathlib import Path

import pytest

from fer_voting.results.load import load_runs
from tests.scale.run import RUN_STEPS, STEPS, main, make_runs, status


def test_the_steps_work_on_one_another_s_files(tmp_path: Path) -> None:
    for run in STEPS.values():
        run(tmp_path, 300)
    assert len((tmp_path / "manifest.csv").read_text().splitlines()) == 301


@pytest.mark.slow
def test_made_runs_are_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_runs(tmp_path / "outputs", 8)
    runs = load_runs(tmp_path / "outputs")
    assert (len(runs.runs), runs.unreadable) == (8, {})
    assert not [run.problem for run in runs.runs if run.problem]
    assert len({(run.split, run.seed) for run in runs.runs}) == 8
    assert len(runs.group("faces").finished()) == 8
    status(tmp_path, 8)
    assert "8 runs: 8 finished" in capsys.readouterr().out


@pytest.mark.slow
def test_the_command_writes_what_it_measured(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["--images", "200", "--runs", "4", "--out", str(tmp_path)])
    assert (tmp_path / "scale.md").read_text() in capfd.readouterr().out
    rows = json.loads((tmp_path / "scale.json").read_text())
    assert [row["step"] for row in rows] == [*STEPS, *RUN_STEPS]
    assert all(row["seconds"] > 0 for row in rows)
