"""W&B by its real client, offline: each job of a sweep is a run of its own, and finished with its exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import TINY

from fer_voting.runs import Run
from fer_voting.sweep import Sweep
from fer_voting.train import main


def inspect(run: Run, *words: str) -> str:
    """What W&B's own reader says of a run's offline file."""
    (file,) = run.dir.glob("wandb/offline-run-*/run-*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", *words, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_each_job_is_a_finished_run_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    options = [word for word in TINY if word != "logger=none"]
    words = ["split=baseline,m3", "sweep=mine", "logger=offline", f"output_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["train", "-m", *options, *words])
    main()
    runs = [Run(tmp_path, job["run"]) for job in Sweep(tmp_path / "sweeps" / "mine").jobs()]
    seen = [json.loads(inspect(run, "--summary")) for run in runs]
    assert len({one["run_id"] for one in seen}) == 2
    for run, split, one in zip(runs, ("baseline", "m3"), seen, strict=True):
        assert (one["state"], one["exit_code"]) == ("finished", 0)
        assert one["name"] == run.name
        assert one["tags"] == ["faces", split, "seed0"]
        assert one["config"]["split"] == {"name": split}
        assert one["config"]["optimizer"]["lr"] == 2e-4
        result = run.result()
        assert one["summary"]["best/test/hard/accuracy"] == result["votes"]["hard"]["test"]["accuracy"]
        assert one["summary"]["gmacs"] == pytest.approx(result["gmacs"])
        assert "val/soft/recall/happy" in one["summary"]
        assert '"run_group":"mine"' in inspect(run)


def test_a_failed_job_is_finished_with_another_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    options = [word for word in TINY if word != "logger=none"]
    stop = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: nothing}"
    words = ["-m", "split=baseline", stop, "name=bad", "logger=offline", f"output_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", ["train", words[0], *options, *words[1:]])
    with pytest.raises(SystemExit):
        main()
    run = Run(tmp_path, "bad")
    assert run.status() == "failed"
    assert json.loads(inspect(run, "--summary"))["exit_code"] == 1
