"""`make chaos`: kills at the chosen operation, and differences that are there are found."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.train import REPO

from fer_voting.system.atomic import write_json
from tests.chaos import kill_switch
from tests.chaos import run as chaos
from tests.chaos.run import Laboratory, Scenario, differences, kind_of, main

SCRIPT = """
from tests.chaos.kill_switch import install
install()
import os
from pathlib import Path
folder = Path(os.sys.argv[1])
(folder / "first").write_text("1")
(folder / "first").read_text()
(folder.parent / "outside").write_text("")
os.replace(folder / "first", folder / "second")
(folder / "second").unlink()
"""


@pytest.mark.parametrize(("number", "left"), [(1, []), (2, ["first"]), (3, ["second"]), (4, []), (0, [])])
def test_a_command_is_killed_before_the_chosen_operation(number: int, left: list[str], tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "log"
    out.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPO), **kill_switch.plan(str(out), str(log), number)}
    ended = subprocess.run([sys.executable, "-c", SCRIPT, str(out)], env=environment, start_new_session=True)
    assert ended.returncode == (-signal.SIGKILL if 1 <= number <= 3 else 0)
    assert sorted(path.name for path in out.iterdir()) == left
    operations = [line.rpartition("/")[0].split()[:2] for line in log.read_text().splitlines()]
    assert operations == [["1", "write"], ["2", "rename"], ["3", "remove"]][: number or 3]


def results(folder: Path) -> Path:
    run = folder / "runs" / "mine"
    for name in ("checkpoints", "predictions"):
        (run / name).mkdir(parents=True)
    write_json(run / "result.json", {"votes": {"soft": {"accuracy": 0.5}}, "seconds": 1.0, "started": str(folder)})
    (run / "metrics.csv").write_text("epoch\n0\n")
    state = {"epoch": 1, "global_step": 2, "state_dict": {"net.weight": torch.zeros(2)}}
    torch.save(state, run / "checkpoints" / "best-soft.ckpt")
    np.savez(run / "predictions" / "soft-val.npz", logits=np.zeros(3, np.float32))
    return run


def test_differences_name_the_file_and_what_differs_and_times_do_not_count(tmp_path: Path) -> None:
    results(tmp_path / "a")
    run = results(tmp_path / "b")
    assert differences(tmp_path / "a", tmp_path / "b") == []
    write_json(run / "result.json", {"votes": {"soft": {"accuracy": 0.6}}, "seconds": 2.0, "started": "now"})
    (run / "metrics.csv").write_text("epoch\n0.0\n")
    smallest = torch.tensor([0.0, torch.finfo(torch.float32).tiny])
    torch.save(
        {"epoch": 1, "global_step": 2, "state_dict": {"net.weight": smallest}}, run / "checkpoints/best-soft.ckpt"
    )
    np.savez(run / "predictions" / "soft-val.npz", logits=np.array([0, 0, -0.0], np.float32))
    (run / "checkpoints" / "last.ckpt").symlink_to("best-soft.ckpt")
    found = dict(line.split(": ") for line in differences(tmp_path / "a", tmp_path / "b"))
    assert {Path(name).name: what for name, what in found.items()} == {
        "best-soft.ckpt": "net.weight",
        "last.ckpt": "epoch, net.weight, step",
        "metrics.csv": "bytes",
        "result.json": "votes.soft.accuracy",
        "soft-val.npz": "logits",
    }


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("packs/faces-24px-1/images.npy", "the pack"),
        ("runs/mine/checkpoints/.last.ckpt.7", "a checkpoint"),
        ("runs/mine/.result.json.7", "result.json"),
        ("sweeps/mine/table.md", "the sweep's files"),
    ],
)
def test_moments_are_named_by_the_file(path: str, kind: str) -> None:
    assert kind_of(Path(path)) == kind


def test_a_scenario_is_killed_as_often_as_asked_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With Python's own command that writes one file."""
    source = tmp_path / "source.json"
    source.write_text("[1, 2]")
    monkeypatch.setattr(chaos, "SCENARIOS", (Scenario("copy", ("json.tool", str(source), "{out}/faces.csv"), 1.0),))
    main(["--kills", "2", "--seed", "1", "--out", str(tmp_path / "recorded")])
    assert "2 kills" in capsys.readouterr().out
    recorded = (tmp_path / "recorded" / "chaos.md").read_text()
    assert "before write predicted rows" in recorded
    assert "0 differences" in recorded


def test_a_difference_ends_the_command_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.json"
    source.write_text("[1, 2]")
    monkeypatch.setattr(chaos, "SCENARIOS", (Scenario("copy", ("json.tool", str(source), "{out}/faces.csv"), 1.0),))
    monkeypatch.setattr(chaos, "differences", lambda expected, found: ["faces.csv: bytes"])
    with pytest.raises(SystemExit) as ended:
        main(["--kills", "1"])
    assert ended.value.code == 1


def test_a_command_that_fails_is_an_error_with_its_words(tmp_path: Path) -> None:
    laboratory = Laboratory(tmp_path, random.Random(0))
    with pytest.raises(RuntimeError, match=r"(?s)json\.tool.*No such file"):
        laboratory.run(("json.tool", str(tmp_path / "missing.json")), tmp_path / "out")
