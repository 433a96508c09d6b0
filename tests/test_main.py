"""The list of commands, and what a command imports before it has something to do."""

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.train import REPO

import fer_voting
from fer_voting.__main__ import COMMANDS, main

SLOW = ("torch", "lightning", "matplotlib", "pandas", "scipy", "torchvision", "albumentations", "wandb")
"""Packages that take a good part of a second to import."""

HYDRA_COMMANDS = [name for name in COMMANDS if (REPO / "conf" / f"{name}.yaml").exists() or name == "train"]

IMPORTS_OF_HELP_AND_OF_A_MISTYPED_KEY = f"""
import contextlib, io, runpy, sys
sys.path.insert(0, {str(REPO)!r})
words = [(name, word) for name in {HYDRA_COMMANDS} for word in ("--help", "no_such_key=1")]
words += [(name, "--no-such-option") for name in {list(COMMANDS)} if name not in {HYDRA_COMMANDS}]
for name, word in words:
    sys.argv = [name, word]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            runpy.run_module(f"fer_voting.{{name}}", run_name="__main__")
    except SystemExit as end:
        assert bool(end.code) == (word != "--help"), (name, word, end.code)
    if word == "--help":
        assert f"fer_voting.{{name}}" in out.getvalue().splitlines()[0], out.getvalue()
    slow = [package for package in {SLOW} if package in sys.modules]
    assert not slow, (name, word, slow)
"""


@pytest.mark.slow
def test_help_and_mistyped_keys_are_answered_without_the_slow_imports(tmp_path: Path):
    command = [sys.executable, "-c", IMPORTS_OF_HELP_AND_OF_A_MISTYPED_KEY]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_command_is_in_the_list():
    package = Path(fer_voting.__file__).parent
    modules = {path.stem for path in package.glob("*.py") if 'if __name__ == "__main__"' in path.read_text()}
    assert modules - {"__main__"} == set(COMMANDS)


def test_the_list_has_a_line_for_each_command(capsys: pytest.CaptureFixture[str]):
    main([])
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    printed = capsys.readouterr().out
    assert printed[: len(printed) // 2] == printed[len(printed) // 2 :]
    lines = [line.split() for line in printed.splitlines()]
    for name, summary in COMMANDS.items():
        assert [name, *summary.split()] in lines


@pytest.mark.parametrize("arguments", [["tran"], ["--no-such-option"]])
def test_an_unknown_command_is_refused_with_those_that_there_are(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    message = capsys.readouterr().err
    assert arguments[0] in message


@pytest.mark.filterwarnings("ignore:'fer_voting.* found in sys.modules")  # imported by other tests
def test_what_follows_the_name_goes_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["before"])  # and restore it afterwards
    with pytest.raises(SystemExit) as exit_info:
        main(["sweep", "status", str(tmp_path / "no-such-sweep")])
    assert exit_info.value.code == 2
    assert "no-such-sweep" in capsys.readouterr().err
    main(["train", "split=m2", "--cfg", "job"])
    assert "name: m2" in capsys.readouterr().out
