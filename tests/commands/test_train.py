"""`python -m fer_voting.train` on tiny data: runs, sweeps, kills, and mistakes."""

import contextlib
import csv
import io
import json
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.processes import start
from helpers.train import TINY, train_here
from PIL import Image

from fer_voting.models import VotingResNet18
from fer_voting.runs.run import Run, read_history
from fer_voting.votes import VOTES

pytestmark = pytest.mark.slow

NAME = "faces-{}-batch_size20-size24-test_size20-train_size60-val_size20-width4-max_epochs2-seed0"


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output folder, in a path with a space, and what the command printed."""
    output_dir = tmp_path_factory.mktemp("a folder") / "outputs"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        train_here(output_dir, "-m", *TINY, "split=baseline,m1", "voting=soft,hard")
    return output_dir, printed.getvalue()


def test_a_sweep_over_votes_trains_each_network_once_and_ends_with_a_table(sweep):
    output_dir, printed = sweep
    assert sorted(p.name for p in (output_dir / "runs").iterdir()) == [NAME.format("baseline"), NAME.format("m1")]
    assert printed.count("not trained again") == 2
    assert len([line for line in printed.splitlines() if line.startswith("| faces-")]) == 2
    assert "Synthetic faces" in printed
    (record,) = (output_dir / "sweeps").glob("*/sweep.json")
    assert [job["voting"] for job in json.loads(record.read_text())["jobs"]] == ["soft", "hard", "soft", "hard"]
    assert (record.parent / "table.md").read_text() in printed


@pytest.mark.parametrize(("split", "crops"), [("baseline", 1), ("m1", 10)])
def test_the_files_of_a_finished_run(sweep, split: str, crops: int):
    run = Run(sweep[0], NAME.format(split))
    result = run.result()
    assert result is not None
    assert result["status"] == "finished"
    assert result["synthetic"] is True
    for key in ("forward_mib_per_image", "gmacs", "parameters", "images_per_second", "seconds", "device", "versions"):
        assert result[key], key
    assert {stage: sum(c.values()) for stage, c in result["counts"].items()} == {"train": 60, "val": 20, "test": 20}
    for vote in VOTES:
        for stage in ("val", "test"):
            figures = result["votes"][vote][stage]
            counts = np.array(figures["confusion_counts"])
            assert counts.sum() == 20
            assert figures["accuracy"] == pytest.approx(np.trace(counts) / 20)
            with np.load(run.predictions_file(vote, stage)) as saved:
                assert saved["logits"].shape == (20, crops, 7)
                right = saved["scores"].argmax(axis=1) == saved["labels"]
                assert right.mean() == pytest.approx(figures["accuracy"])
                assert len(set(saved["names"])) == 20
    with run.metrics_file.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [0, 1]
    assert float(rows[1]["learning_rate"]) == pytest.approx(0.85 * float(rows[0]["learning_rate"]))
    best = max(float(row["val/soft/accuracy"]) for row in rows)
    assert result["votes"]["soft"]["val"]["accuracy"] == pytest.approx(best)
    assert torch.load(run.last_checkpoint, weights_only=True)["epoch"] == 1  # for more epochs


def test_checkpoints_load_with_torchvisions_names_into_any_split(sweep):
    run = Run(sweep[0], NAME.format("m1"))
    checkpoint = torch.load(run.best_checkpoint("hard"), weights_only=True)
    state = {key.removeprefix("net."): value for key, value in checkpoint["state_dict"].items() if "net." in key}
    for split in ("baseline", "input", "m2"):
        VotingResNet18(split, width=4).load_state_dict(state)


def test_a_finished_sweep_is_not_trained_again(sweep):
    output_dir, _ = sweep
    files = [path for path in (output_dir / "runs").rglob("*") if path.is_file() and path.name != ".lock"]
    before = {path: path.stat().st_mtime_ns for path in files}
    train_here(output_dir, *TINY, "-m", "split=baseline,m1")
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert len(list((output_dir / "sweeps").iterdir())) == 2  # another command, so another sweep


def test_a_killed_run_continues_and_ends_as_if_it_had_not_been_killed(tmp_path: Path, messages):
    words = ("split=m3", "dataset.size=24", "trainer.max_epochs=4", "trainer.deterministic=true", "name=mine")
    output_dir = tmp_path / "killed"
    # In a sweep, the training is a child of the command.
    process = start(
        *("fer_voting.train", "-m", *TINY, *words, f"output_dir={output_dir}"), printed=tmp_path / "printed"
    )
    run = Run(output_dir, "mine")
    deadline = time.monotonic() + 120
    while not run.last_checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.join()
    while run.status() == "running" and time.monotonic() < deadline:
        time.sleep(0.05)  # until the child has noticed
    assert run.status() == "interrupted"
    assert run.last_checkpoint.exists()
    assert 1 <= len(read_history(run.metrics_file)) < 4

    torch.set_num_threads(1)  # as the killed one had
    train_here(output_dir, *TINY, *words)
    assert run.status() == "finished"
    assert any(str(run.last_checkpoint) in message for message in messages.messages)
    train_here(tmp_path / "whole", *TINY, *words)
    whole = Run(tmp_path / "whole", "mine")
    assert run.metrics_file.read_text() == whole.metrics_file.read_text()
    ours, theirs = (torch.load(one.best_checkpoint("soft"), weights_only=True)["state_dict"] for one in (run, whole))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs if key.startswith("net."))


def test_a_sweep_goes_on_after_a_failed_job_and_exits_with_1(run_train, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        run_train("-m", "split=baseline", "dataset.size=6,24")
    assert exit_info.value.code == 1
    printed = capsys.readouterr().out
    assert re.search(r"failed: .*dataset\.size=6\b", printed)
    assert printed.count("| finished") == 1


def test_a_run_that_lacks_its_weights_fails_and_is_tried_again_when_they_are_there(run_train, tmp_path: Path):
    words = ("split=m3", "name=target", "init_from=source", "optimizer.lr=0")
    with pytest.raises(SystemExit, match="source"):
        run_train(*words)
    target, source = (Run(tmp_path / "outputs", name) for name in ("target", "source"))
    assert target.status() == "failed"
    assert "source" in target.result()["error"]
    assert "Traceback" in (target.dir / "error.txt").read_text()
    run_train("split=baseline", "name=source", "plots=true", "~callbacks.forward_memory")
    assert source.result()["forward_mib_per_image"] is None
    run_train(*words)
    assert target.status() == "finished"
    assert target.result()["error"] is None
    ours, theirs = (
        torch.load(run.best_checkpoint("soft"), weights_only=True)["state_dict"] for run in (target, source)
    )
    assert torch.equal(ours["net.fc.weight"], theirs["net.fc.weight"])
    for plot in ("curves", *(f"confusion-{vote}-{stage}" for vote in VOTES for stage in ("val", "test"))):
        with Image.open(source.dir / f"{plot}.png") as picture:
            picture.load()
            assert min(picture.size) > 300
    assert not list(target.dir.glob("*.png"))  # plots=false


def test_a_run_of_another_configuration_is_never_overwritten(trained: Run):
    before = trained.result()
    words = ("split=m3", "model.width=16", "name=trained", "optimizer.lr=0.1")
    with pytest.raises(SystemExit, match=r"optimizer\.lr.*0\.0002.*0\.1"):
        train_here(trained.dir.parent.parent, *TINY, *words)
    assert trained.result() == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["split=m9"], ["split=m9", "baseline, input, m1, m2, m3"]),
        (["voting=loud"], ["voting=loud", "hard, soft, softprob"]),
        (["dataset=fer13"], ["dataset=fer13", "affectnet, ckplus"]),
        (["splitt=m1"], ["'splitt'", "'split'"]),
        (["model.widht=8"], ["'widht'", "model", "'width'"]),
        (["model.width=0"], ["width", "0", "1"]),
        (["seed=one"], ["'one'", "Integer"]),
        (["trainer.accelerator=gpu"], ["gpu"]),
        (["trainer.precision=17"], ["17"]),
        (["init_from=no.ckpt"], ["no.ckpt"]),
        (["init_from=no_run"], ["no_run"]),
        (["name=a/b"], ["name", "'a/b'"]),
        (["output_dir=/proc/nobody"], ["/proc/nobody"]),
    ],
)
def test_a_mistake_ends_with_one_line(run_train, words: list[str], named: list[str]):
    if words == ["trainer.accelerator=gpu"] and torch.cuda.is_available():
        pytest.skip("a GPU is here, so asking for one is no mistake")
    with pytest.raises(SystemExit) as exit_info:
        run_train(*words)
    message, *hint = str(exit_info.value.code).splitlines()
    assert message.startswith("error: ")
    assert all(text in message for text in named), message
    assert all("HYDRA_FULL_ERROR" in line for line in hint)


def test_lean_memory_with_synchronised_batchnorm_is_refused_before_anything_is_packed(run_train, tmp_path: Path):
    words = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "trainer.sync_batchnorm=true"]
    with pytest.raises(SystemExit, match=r"^error: .*model\.memory=lean.*trainer\.sync_batchnorm=true"):
        run_train(*words, "model.memory=lean", "name=mine")
    assert not list(tmp_path.glob("outputs/packs/*"))


@pytest.mark.parametrize("folder", [None, "missing", "empty"])
def test_a_data_root_that_holds_nothing(monkeypatch, tmp_path: Path, folder: str | None):
    from fer_voting.train import main

    (tmp_path / "empty").mkdir()
    root = [] if folder is None else [f"dataset.root={tmp_path / folder}"]
    argv = ["fer_voting.train", "dataset=fer2013", "logger=none", f"output_dir={tmp_path / 'outputs'}", *root]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match=r"^error: dataset\.root") as exit_info:
        main()
    assert folder is None or folder in str(exit_info.value.code)
