"""`make fuzz`: a few inputs to each reader, always the same; and that the command sees what it looks for."""

import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.guard import watched
from tests.fuzz.run import Count, fuzz, main, report
from tests.fuzz.targets import TARGETS, Target

SLOW = ("overrides", "ONNX file", "videos", "shared folder", "checkpoint")


@pytest.mark.parametrize(
    "target",
    [pytest.param(target, id=target.name, marks=pytest.mark.slow if target.name in SLOW else ()) for target in TARGETS],
)
def test_a_reader_reads_or_refuses(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    inputs = 3 if target.name in SLOW else 12
    count = fuzz(target, tmp_path, inputs, None, lambda: None)
    assert count.failure == ""
    assert count.inputs == count.read + count.refused >= inputs


def of(read: Callable[[Path], Any]) -> Target:
    """A reader that misbehaves for every file but the real one."""

    def reader(folder: Path) -> None:
        if (folder / "x").read_bytes() != b"1":
            read(folder)

    return Target("bad", 1, lambda folder: {"x": [b"1"]}, reader, (b"0",))


def raise_(error: BaseException) -> None:
    raise error


def connect() -> None:
    with socket.socket() as opened:
        opened.connect_ex(("127.0.0.1", 9))


@pytest.mark.parametrize(
    ("read", "told"),
    [
        (lambda folder: raise_(KeyError("x")), "KeyError"),
        (lambda folder: raise_(ValueError("two\nlines")), "more than one line"),
        (lambda folder: (folder.parent / "outside").write_text("x"), "it may not.*outside"),
        (lambda folder: os.mkdir(folder.parent / "outside"), "it may not.*mkdir"),
        (lambda folder: subprocess.run(["true"], check=True), "it may not.*Popen"),
        (lambda folder: connect(), "it may not.*connect"),
    ],
)
def test_what_a_reader_may_not_is_a_failure(read: Callable[[Path], Any], told: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    count = fuzz(of(read), tmp_path / "in", 5, None, lambda: None)
    assert re.search(told, count.failure)


def test_inside_its_folder_a_reader_may_write(tmp_path: Path) -> None:
    with watched(tmp_path) as seen:
        (tmp_path / "x").write_text("1")
        (tmp_path / "x").unlink()
    assert seen == []


def test_counts_are_summed(tmp_path: Path) -> None:
    about = {"seed": 0, "commit": "0123456789ab", "date": "2026-01-02"}
    rows = [vars(Count("a", 1000, 600, 400)) | about, vars(Count("b", 500, failure="x")) | about]
    text = report(rows)
    assert "1,500 inputs in all, 1 failures. commit 0123456789ab, 2026-01-02, seed 0." in text


@pytest.mark.slow
def test_the_command_writes_what_it_counted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["--only", "boxes"], ["--only", "AffectNet's npy"]):
        main(["--inputs", "50", "--out", str(tmp_path), *words])
    printed = (tmp_path / "fuzz.md").read_text()
    assert printed in capfd.readouterr().out
    assert [line.split("|")[1].strip() for line in printed.splitlines()[2:5]] == [
        "AffectNet's npy",
        "RAF-DB's boxes",
        "boxes",
    ]
    assert "0 failures" in printed
