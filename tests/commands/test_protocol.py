"""The paper's whole protocol through the command line, on small sets in the layouts of the real ones."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import datasets
from helpers.train import train_here

from fer_voting.runs.run import Run

pytestmark = pytest.mark.slow

WORDS = ("split=m3", "model.width=4", "dataset.size=24", "dataset.batch_size=16", "logger=none", "plots=false")


def test_one_command_selects_refits_and_tests_on_affectnet_and_then_on_rafdb_from_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    names = {name: name for name in datasets.SEVEN}
    per_class = {split: dict.fromkeys(datasets.SEVEN, n) for split, n in (("train", 6), ("val", 3), ("test", 2))}
    datasets.class_folders(tmp_path / "affectnet", per_class, names)
    datasets.rafdb_official(tmp_path / "rafdb", {k: per_class[k] for k in ("train", "test")})
    outputs = tmp_path / "outputs"
    monkeypatch.setenv("AFFECTNET_ROOT", str(tmp_path / "affectnet"))
    monkeypatch.setenv("RAFDB_ROOT", str(tmp_path / "rafdb"))
    train_here(outputs, "-m", "experiment=table3", *WORDS, "trainer.max_epochs=1")

    (sweep,) = (outputs / "sweeps").glob("*/sweep.json")
    runs = [Run(outputs, job["run"]) for job in json.loads(sweep.read_text())["jobs"]]
    assert [run.name for run in runs] == [
        f"{dataset}-m3-batch_size16-size24-width4-max_epochs1{refit}-seed0"
        for dataset in ("affectnet", "rafdb")
        for refit in ("", "-refit_soft")
    ]
    # RAF-DB's runs begin with the weights of AffectNet's selection.
    weights = {"sha256": hashlib.sha256(runs[0].best_checkpoint("soft").read_bytes()).hexdigest()}
    inputs = [json.loads((run.dir / "inputs.json").read_text()) for run in runs]
    assert [found["initial_weights"] for found in inputs] == [None, None, weights, weights]
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


def test_a_refit_trains_on_training_and_validation_for_the_selected_epochs_and_tests_once(tmp_path: Path):
    """On AffectNet: its validation part is drawn from the training images, its test part is the official validation."""
    per_class = {"train": dict.fromkeys(datasets.SEVEN, 8), "val": dict.fromkeys(datasets.SEVEN, 2)}
    datasets.affectnet_release2(tmp_path / "affectnet", per_class)
    outputs = tmp_path / "outputs"
    words = ["dataset=affectnet", f"dataset.root={tmp_path / 'affectnet'}", "dataset.val_per_class=3", "voting=hard"]
    words += [*WORDS, "trainer.max_epochs=3"]
    name = "affectnet-m3-batch_size16-size24-val_per_class3-width4-max_epochs3{}-seed0"
    with pytest.raises(SystemExit, match=rf"{name.format('')}.*python -m fer_voting\.train .*dataset=affectnet"):
        train_here(outputs, *words, "refit=true")  # the selection run is needed first
    train_here(outputs, *words)
    train_here(outputs, *words, "refit=true")
    selection, refit = (Run(outputs, name.format(tag)).result() for tag in ("", "-refit_hard"))
    assert refit["epochs"] == selection["votes"]["hard"]["best_epoch"] + 1
    assert selection["counts"]["train"] == dict.fromkeys(datasets.SEVEN, 5)
    assert selection["counts"]["val"] == dict.fromkeys(datasets.SEVEN, 3)
    assert selection["counts"]["test"] == refit["counts"]["test"] == dict.fromkeys(datasets.SEVEN, 2)
    assert refit["counts"]["train"] == dict.fromkeys(datasets.SEVEN, 8)
    assert "val" not in refit["counts"]
    assert refit["votes"].keys() == {"hard"}
    assert refit["votes"]["hard"].keys() == {"best_epoch", "checkpoint", "test"}
