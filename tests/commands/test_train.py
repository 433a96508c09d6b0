"""The main job through its real command line, on tiny data: runs, sweeps, kills, and mistakes."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import REPO, TINY

from fer_voting.models import VotingResNet18
from fer_voting.runs.run import Run, read_history
from fer_voting.votes import VOTES

NAME = "faces-{}-batch_size20-test_size20-train_size60-val_size20-width4-max_epochs2-seed0"


def command(*words: str, output_dir: Path, cwd: Path = REPO) -> subprocess.Popen:
    """The command line as users type it, on tiny data, in a process of its own."""
    flags = [word for word in words if word == "-m"]
    words = tuple(word for word in words if word != "-m")
    return subprocess.Popen(
        [sys.executable, "-m", "fer_voting.train", *flags, *TINY, f"output_dir={output_dir}", *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output folder, in a path with a space, and what the command printed."""
    output_dir = tmp_path_factory.mktemp("a folder") / "outputs"
    process = command("-m", "split=baseline,m1", "voting=soft,hard", output_dir=output_dir, cwd=output_dir.parent)
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    return output_dir, printed


def test_a_sweep_over_votes_trains_each_network_once_and_ends_with_a_table(sweep):
    output_dir, printed = sweep
    assert sorted(p.name for p in (output_dir / "runs").iterdir()) == [NAME.format("baseline"), NAME.format("m1")]
    assert printed.count("finished before, not trained again") == 2
    table = [line for line in printed.splitlines() if line.startswith("| faces-")]
    assert len(table) == 2
    assert "val soft (%)" in printed
    assert "Synthetic faces" in printed
    (record,) = (output_dir / "sweeps").glob("*/sweep.json")
    assert [job["voting"] for job in json.loads(record.read_text())["jobs"]] == ["soft", "hard", "soft", "hard"]
    assert (record.parent / "table.md").read_text() in printed


@pytest.mark.parametrize(("split", "crops"), [("baseline", 1), ("m1", 10)])
def test_a_run_leaves_all_that_it_promises(sweep, split: str, crops: int):
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
            with Image.open(run.dir / f"confusion-{vote}-{stage}.png") as picture:
                assert min(picture.size) > 300
    with Image.open(run.dir / "curves.png") as picture:
        picture.load()
    with run.metrics_file.open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [0, 1]
    assert float(rows[1]["learning_rate"]) == pytest.approx(0.85 * float(rows[0]["learning_rate"]))
    best = max(float(row["val/soft/accuracy"]) for row in rows)
    assert result["votes"]["soft"]["val"]["accuracy"] == pytest.approx(best)
    assert not run.last_checkpoint.exists()


def test_checkpoints_load_with_torchvisions_names_into_any_split(sweep):
    run = Run(sweep[0], NAME.format("m1"))
    checkpoint = torch.load(run.best_checkpoint("hard"), weights_only=True)
    state = {key.removeprefix("net."): value for key, value in checkpoint["state_dict"].items() if "net." in key}
    for split in ("baseline", "input", "m2"):
        VotingResNet18(split, width=4).load_state_dict(state)


def test_a_finished_sweep_is_not_trained_again(sweep):
    output_dir, _ = sweep
    files = {path: path.stat().st_mtime_ns for path in (output_dir / "runs").rglob("*") if path.suffix != ".lock"}
    files = {path: time_ns for path, time_ns in files.items() if path.is_file() and path.name != ".lock"}
    process = command("-m", "split=baseline,m1", output_dir=output_dir)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert printed.count("finished before") == 2
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_a_killed_run_goes_on_and_ends_as_if_nothing_had_happened(tmp_path: Path):
    words = ("split=m3", "dataset.schedule.epochs=4", "trainer.deterministic=true")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = command(*words, output_dir=whole)
    process.communicate(timeout=120)
    process = command("-m", *words, output_dir=killed)  # in a sweep, the training is a child of the command
    name = NAME.format("m3").replace("epochs2", "epochs4")
    last = Run(killed, name).last_checkpoint
    deadline = time.monotonic() + 120
    while not last.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    run = Run(killed, name)
    while run.status() == "running" and time.monotonic() < deadline:
        time.sleep(0.05)  # the child follows its parent
    assert run.status() == "interrupted"
    assert last.exists()

    process = command("-m", *words, output_dir=killed)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    assert "continues from" in printed
    assert read_history(run.metrics_file) == read_history(Run(whole, name).metrics_file)
    ours, theirs = (
        torch.load(Run(folder, name).best_checkpoint("soft"), weights_only=True)["state_dict"]
        for folder in (killed, whole)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs if key.startswith("net."))


def test_a_sweep_goes_on_after_a_failed_job_and_exits_with_1(run_train, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as exit_info:
        run_train("-m", "split=baseline", "dataset.size=48,6")
    assert exit_info.value.code == 1
    printed = capsys.readouterr().out
    assert "failed: dataset.size=6 must be at least 8" in printed
    assert printed.count("| finished") == 1


def test_a_failed_run_is_tried_again(run_train, tmp_path: Path):
    (tmp_path / "faces").mkdir()
    root = tmp_path / "faces"
    words = ("split=baseline", "name=again", f"init_from={root / 'weights.ckpt'}")
    with pytest.raises(SystemExit, match="init_from="):
        run_train(*words)
    run = Run(tmp_path / "outputs", "again")
    assert run.status() == "failed"
    assert "weights.ckpt" in run.result()["error"]
    assert "Traceback" in (run.dir / "error.txt").read_text()
    run_train("split=baseline", "name=source")
    os.link(Run(tmp_path / "outputs", "source").best_checkpoint("soft"), root / "weights.ckpt")
    run_train(*words)
    assert run.status() == "finished"
    assert run.result()["error"] is None


def test_a_run_of_another_configuration_is_never_overwritten(run_train):
    run_train("split=baseline", "name=mine")
    with pytest.raises(
        SystemExit, match=r"holds a run of another configuration \(optimizer.lr: 0.0002 there, 0.1 here"
    ):
        run_train("split=baseline", "name=mine", "optimizer.lr=0.1")


def test_the_forward_memory_callback_leaves_no_trace_in_the_training(run_train):
    output_dir = run_train("split=m3", "name=with")
    run_train("split=m3", "name=without", "~callbacks.forward_memory")
    measured, bare = Run(output_dir, "with"), Run(output_dir, "without")
    assert measured.result()["forward_mib_per_image"] > 0.1
    assert bare.result()["forward_mib_per_image"] is None
    ours, theirs = (
        torch.load(run.best_checkpoint("soft"), weights_only=True)["state_dict"] for run in (measured, bare)
    )
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key.startswith("net."))  # BatchNorm's too


def test_a_refit_trains_on_both_parts_for_the_selected_epochs_and_tests_once(run_train):
    with pytest.raises(SystemExit, match=r"is needed first, and is missing .*python -m fer_voting.train"):
        run_train("split=baseline", "refit=true", "voting=hard")
    output_dir = run_train("split=baseline", "voting=hard")
    run_train("split=baseline", "refit=true", "voting=hard")
    selection = Run(output_dir, NAME.format("baseline")).result()
    refit = Run(output_dir, NAME.format("baseline").replace("-seed0", "-refit_hard-seed0")).result()
    assert refit["epochs"] == selection["votes"]["hard"]["best_epoch"] + 1
    assert sum(refit["counts"]["train"].values()) == 80
    assert "val" not in refit["counts"]
    assert refit["votes"].keys() == {"hard"}
    assert refit["votes"]["hard"].keys() == {"best_epoch", "checkpoint", "test"}


def test_weights_come_from_another_data_sets_run(run_train):
    output_dir = run_train("split=baseline", "name=source")
    run_train("split=m3", "init_from=source", "name=target", "optimizer.lr=0")
    target = torch.load(Run(output_dir, "target").best_checkpoint("soft"), weights_only=True)["state_dict"]
    source = torch.load(Run(output_dir, "source").best_checkpoint("soft"), weights_only=True)["state_dict"]
    assert torch.equal(target["net.fc.weight"], source["net.fc.weight"])


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["split=m9"], "there is no split=m9; there are baseline, input, m1, m2, m3"),
        (["voting=loud"], "there is no voting=loud; there are hard, soft, softprob"),
        (["dataset=fer13"], "there is no dataset=fer13; there are affectnet, faces"),
        (["splitt=m1"], "there is no key 'splitt' in the configuration; did you mean 'split'?"),
        (["model.widht=8"], "there is no key 'widht' in model; did you mean 'width'?"),
        (["model.width=0"], "`width` (=0) must be at least 1"),
        (["seed=one"], "Value 'one' of type 'str' could not be converted to Integer"),
        (["trainer.accelerator=gpu"], "No supported gpu backend found"),
        (["trainer.precision=17"], "Precision"),
        (["init_from=no.ckpt"], "init_from=no.ckpt"),
        (["init_from=no_run"], "is missing, not finished"),
        (["name=a/b"], "`name` (='a/b')"),
        (["output_dir=/proc/nobody"], "/proc/nobody"),
    ],
)
def test_a_mistake_ends_with_one_line(run_train, words: list[str], told: str, tmp_path: Path):
    if "accelerator" in words[0] and torch.cuda.is_available():
        pytest.skip("a GPU is here, so asking for one is no mistake")
    with pytest.raises(SystemExit) as exit_info:
        run_train(*words)
    message = str(exit_info.value.code)
    assert message.startswith("error: ")
    assert told in message
    assert "\n" not in message.removesuffix("\n(HYDRA_FULL_ERROR=1 in the environment shows the traceback)")


@pytest.mark.parametrize("folder", [None, "missing", "empty"])
def test_a_data_root_that_holds_nothing(monkeypatch, tmp_path: Path, folder: str | None):
    from fer_voting.train import main

    (tmp_path / "empty").mkdir()
    root = [] if folder is None else [f"dataset.root={tmp_path / folder}"]
    argv = ["fer_voting.train", "dataset=fer2013", "logger=none", f"output_dir={tmp_path / 'outputs'}", *root]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match=r"error: dataset.root.*(is not set|is not a folder|holds no layout)"):
        main()
