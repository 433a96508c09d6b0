"""Which Python the Makefile makes `.venv` with, and what it says where there is none."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.train import REPO

FAKE = """\
#!/bin/sh
exec {python} -c 'import sys; sys.version_info = ({version}, "final", 0); {before}exec(sys.argv[1])' "$2"
"""
"""An interpreter that runs `-c CODE` as another version."""
WITHOUT_VENV = "sys.modules['ensurepip'] = None; "  # Debian's, before python3-venv is installed
NOT_INSTALLED = '#!/bin/sh\necho "pyenv: $0: command not found" >&2\nexit 127\n'


def make(folder: Path, interpreters: dict[str, str], *words: str, **environment: str) -> subprocess.CompletedProcess:
    """`make -n WORDS...` where nothing but these interpreters (name -> script) is on the PATH."""
    for name, script in interpreters.items():
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    command = [shutil.which("make") or "make", "-n", "--no-print-directory", "-C", str(REPO), "--always-make", *words]
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "MAKEFLAGS", "RUN")}
    return subprocess.run(
        command, env=kept | {"PATH": str(folder)} | environment, capture_output=True, text=True, timeout=60
    )


def python(*version: int, before: str = "") -> str:
    escaped = before.replace("'", "'\\''")
    return FAKE.format(python=sys.executable, version=", ".join(map(str, version)), before=escaped)


@pytest.mark.parametrize(
    ("interpreters", "chosen"),
    [
        ({"python3.11": python(3, 11, 7), "python3.12": python(3, 12, 1), "python3": python(3, 12, 1)}, "python3.11"),
        ({"python3": python(3, 14, 0)}, "python3"),
        ({"python3.13": python(3, 13, 0), "python3": python(3, 10, 13)}, "python3.13"),
        ({"python3.11": NOT_INSTALLED, "python3.12": NOT_INSTALLED, "python3": python(3, 13, 2)}, "python3"),
        ({"python3.11": python(3, 11, 2), "python3.14": python(3, 14, 1)}, "python3.14"),
        ({"python3.12": python(3, 12, 3, before=WITHOUT_VENV), "python3.13": python(3, 13, 0)}, "python3.13"),
    ],
)
def test_the_first_python_that_fits_makes_the_environment(tmp_path: Path, interpreters: dict[str, str], chosen: str):
    done = make(tmp_path, interpreters, "demo")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{chosen} -m venv .venv"
    assert done.stdout.splitlines()[-1].startswith(".venv/bin/python -m fer_voting.train -m experiment=demo")


@pytest.mark.parametrize(
    "interpreters",
    [
        {},
        {"python3": python(3, 10, 13)},
        {"python3": python(3, 15, 0)},
        {"python3": python(3, 12, 3, before=WITHOUT_VENV), "python3.11": NOT_INSTALLED},
    ],
)
def test_where_none_fits_make_says_what_is_missing_and_what_to_type(tmp_path: Path, interpreters: dict[str, str]):
    done = make(tmp_path, interpreters, "demo")
    assert done.returncode == 2
    assert done.stdout == ""
    assert "no Python from 3.11.5 to 3.14 with its module venv found as python3.11 python3.12 python3.13" in done.stderr
    assert "apt install python3-venv" in done.stderr
    assert "make PYTHON=/path/to/python3 demo" in done.stderr


def test_python_may_be_named(tmp_path: Path):
    interpreters = {"python3.11": python(3, 11, 7)}
    assert make(tmp_path, interpreters, "install", "PYTHON=mine").stdout.startswith("mine -m venv .venv\n")
    assert make(tmp_path, interpreters, "install", PYTHON="/opt/py").stdout.startswith("/opt/py -m venv .venv\n")


@pytest.mark.parametrize(("words", "option"), [((), ""), (("RUN=my-run",), ' --run "my-run"')])
def test_run_names_the_run_of_the_page(tmp_path: Path, words: tuple[str, ...], option: str):
    *_, last = make(tmp_path, {"python3.11": python(3, 11, 7)}, "page", *words).stdout.splitlines()
    assert " ".join(last.split()) == f".venv/bin/python -m fer_voting.export{option} --to page"
