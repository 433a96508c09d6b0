"""Sweeps on Slurm's and Ray's launchers, on this machine, from the command line."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from helpers.processes import start as start_forked
from helpers.train import REPO, TINY

from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep
from fer_voting.sweep import main as sweep_command


def start(*words: str, folder: Path) -> ForkServerProcess:
    """The command with `words`, in `folder` and with it as home, where Ray writes a token."""
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO), "HOME": str(folder)}
    return start_forked("fer_voting.train", *words, printed=folder / "printed", cwd=folder, **environment)


def finish(process: ForkServerProcess, folder: Path) -> tuple[int | None, str]:
    process.join(240)
    return process.exitcode, (folder / "printed").read_text()


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, ForkServerProcess]]:
    """A sweep on Ray's launcher and its folder. It runs while the test of Slurm's waits."""
    folder = tmp_path_factory.mktemp("ray")
    words = ["hydra/launcher=ray", "hydra.launcher.ray.init.num_cpus=2", *TINY, "split=baseline"]
    process = start("-m", *words, "dataset.size=6,24", folder=folder)
    yield folder, process
    process.terminate()
    process.join()


def sweep_exit_code(action: str, folder: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        sweep_command([action, folder])
    return int(exit_info.value.code or 0)


@pytest.mark.slow
@pytest.mark.usefixtures("on_ray")
def test_a_killed_slurm_job_takes_no_other_with_it_and_continues_when_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    words = ["hydra/launcher=slurm_local", *TINY, "split=baseline", "dataset.size=24", "sweep=mine"]
    process = start("-m", *words, "trainer.max_epochs=1,15", folder=tmp_path)
    sweep = Sweep(tmp_path / "outputs" / "sweeps" / "mine")
    deadline = time.monotonic() + 240  # two jobs and Ray's beside other tests
    while not list(tmp_path.glob("outputs/runs/*epochs15*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    runs = [Run(sweep.output_dir, job["run"]) for job in sweep.jobs()]
    state = sweep.states()[1]
    assert state.status == "running"
    assert state.epochs is not None
    assert 1 <= state.epochs[0] < state.epochs[1] == 15
    (log,) = (path for path in (sweep.dir / "jobs").glob("*/*_0_log.err") if "15 epochs" in path.read_text())
    controller = log.parent.name
    (worker,) = Path(f"/proc/{controller}/task/{controller}/children").read_text().split()
    os.kill(int(worker), signal.SIGKILL)
    code, printed = finish(process, tmp_path)
    assert code == 1
    assert f"job {controller} ended as FAILED, without a result; its output: {log.parent}" in printed
    assert (sweep.dir / "table.md").read_text() in printed
    while any(run.status() == "running" for run in runs) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sweep_exit_code("status", str(sweep.dir)) == 1
    assert "1 finished, 1 interrupted" in capfd.readouterr().out
    done = [run.result()["started"] for run in runs]

    assert sweep_exit_code("retry", str(sweep.dir)) == 0
    assert [state.status for state in sweep.states()] == ["finished", "finished"]
    assert all(run.result()["sweep"] == "mine" for run in runs)
    assert runs[0].result()["started"] == done[0]  # not trained again
    printed = "".join(path.read_text() for path in (sweep.dir / "jobs").glob("*/*_log.err"))
    assert printed.count(str(runs[1].last_checkpoint)) == 1  # from which it continues


@pytest.mark.slow
def test_a_failed_ray_job_takes_no_other_with_it(on_ray: tuple[Path, ForkServerProcess]):
    folder, process = on_ray
    code, printed = finish(process, folder)
    assert code == 1
    assert re.search(r"failed: .*dataset\.size=6\b", printed)
    assert printed.count("| finished") == 1
    (sweep,) = (folder / "outputs" / "sweeps").iterdir()
    assert (sweep / "table.md").read_text() in printed
    finished = [state.run for state in Sweep(sweep).states() if state.status == "finished"]
    result = Run(folder / "outputs", finished[0]).result()
    assert result is not None
    assert result["sweep"] == sweep.name


WITHOUT_PLUGINS = """
import sys
import hydra_plugins

hydra_plugins.__path__ = []  # as if only Hydra's own plugins were installed
from fer_voting.train import main

for launcher in sys.argv[1:]:
    sys.argv = ["train", "-m", f"hydra/launcher={launcher}"]
    try:
        main()
    except SystemExit as error:
        print(launcher, str(error).splitlines()[0])
"""


def test_a_launcher_that_is_not_installed_is_named_with_its_command(tmp_path: Path):
    extras = {"slurm": "slurm", "slurm_local": "slurm", "ray": "ray"}
    printed = subprocess.check_output(
        [sys.executable, "-c", WITHOUT_PLUGINS, *extras],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(REPO)},
        text=True,
    )
    assert len(printed.splitlines()) == 3
    for line, (launcher, extra) in zip(printed.splitlines(), extras.items(), strict=True):
        assert line.startswith(f"{launcher} error: ")
        assert f"pip install 'fer_voting[{extra}]'" in line
