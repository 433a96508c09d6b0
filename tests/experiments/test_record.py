"""A sweep kept in the repository, with and without its predictions."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.runs import make_run

from experiments import common, record
from fer_voting.results.load import Predictions, load_runs, read_predictions
from fer_voting.results.plots import plot_run
from fer_voting.results.statistics import group_ids
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.atomic import read_json

pytestmark = pytest.mark.slow

LABELS = [0, 1, 2, 3, 4, 5, 6]
WRONG = [1, *LABELS[1:]]
WORDS = ["dataset=faces", "model.width=4"]


def make_sweep(output_dir: Path, names: list[str], groups: list[str] | None = None) -> Sweep:
    """A sweep of m1 and its refit."""
    of_images: dict[str, Any] = {"labels": LABELS, "names": names, "groups": groups}
    runs = [
        make_run(output_dir, [*WORDS, "split=m1"], {"val": LABELS, "test": WRONG}, **of_images),
        make_run(output_dir, [*WORDS, "split=m1", "refit=true"], {"test": LABELS}, **of_images),
    ]
    for run in runs:
        result = run.result()
        assert result is not None
        plot_run(run, result)
    sweep = Sweep(output_dir / "sweeps" / "mine")
    sweep.write([], [{"overrides": [], "run": run.name, "voting": "soft"} for run in runs])
    return sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    return make_sweep(tmp_path / "outputs", [f"{row:05d}" for row in range(100, 107)])


def test_table_results_and_plots_are_kept(sweep: Sweep, tmp_path: Path, monkeypatch, capsys) -> None:
    folder = tmp_path / "recorded" / "mine"
    monkeypatch.setattr(common, "REPO", tmp_path)
    (tmp_path / "README.md").write_text("<!-- recorded/mine/table.md -->\n<!-- end -->\n")
    record.main([str(sweep.dir), str(folder)])
    assert "shown by README.md" in capsys.readouterr().out
    assert "| faces-m1-width4-seed0" in (tmp_path / "README.md").read_text()
    assert "Seed 0; commit 0123456789ab" in (folder / "table.md").read_text()
    assert [result["refit"] for result in read_json(folder / "results.json")] == [False, True]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*")) == [
        "faces-m1-width4-refit_soft-seed0/confusion-soft-test.png",
        "faces-m1-width4-refit_soft-seed0/curves.png",
        "faces-m1-width4-seed0/confusion-soft-test.png",
        "faces-m1-width4-seed0/curves.png",
        "results.json",
        "table.csv",
        "table.md",
        "table.tex",
    ]


def test_predictions_are_kept_compactly(sweep: Sweep, tmp_path: Path) -> None:
    folder = tmp_path / "recorded"
    record.record(sweep, folder, ["val", "test"])
    kept = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.npz"))
    assert kept == [
        "faces-m1-width4-refit_soft-seed0/predictions/soft-test.npz",
        "faces-m1-width4-seed0/predictions/soft-test.npz",
        "faces-m1-width4-seed0/predictions/soft-val.npz",
    ]
    with np.load(folder / kept[1]) as arrays:
        assert {name: array.dtype.name for name, array in arrays.items()} == {
            "logits": "float16",
            "labels": "uint8",
            "rows": "int32",
        }
        assert arrays["rows"].tolist() == list(range(100, 107))  # of the data set's csv
    compact, whole = read_predictions(folder / kept[1]), load_runs(sweep.output_dir).runs[1].predictions("test")
    assert compact.correct("soft").tolist() == whole.correct("soft").tolist() == [False, *[True] * 6]
    assert np.array_equal(compact.logits, whole.logits)


def test_file_names_are_not_kept(tmp_path: Path) -> None:
    names = [f"happy/somebody-{i}.jpg" for i in range(7)]
    record.record(make_sweep(tmp_path / "outputs", names), tmp_path / "recorded", ["test"])
    (file, _) = sorted((tmp_path / "recorded").rglob("*.npz"))
    assert read_predictions(file).names.tolist() == list("0123456")
    assert b"somebody" not in file.read_bytes()


def test_groups_are_kept_without_the_names_of_people(tmp_path: Path) -> None:
    people = ["Ada", "Ben", "Ada", "", "", "Ben", "Cy"]
    names = [f"{i}.jpg" for i in range(7)]
    record.record(make_sweep(tmp_path / "outputs", names, people), tmp_path / "recorded", ["test"])
    kept = [read_predictions(file).groups for file in (tmp_path / "recorded").rglob("*.npz")]
    assert len(kept) == 2
    for groups in kept:
        assert groups is not None
        ours, theirs = group_ids(groups), group_ids(people)
        assert np.array_equal(np.equal.outer(ours, ours), np.equal.outer(theirs, theirs))
        assert groups.tolist() == kept[0].tolist()  # so that folds and runs can be joined
        assert not {*groups} & {*people} - {""}


def test_class_ids_beyond_a_byte_stay_what_they_are(tmp_path: Path) -> None:
    stored = Predictions(np.array(["a", "b"]), np.array([299, 298]), np.zeros((2, 1, 300), np.float32))
    run = SimpleNamespace(predictions=lambda part: stored, predictions_file=Path, refit="", name="a")
    record.record_predictions(run, "test", tmp_path)  # type: ignore[arg-type]
    assert read_predictions(tmp_path / "test").labels.tolist() == [299, 298]


def test_half_precision_that_changes_the_accuracy_is_refused(sweep: Sweep, tmp_path: Path) -> None:
    run = load_runs(sweep.output_dir).runs[1]
    logits = np.full((7, 1, 7), 1000.0, np.float32)
    logits[np.arange(7), 0, LABELS] += 0.01  # float16 has steps of 0.5 there
    path = run.predictions_file("test")
    np.savez(path, logits=logits, labels=np.array(LABELS), names=np.array(list("0123456")))
    with pytest.raises(ValueError, match=r"half precision changes the accuracy of soft-test.npz by 85.71%"):
        record.record(sweep, tmp_path / "recorded", ["test"])


def test_only_a_finished_sweep_is_kept(sweep: Sweep, tmp_path: Path) -> None:
    run = Run(sweep.output_dir, "faces-m1-width4-seed0")
    result = run.result()
    assert result is not None
    run.write_result(result | {"status": "failed", "error": "no space left"})
    with pytest.raises(SystemExit, match="faces-m1-width4-seed0 is failed: no space left: only a finished sweep"):
        record.main([str(sweep.dir), str(tmp_path / "recorded")])
    assert not (tmp_path / "recorded").exists()
