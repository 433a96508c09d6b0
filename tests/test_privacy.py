"""No face and no file name leaves the machine unless asked: no command as it is by default looks for a network."""

import json
import os
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest
from helpers.datasets import class_image
from helpers.no_network import hooked_environment
from helpers.train import REPO, TINY

pytestmark = pytest.mark.slow

ALONE = ("unshare", "--map-root-user", "--net")
CONNECT = "import socket; socket.socket().connect_ex(('192.0.2.1', 80))"  # an address for documentation (RFC 5737)
RESOLVE = "import socket; socket.getaddrinfo('example.invalid', 80)"
OF_ANOTHER_LANGUAGE = """
import ctypes, socket, struct
libc = ctypes.CDLL(None)
address = struct.pack("=HH4s8x", socket.AF_INET, socket.htons(80), socket.inet_aton("192.0.2.1"))
libc.connect(libc.socket(socket.AF_INET, socket.SOCK_STREAM, 0), address, len(address))
"""


def attempts(tmp_path: Path, *words: str, status: int | None = 0) -> str:
    """Addresses that a Python command tried to reach, by lines; it has no network if the system permits that."""
    log = tmp_path / "attempts.log"
    log.unlink(missing_ok=True)
    environment = hooked_environment(tmp_path, log)
    environment = {name: value for name, value in environment.items() if not name.startswith("WANDB_")}
    environment.pop("NO_ALBUMENTATIONS_UPDATE", None)  # as a user's is
    command = [sys.executable, *words]
    if subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0:
        command = [*ALONE, sys.executable, str(REPO / "tests" / "helpers" / "no_network.py"), str(log), *command]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert status in (None, done.returncode), done.stderr
    return log.read_text() if log.exists() else ""


def test_attempts_are_seen(tmp_path: Path) -> None:
    assert "socket.connect 192.0.2.1" in attempts(tmp_path, "-c", CONNECT)
    assert "socket.getaddrinfo example.invalid" in attempts(tmp_path, "-c", RESOLVE, status=None)
    assert attempts(tmp_path, "-c", CONNECT.replace("192.0.2.1", "127.0.0.1")) == ""
    if subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0:
        assert "packets without a route" in attempts(tmp_path, "-c", OF_ANOTHER_LANGUAGE)


OTHER = ("augment.backend=albumentations", "dataset.num_workers=1", "logger=tensorboard", "plots=false")
COMMANDS = """
import json, runpy, sys

for module, *words in json.loads(sys.argv[1]):
    sys.argv = [module, *words]  # an attempt is logged with it
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code:
            raise
"""
"""Commands one after the other in one process, for the libraries take seconds to import."""


def test_no_command_looks_for_a_network(tmp_path: Path) -> None:
    """With W&B as it is by default (offline), and with both backends of augmentation."""
    os.environ.setdefault("PYTHONPATH", str(REPO))
    train = ["fer_voting.train", *[word for word in TINY if word not in ("logger=none", "plots=false")], "split=m3"]
    PIL.Image.Image.save(class_image("happy", 1), tmp_path / "face.png")
    run = ["--run", "mine"]
    commands = [
        [*train, "name=mine"],
        [*train, "name=other", *OTHER],
        ["fer_voting.evaluate", "checkpoint=mine", "dataset=faces", *TINY[1:4]],
        ["fer_voting.predict", "face.png", *run, "--out", "faces.csv", "--draw", "drawn", "--explain", "maps"],
        ["fer_voting.export", *run, "--to", "folder"],
    ]
    assert attempts(tmp_path, "-c", COMMANDS, json.dumps(commands)) == ""
    results = [json.loads((tmp_path / f"outputs/runs/{name}/result.json").read_text()) for name in ("mine", "other")]
    assert [result["status"] for result in results] == ["finished", "finished"]
    assert (tmp_path / "faces.csv").exists()
