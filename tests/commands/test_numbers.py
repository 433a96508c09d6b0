"""Valence and arousal on drawn faces, from the training to the tables, with classes and without."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.composed import composed
from helpers.train import TINY, train_here

from experiments import compare, tables
from experiments.record import record
from fer_voting.evaluate import evaluate
from fer_voting.networks import load
from fer_voting.results.load import load_runs
from fer_voting.results.page import build_page
from fer_voting.results.sweep_table import sweep_table
from fer_voting.runs.run import Run, read_history
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.arrays import read_npz
from fer_voting.targets import NUMBERS

pytestmark = pytest.mark.slow

FACES = [word for word in TINY if word.startswith("dataset") and "batch_size" not in word]
TARGETS = {"valence_arousal": 0, "both": 7}
"""Target -> number of its classes."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over both targets, of split m3."""
    folder = tmp_path_factory.mktemp("numbers")
    words = [word for word in TINY if word != "plots=false"]
    train_here(folder, "-m", *words, "split=m3", f"target={','.join(TARGETS)}", "jobs=1", "sweep=mine")
    return folder


def run_of(outputs: Path, target: str) -> Run:
    (folder,) = (path for path in (outputs / "runs").iterdir() if f"-{target}-" in path.name)
    return Run(outputs, folder.name)


@pytest.mark.parametrize("target", TARGETS)
def test_a_run_of_numbers(outputs: Path, target: str) -> None:
    run, classes = run_of(outputs, target), TARGETS[target]
    result: Any = run.result()
    assert (len(result["class_names"]), result["number_names"]) == (classes, list(NUMBERS))
    assert set(result["votes"]) == {"soft", "hard", *(("softprob", "confidence", "weighted") if classes else ())}
    assert result["best_metric"] == ("accuracy" if classes else "mean_ccc")
    best = [row[f"val/soft/{result['best_metric']}"] for row in read_history(run.metrics_file)]
    assert result["votes"]["soft"]["best_epoch"] == int(np.argmax(best))
    arrays = read_npz(run.predictions_file("soft", "test"))
    assert arrays["number_crops"].shape == (20, 10, 2)
    errors = np.sqrt(((arrays["number_crops"].mean(axis=1) - arrays["number_labels"]) ** 2).mean(axis=0))
    assert list(result["votes"]["soft"]["test"]["rmse"].values()) == pytest.approx(errors.tolist(), abs=1e-5)
    assert ("logits" in arrays) == bool(classes)
    if classes:
        accuracy = (arrays["logits"].mean(axis=1).argmax(axis=1) == arrays["labels"]).mean()
        assert result["votes"]["soft"]["test"]["accuracy"] == pytest.approx(accuracy)
    assert (run.dir / "numbers-soft-test.png").exists()
    assert (run.dir / "confusion-soft-test.png").exists() == bool(classes)
    network = load(run.name, outputs)
    assert network.info.outputs == (*result["class_names"], *NUMBERS)  # type: ignore[union-attr]
    assert not network.forms  # type: ignore[union-attr]


@pytest.mark.parametrize("target", TARGETS)
def test_evaluating_again_gives_the_runs_metrics_with_intervals(outputs: Path, target: str, tmp_path: Path) -> None:
    """All votes by the weights of the soft vote's best epoch."""
    run, classes = run_of(outputs, target), TARGETS[target]
    words = [*FACES, f"checkpoint={run.name}", f"output_dir={outputs}", f"out={tmp_path}"]
    path, values = evaluate(composed(words, "evaluate"))
    recorded: Any = run.result()
    for metric in ("rmse", "ccc", "pearson", "sign_agreement", *(["accuracy"] if classes else [])):
        expected = recorded["votes"]["soft"]["test"][metric]
        assert values["votes"]["soft"][metric] == pytest.approx(expected, abs=1e-5)
    assert set(values["votes"]) == set(recorded["votes"])
    for name in NUMBERS:
        low, high = values["votes"]["hard"]["number_intervals"]["rmse"][name]
        assert low < values["votes"]["hard"]["rmse"][name] < high
    with path.with_name(f"{path.stem}-hard.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    stored = read_npz(run.predictions_file("soft", "test"))
    medians = np.median(stored["number_crops"], axis=1)
    np.testing.assert_allclose([float(row["predicted arousal"]) for row in rows], medians[:, 1], atol=1e-4)
    np.testing.assert_allclose([float(row["valence"]) for row in rows], stored["number_labels"][:, 0], atol=1e-6)
    assert ("predicted" in rows[0]) == bool(classes)
    assert path.with_name(f"{path.stem}-numbers.png").exists()
    for word in ("robustness=true", "mean_gmacs=1", *(() if classes else ("temperature=2",))):
        with pytest.raises(ValueError, match=rf"{word.partition('=')[0]}=.*the network predicts valence and arousal"):
            evaluate(composed([*words, word], "evaluate"))


def test_tables_and_the_page_have_the_numbers(outputs: Path) -> None:
    text, unfinished, table = sweep_table(Sweep(outputs / "sweeps" / "mine"))
    assert unfinished == 0
    assert {"val soft CCC", "test hard CCC", "val soft (%)"} <= set(table.header)
    assert "CCC" in text
    runs = load_runs(outputs)
    for target, classes in TARGETS.items():
        (variant,) = (name for name in runs.variants("faces") if name.startswith(target))
        words = ["--datasets", "faces", "--variant", variant, "--seeds", "0", "--output-dir", str(outputs)]
        tables.main(["table3", *words])
        written = (outputs / "tables" / "table3.md").read_text()
        result: Any = run_of(outputs, target).result()
        soft, hard = (result["votes"][vote]["val"]["ccc"] for vote in ("soft", "hard"))
        assert f"{soft['valence']:.3f}" in written
        assert ("validation accuracy" in written) == bool(classes)
        assert "validation of valence and arousal by split and vote" in written.splitlines()[0]
        figures = json.loads((outputs / "tables" / "table3.json").read_text())
        mine = [f for f in figures if f.get("metric") == "ccc" and f["second"] is None and f["mean"] is not None]
        by_place = {(f["first"]["vote"], f["number"]): f["mean"] for f in mine}
        assert by_place["soft", "valence"] == pytest.approx(soft["valence"], abs=1e-5)
        assert by_place["hard", "arousal"] == pytest.approx(hard["arousal"], abs=1e-5)
    assert "Valence and arousal, test" in build_page(runs)


def test_a_sweep_of_numbers_is_recorded(outputs: Path, tmp_path: Path) -> None:
    sweep = Sweep(outputs / "sweeps" / "mine")
    with pytest.raises(ValueError, match=r"has no classes, whose crop logits --predictions keeps"):
        record(sweep, tmp_path, ["test"])
    assert not list(tmp_path.iterdir())
    text, _ = record(sweep, tmp_path)
    assert "val soft CCC" in text
    plots = {path.name for path in (tmp_path / run_of(outputs, "valence_arousal").name).iterdir()}
    assert plots == {"curves.png", "numbers-soft-test.png"}


def test_tables_of_accuracies_leave_runs_without_classes_out(outputs: Path) -> None:
    run = run_of(outputs, "valence_arousal")
    (variant,) = (name for name in load_runs(outputs).variants("faces") if name.startswith("valence_arousal"))
    tables.main(["table4", "--datasets", "faces", "--variant", variant, "--output-dir", str(outputs)])
    assert "no test metrics of the soft vote" in (outputs / "tables" / "table4.md").read_text()
    with pytest.raises(SystemExit, match=f"{run.name} has no test images, no soft vote, or no classes"):
        compare.main([run.name, "--against", run.name, "--output-dir", str(outputs)])


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("target=valence_arousal", "voting=softprob"), "voting=softprob is not for target=valence_arousal: take soft"),
        (("target=both", "voting=adaptive"), "voting=adaptive is not for target=both"),
        (("target=valence_arousal", "loss=focal"), "loss=focal is of classes, and the target of numbers: loss=mse or"),
        (("target=both", "loss=mse"), "loss=mse is of numbers, and the target of classes and numbers: loss=both"),
        (("loss=mse",), "loss=mse is of numbers, and the target of classes: loss=cross_entropy"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_data(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=reason):
        train_here(tmp_path, *TINY, *words)
    assert not (tmp_path / "packs").exists()


@pytest.mark.parametrize("target", TARGETS)
def test_initial_weights_mixed_images_and_a_refit(
    target: str, outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(run_of(outputs, "both").best_checkpoint("soft"), "w.ckpt")
    words = (*TINY, f"target={target}", "split=m3")
    train_here(tmp_path, *words, "name=mixed", "mix=mixup", "init_from=w.ckpt")
    train_here(tmp_path, *words, "name=mine")
    train_here(tmp_path, *words, "name=again", "refit=true", "selection=mine")
    with pytest.raises(SystemExit, match=r"teacher=.*gives probabilities of classes: leave it out for numbers"):
        train_here(tmp_path, *words, "name=taught", "teacher=w.ckpt")
    result: Any = Run(tmp_path, "again").result()
    assert set(result["votes"]) == {"soft"}
    assert "mean_ccc" in result["votes"]["soft"]["test"]
