"""The paper's whole protocol through the command line, on small sets in the layouts of the real ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import small_sets
from tiny import REPO

from fer_voting.runs.run import Run

WORDS = ("split=m3", "model.width=4", "dataset.schedule.epochs=1", "dataset.batch_size=16", "logger=none")


def test_one_command_selects_refits_and_tests_on_affectnet_and_then_on_rafdb_from_its_weights(tmp_path: Path):
    names = {name: name for name in small_sets.SEVEN}
    per_class = {split: dict.fromkeys(small_sets.SEVEN, n) for split, n in (("train", 6), ("val", 3), ("test", 2))}
    small_sets.class_folders(tmp_path / "affectnet", per_class, names)
    small_sets.rafdb_official(tmp_path / "rafdb", {k: per_class[k] for k in ("train", "test")})
    outputs = tmp_path / "outputs"
    command = [sys.executable, "-m", "fer_voting.train", "-m", "experiment=table3", *WORDS, f"output_dir={outputs}"]
    roots = {"AFFECTNET_ROOT": str(tmp_path / "affectnet"), "RAFDB_ROOT": str(tmp_path / "rafdb")}
    done = subprocess.run(
        command, cwd=REPO, env={**os.environ, **roots, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr

    (sweep,) = (outputs / "sweeps").glob("*/sweep.json")
    runs = [Run(outputs, job["run"]) for job in json.loads(sweep.read_text())["jobs"]]
    assert [run.name for run in runs] == [
        f"{dataset}-m3-batch_size16-width4-max_epochs1{refit}-seed0"
        for dataset in ("affectnet", "rafdb")
        for refit in ("", "-refit_soft")
    ]
    assert "classes matched by name: neutral, happy, sad, surprise, fear, disgust, anger" in done.stderr
    affectnet, affectnet_refit, rafdb, rafdb_refit = (run.result() for run in runs)
    for selection, refit in ((affectnet, affectnet_refit), (rafdb, rafdb_refit)):
        counts = {stage: sum(classes.values()) for stage, classes in selection["counts"].items()}
        refit_counts = {stage: sum(classes.values()) for stage, classes in refit["counts"].items()}
        assert refit_counts == {"train": counts["train"] + counts["val"], "test": counts["test"]}
        assert refit["votes"].keys() == {"soft"}
    # Every image of a set is in one part of the selection, and the refit trains on no test image.
    for run, refit in (runs[:2], runs[2:]):
        parts = [set(np.load(run.predictions_file("soft", stage))["names"]) for stage in ("val", "test")]
        assert not parts[0] & parts[1]
        assert set(np.load(refit.predictions_file("soft", "test"))["names"]) == parts[1]


def test_affectnets_validation_is_drawn_from_its_training_set_and_its_official_one_tests(tmp_path: Path, monkeypatch):
    from fer_voting.train import main

    per_class = {"train": dict.fromkeys(small_sets.SEVEN, 8), "val": dict.fromkeys(small_sets.SEVEN, 2)}
    small_sets.affectnet_release2(tmp_path / "affectnet", per_class)
    words = ["dataset=affectnet", f"dataset.root={tmp_path / 'affectnet'}", "dataset.val_per_class=3", *WORDS]
    for refit in ("false", "true"):
        monkeypatch.setattr(sys, "argv", ["train", *words, f"refit={refit}", f"output_dir={tmp_path / 'outputs'}"])
        main()
    name = "affectnet-m3-batch_size16-val_per_class3-width4-max_epochs1{}-seed0"
    selection, refit = (Run(tmp_path / "outputs", name.format(tag)).result() for tag in ("", "-refit_soft"))
    assert selection["counts"]["train"] == dict.fromkeys(small_sets.SEVEN, 5)
    assert selection["counts"]["val"] == dict.fromkeys(small_sets.SEVEN, 3)
    assert selection["counts"]["test"] == refit["counts"]["test"] == dict.fromkeys(small_sets.SEVEN, 2)
    assert refit["counts"]["train"] == dict.fromkeys(small_sets.SEVEN, 8)
