"""Faults, provoked for real: each ends with one clear line, loses nothing, and the same command then completes."""

import contextlib
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.datasets import class_folders
from helpers.processes import start
from helpers.train import TINY, train_here

from fer_voting.predict import main as predict
from fer_voting.runs.run import Run, read_history

pytestmark = pytest.mark.slow

DISK_MIB = 48

_full_at: list[Callable[[str], None]] = []  # what watches files that are opened to be written


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[1] and set(arguments[1]) & set("wax+"):
        for watcher in list(_full_at):
            watcher(arguments[0])


@pytest.fixture(scope="module", autouse=True)
def _audit() -> None:
    sys.addaudithook(_watch)  # cannot be removed again; without watchers it does nothing


def _mount(folder: Path, *options: str) -> None:
    done = subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("this user may not mount a file system")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system of 48 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    _mount(folder, "-o", f"size={DISK_MIB}m")
    yield folder
    _full_at.clear()
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(ballast: Path) -> None:
    """Write a file until its disk is full."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


class Ballast:
    """Fills a disk at the moment when a file of a name is opened for writing the `after`-th time."""

    def __init__(self, disk: Path, name: str, after: int = 1) -> None:
        self.file, self.name, self.left = disk / "ballast", name, after
        _full_at.append(self)

    def __call__(self, path: str) -> None:
        if self.name not in Path(path).name:
            return
        self.left -= 1
        if self.left == 0:
            _full_at.remove(self)
            fill(self.file)

    def drop(self) -> None:
        assert self.left <= 0, f"{self.name} was not written"
        self.file.unlink()


WORDS = (*TINY, "split=m3", "dataset.size=24", "name=mine")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    output_dir = tmp_path_factory.mktemp("undisturbed")
    train_here(output_dir, *WORDS)
    return Run(output_dir, "mine")


def assert_same(run: Run, other: Run) -> None:
    assert run.status() == "finished"
    assert run.metrics_file.read_bytes() == other.metrics_file.read_bytes()
    ours, theirs = (torch.load(one.best_checkpoint("soft"), weights_only=True)["state_dict"] for one in (run, other))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert run.result()["votes"] == other.result()["votes"]


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("images.npy", 1),  # the pack
        ("last.ckpt", 1),  # a checkpoint, and what is written atomically
        ("soft-val.npz", 1),  # predictions
        ("result.json", 3),  # the finished result
    ],
)
def test_a_disk_that_is_full_when_a_file_is_written(name: str, after: int, small_disk: Path, undisturbed: Run) -> None:
    ballast = Ballast(small_disk, name, after)
    with pytest.raises(SystemExit, match=r"No space left on device|write"):
        train_here(small_disk / "outputs", *WORDS)
    run = Run(small_disk / "outputs", "mine")
    assert run.status() in ("missing", "failed", "interrupted")
    ballast.drop()
    train_here(small_disk / "outputs", *WORDS)
    assert_same(run, undisturbed)


def test_a_disk_that_is_full_while_rows_are_written(trained: Run, small_disk: Path, tmp_path: Path) -> None:
    class_folders(tmp_path / "images", {"any": {"happy": 60}}, {"happy": "happy"})
    words = [str(tmp_path / "images"), "--aligned", "--run", str(trained.dir), "--batch-size", "8", "--out"]
    predict([*words, str(tmp_path / "whole.csv")])
    (small_disk / "faces.csv").write_bytes(b"\0")  # has the one page that is left
    fill(small_disk / "ballast")
    with pytest.raises(SystemExit, match="No space left on device"):
        predict([*words, str(small_disk / "faces.csv"), "--overwrite"])
    kept, whole = ((folder / name).read_text() for folder, name in ((small_disk, "faces.csv"), (tmp_path, "whole.csv")))
    assert 0 < len(kept) < len(whole)
    assert whole.startswith(kept)
    assert kept.endswith("\n")


def test_an_output_folder_that_is_read_only(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    _mount(folder, "-o", "ro,size=1m")
    try:
        with pytest.raises(SystemExit, match="Read-only file system"):
            train_here(folder / "outputs", *WORDS)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_pack_that_is_overwritten_under_a_training(tmp_path: Path, undisturbed: Run) -> None:
    output_dir = tmp_path / "outputs"

    def overwrite(path: str) -> None:
        if Path(path).name.startswith(".metrics.csv"):
            _full_at.remove(overwrite)
            (images,) = output_dir.glob("packs/*/images.npy")
            with images.open("r+b") as file:
                file.seek(500)
                file.write(b"\1\2\3")

    _full_at.append(overwrite)
    with pytest.raises(SystemExit, match=r"packs/.* was changed while it was in use"):
        train_here(output_dir, *WORDS)
    run = Run(output_dir, "mine")
    assert run.status() == "failed"
    assert len(read_history(run.metrics_file)) == 1  # the epoch that may have seen it does not count
    shutil.rmtree(output_dir / "packs")
    train_here(output_dir, *WORDS)
    assert_same(run, undisturbed)


AT_THE_END_OF_AN_EPOCH = """
import multiprocessing, os, signal, sys, threading
from pathlib import Path

def act(event, arguments):
    if event == "open" and Path(str(arguments[0])).name.startswith(".metrics.csv"):
        ACT

if __name__ == "__main__":
    sys.addaudithook(act)
    from fer_voting.train import main
    main()
"""


def train_apart(output_dir: Path, act: str, *words: str) -> tuple[int, str]:
    """Exit code and messages of a training in a process of its own, which does `act` at the end of each epoch."""
    output_dir.mkdir(exist_ok=True)
    script = output_dir / "train.py"
    script.write_text(AT_THE_END_OF_AN_EPOCH.replace("ACT", act))
    printed = output_dir / "printed"
    process = start(script, *WORDS, f"output_dir={output_dir}", *words, printed=printed)
    process.join(240)
    assert process.exitcode is not None
    return process.exitcode, printed.read_text()


def test_a_loader_worker_that_is_killed(tmp_path: Path, undisturbed: Run) -> None:
    """torch raises the error wherever the signal of a worker's end arrives."""
    kill = "[os.kill(child.pid, signal.SIGKILL) for child in multiprocessing.active_children()]"
    code, messages = train_apart(tmp_path, kill, "dataset.num_workers=2")
    assert code == 1
    assert re.search(r"worker.*(killed|exited)", messages)
    run = Run(tmp_path, "mine")
    assert run.status() == "failed"
    train_here(tmp_path, *WORDS)
    assert_same(run, undisturbed)


def test_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"the loss is nan at step \d+ \(epoch \d+\), of train/.*optimizer\.lr"):
        train_here(tmp_path / "outputs", *WORDS, "optimizer.lr=1e30")
    run = Run(tmp_path / "outputs", "mine")
    assert "nan" in run.result()["error"]
    for checkpoint in run.dir.glob("checkpoints/*.ckpt"):
        state = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert all(torch.isfinite(value).all() for value in state.values())


def test_a_job_without_memory_takes_no_other_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        train_here(tmp_path / "outputs", *TINY, "-m", "split=baseline", "model.width=4,200000", "logger=none")
    assert ended.value.code == 1
    states = {run.name: Run(tmp_path / "outputs", run.name).status() for run in (tmp_path / "outputs/runs").iterdir()}
    assert sorted(states.values()) == ["failed", "finished"]
    assert "memory" in capsys.readouterr().out


def test_the_clock_is_set_back_while_a_run_trains(tmp_path: Path) -> None:
    run = Run(tmp_path, "mine")
    before = time.clock_gettime(time.CLOCK_REALTIME)
    config = {"dataset": {}, "augment": None, "seed": 0, "refit": False, "trainer": {}, "voting": {"name": "soft"}}
    with pytest.MonkeyPatch.context() as patch, run.open(config):
        patch.setattr(time, "time", lambda: before - 86_400)
        with run.recording({"name": "mine"}):
            pass
    assert 0 <= run.result()["seconds"] < 10


def test_the_same_command_twice_at_once_trains_the_run_once(tmp_path: Path, undisturbed: Run) -> None:
    printed = [tmp_path / "first", tmp_path / "second"]
    words = (*WORDS, f"output_dir={tmp_path}")
    both = [start("fer_voting.train", *words, printed=path) for path in printed]
    for process in both:
        process.join(300)
    assert 0 in [process.exitcode for process in both]
    for process, path in zip(both, printed, strict=True):
        assert process.exitcode == 0 or "another process is training the run" in path.read_text()
    assert_same(Run(tmp_path, "mine"), undisturbed)


def test_a_run_that_is_terminated_says_so_and_goes_on(tmp_path: Path, undisturbed: Run) -> None:
    """SIGTERM, which Slurm sends before it ends a job."""
    terminate = "threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()"
    code, messages = train_apart(tmp_path, terminate)
    assert code not in (0, -signal.SIGTERM)
    assert "goes on from the last checkpoint" in messages
    run = Run(tmp_path, "mine")
    assert run.status() == "interrupted"
    train_here(tmp_path, *WORDS)
    assert_same(run, undisturbed)
