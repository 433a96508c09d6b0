"""Sweeps on Slurm's and Ray's launchers, on this machine, from the command line."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import hydra_plugins
import pytest
from conftest import REPO, TINY
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton

from fer_voting.runs import Run
from fer_voting.sweep import Sweep


def start(*words: str, folder: Path, module: str = "fer_voting.train") -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        # Ray keeps a token below the home folder.
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen) -> tuple[int, str]:
    printed, _ = process.communicate(timeout=240)
    return process.returncode, printed


def test_a_killed_job_of_slurm_takes_no_other_with_it_and_goes_on_when_tried_again(tmp_path: Path):
    words = ["hydra/launcher=slurm_local", *TINY, "split=baseline", "sweep=mine", "dataset.schedule.epochs=30"]
    process = start("-m", *words, "name=one,other", folder=tmp_path)
    sweep = Sweep(tmp_path / "outputs" / "sweeps" / "mine")
    runs = [Run(tmp_path / "outputs", name) for name in ("one", "other")]
    deadline = time.monotonic() + 120
    while not all(run.metrics_file.exists() for run in runs) and time.monotonic() < deadline:
        time.sleep(0.01)
    states = sweep.states()
    assert [state.status for state in states] == ["running", "running"]
    assert all(state.epochs is not None and 1 <= state.epochs[0] < state.epochs[1] == 30 for state in states)
    controller = min(int(folder.name) for folder in (sweep.dir / "jobs").iterdir() if folder.name.isdigit())
    (worker,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    code, printed = finish(process)
    assert code == 1
    assert f"python -m fer_voting.sweep status {sweep.dir}" in printed
    while any(run.status() == "running" for run in runs) and time.monotonic() < deadline:
        time.sleep(0.05)
    code, printed = finish(start("status", "mine", folder=tmp_path, module="fer_voting.sweep"))
    assert code == 1
    assert "2 runs: 1 interrupted, 1 finished; about" in printed

    code, printed = finish(start("retry", "mine", folder=tmp_path, module="fer_voting.sweep"))
    assert code == 0, printed
    assert [state.status for state in sweep.states()] == ["finished", "finished"]
    assert all(run.result()["sweep"] == "mine" for run in runs)
    told = "".join(log.read_text() for log in (sweep.dir / "jobs").glob("*/*_log.err"))
    assert told.count("goes on from") == 1
    assert told.count("finished before") == 1


def test_a_failed_job_of_ray_takes_no_other_with_it(tmp_path: Path):
    words = ["hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2", *TINY, "split=baseline"]
    code, printed = finish(start("-m", *words, "dataset.size=6,48", folder=tmp_path))
    assert code == 1
    assert "failed: dataset.size=6 must be at least 8" in printed
    assert printed.count("| finished") == 1
    (folder,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert (folder / "table.md").read_text() in printed
    finished = [state.run for state in Sweep(folder).states() if state.status == "finished"]
    result = Run(tmp_path / "outputs", finished[0]).result()
    assert result is not None
    assert result["sweep"] == folder.name


@pytest.mark.parametrize(("launcher", "extra"), [("slurm", "slurm"), ("slurm_local", "slurm"), ("ray", "ray")])
def test_a_launcher_that_is_not_installed_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, run_train, launcher: str, extra: str
):
    # As if Hydra had looked for plugins and found none but its own.
    monkeypatch.setattr(hydra_plugins, "__path__", [])
    monkeypatch.delitem(Singleton._instances, Plugins, raising=False)
    for name in ("submitit_slurm", "submitit_local", "ray"):
        monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["launcher"], f"{name}.yaml", raising=False)
    with pytest.raises(SystemExit, match=rf"error: .*pip install 'fer_voting\[{extra}\]'"):
        run_train("-m", f"hydra/launcher={launcher}")
