"""`make studies` over tiny networks on a small FER2013 in the real layout, each study against another computation."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.datasets import SEVEN
from helpers.train import train_here
from scipy.special import softmax

from experiments import fer2013_analysis, resolution
from experiments.kept import Faces, KeptRun, read_faces, read_kept
from fer_voting.config import command
from fer_voting.results.load import load_runs
from fer_voting.results.statistics import paired_difference
from fer_voting.runs.run import Run
from fer_voting.votes import ALL_VOTES, VOTES

pytestmark = pytest.mark.slow

WORDS = (
    "model.width=4", "dataset.batch_size=20", "trainer.max_epochs=1", "augment=none", "logger=none", "plots=false",
)  # fmt: skip
TRAINED = (("baseline", 0), ("m3", 0), ("m3", 1))
IMAGES = 4 * 7 + 1
"""On PublicTest; the last is a copy of a training image."""


@pytest.fixture(scope="module")
def outputs(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studied") / "outputs"
    for split, seed in TRAINED:
        words = (f"split={split}", f"seed={seed}", "dataset=fer2013", f"dataset.root={root}")
        train_here(folder, *WORDS, *words, "dataset.drop_leaks=true")
    return folder


@pytest.fixture(scope="module")
def variant(outputs: Path) -> str:
    (found,) = {run.variant for run in load_runs(outputs).runs}
    return found


@pytest.fixture(scope="module")
def folder(outputs: Path, root: Path, variant: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kept")
    fer2013_analysis.main(
        ["--root", str(root), "--output-dir", str(outputs), "--folder", str(folder), "--variant", variant]
    )
    return folder


@pytest.fixture(scope="module")
def kept(folder: Path) -> dict[tuple[str, int], KeptRun]:
    return {(run.split, run.seed): read_kept(run, 48) for run in load_runs(folder).runs}


@pytest.fixture(scope="module")
def faces(folder: Path) -> Faces:
    return read_faces(folder)


def rows(folder: Path, study: str) -> list[dict[str, str]]:
    found: list[dict[str, Any]] = json.loads((folder / "studies.json").read_text())
    return [row for row in found if row["study"] == study]


def test_every_network_under_every_split(
    folder: Path, kept, outputs: Path, root: Path, tmp_path: Path, monkeypatch
) -> None:
    """The whole map of a network trained as m3 is what `fer_voting.evaluate` finds; the own split is what the training
    recorded; the table has their mean."""
    found = []
    for seed in (0, 1):
        run = kept["m3", seed]
        words = [f"checkpoint={run.run.name}", "split=baseline", "dataset=fer2013", f"dataset.root={root}"]
        words += ["stage=test", f"output_dir={outputs}", f"out={tmp_path / str(seed)}", "plots=false"]
        monkeypatch.setattr(sys, "argv", ["fer_voting.evaluate", *words])
        command("fer_voting.evaluate:job", "evaluate")
        (path,) = (tmp_path / str(seed)).glob("*.json")
        found.append(json.loads(path.read_text())["votes"]["soft"]["accuracy"])
        assert np.mean(run.scores["baseline"].argmax(axis=1) == run.test.labels) == pytest.approx(found[-1])
        own = np.mean(run.scores["m3"].argmax(axis=1) == run.test.labels)
        assert own == pytest.approx(run.run.result["votes"]["soft"]["test"]["accuracy"])
        assert set(run.scores) == {"baseline", "m1", "m2", "m3"}
    row = next(row for row in rows(folder, "splits") if row["trained with"] == "crops after module 3")
    assert row["runs"] == "2"
    assert row["judged as baseline"] == f"{100 * np.mean(found):.2f} ± {100 * np.std(found, ddof=1):.2f}"
    vote, training = rows(folder, "gain")
    assert vote["over"] == "images only, two seeds"
    assert training["over"] == "images only, one seed"  # the baseline has seed 0 alone
    whole, baseline = (
        run.scores["baseline"].argmax(axis=1) == run.test.labels for run in (kept["m3", 0], kept["baseline", 0])
    )
    assert training["difference"].startswith(f"{100 * paired_difference(whole[None], baseline[None]).mean:+.2f} (")


def test_fewer_crops(folder: Path, kept) -> None:
    found = next(row for row in rows(folder, "crops") if row["vote"] == "hard vote")
    logits = [kept["m3", seed].test.logits for seed in (0, 1)]
    labels = kept["m3", 0].test.labels
    single = [np.mean([(each[:, i].argmax(axis=1) == labels).mean() for i in range(5)]) for each in logits]
    assert found["1, not mirrored"] == f"{100 * np.mean(single):.2f} ± {100 * np.std(single, ddof=1):.2f}"
    everything = [kept["m3", seed].test.correct("hard").mean() for seed in (0, 1)]
    assert found["10, with mirror images"].startswith(f"{100 * np.mean(everything):.2f} ±")


def test_agreement(folder: Path, kept) -> None:
    (m3,) = {row["architecture"] for row in rows(folder, "doubt")}
    assert m3 == "crops after module 3"
    table = rows(folder, "agreement")
    assert [row["crops that agree"] for row in table] == ["10", "9", "8", "7", "6", "under 6"]
    assert sum(float(row["m3: images"].split(" ")[0]) for row in table) == pytest.approx(100, abs=0.05)


def test_resolution_is_that_of_make_resolution(kept, outputs: Path) -> None:
    run = kept["m3", 1]
    trained = resolution.open_run(outputs, run.run.name, "test", None)
    (expected,) = (
        r
        for r in resolution.measure(trained, "any", ["m3"], [8], "test")
        if (r["resolution"], r["vote"]) == (8, "hard")
    )
    assert np.mean(run.decisions[8]["hard"] == run.test.labels) == pytest.approx(expected["accuracy"])
    assert sorted(run.decisions) == [8, 12, 16, 24, 32, 40, 48]
    assert {tuple(of_side) for of_side in run.decisions.values()} == {tuple(VOTES)}


def test_leaks(folder: Path, faces: Faces, kept, root: Path) -> None:
    """By the pixels in the csv: the copy, and a few faces that the made noise happens to repeat."""
    lines = [line.split(",") for line in (root / "fer2013.csv").read_text().splitlines()[1:]]
    training = {pixels for _, pixels, usage in lines if usage == "Training"}
    leaks = np.array([pixels in training for _, pixels, usage in lines if usage == "PublicTest"])
    assert leaks[-1]
    assert not leaks.all()
    assert np.array_equal(faces.in_training, leaks)
    row = next(row for row in rows(folder, "leaks") if row["architecture"] == "baseline")
    right = kept["baseline", 0].test.correct("soft")
    assert row[f"also in Training ({leaks.sum()})"] == f"{100 * right[leaks].mean():.2f}"
    assert row[f"not in Training ({(~leaks).sum()})"] == f"{100 * right[~leaks].mean():.2f}"


def test_labels(folder: Path, faces: Faces, kept) -> None:
    """Rows 84 to 112: those divisible by 4 are fear, those one above have no majority, the others keep their label."""
    number = faces.rows
    assert number.tolist() == list(range(84, 84 + IMAGES))
    chosen = number % 4 != 1
    majority = np.where(number % 4 == 0, SEVEN.index("fear"), faces.labels)[chosen]
    decisions = kept["baseline", 0].test.logits.mean(axis=1).argmax(axis=1)[chosen]
    row = next(row for row in rows(folder, "labels") if row["architecture"] == "baseline")
    assert row["by FER2013's label"] == f"{100 * np.mean(decisions == faces.labels[chosen]):.2f}"
    assert row["by FER+'s majority"] == f"{100 * np.mean(decisions == majority):.2f}"
    wrong = decisions != faces.labels[chosen]
    assert row["label's"] == f"{100 * np.mean((decisions == majority)[wrong]):.2f}"


def test_calibration(folder: Path, kept) -> None:
    run = kept["baseline", 0]
    row = next(row for row in rows(folder, "calibration") if row["architecture"] == "baseline")
    assert float(row["temperature"]) == pytest.approx(run.run.result["votes"]["soft"]["temperature"], abs=0.02)
    (hard,) = (r for r in rows(folder, "calibration") if r["vote"] == "hard")
    assert hard["temperature"] == "–"


def test_every_vote(folder: Path, kept) -> None:
    (row,) = rows(folder, "votes")
    assert {*ALL_VOTES} < {*row}
    everything = [kept["m3", seed].run.result["votes"]["soft"]["test"]["accuracy"] for seed in (0, 1)]
    assert row["soft"].startswith(f"{100 * np.mean(everything):.2f} ±")
    runs = [kept["m3", seed] for seed in (0, 1)]
    accuracies = [runs[i].run.result["votes"]["adaptive"]["test"]["accuracy"] for i in (0, 1)]  # as trainings found it
    assert row["adaptive"] == f"{100 * np.mean(accuracies):.2f} ± {100 * np.std(accuracies, ddof=1):.2f}"


def test_the_adaptive_vote(folder: Path, kept, outputs: Path) -> None:
    """Without crops it is the whole map, with all of them the soft vote; halfway, as decided here one by one."""
    table = {row["crops computed (wished)"]: row for row in rows(folder, "adaptive")}
    runs = [kept["m3", seed] for seed in (0, 1)]
    labels = runs[0].test.labels

    def text(shares: list[float]) -> str:
        return f"{100 * np.mean(shares):.2f} ± {100 * np.std(shares, ddof=1):.2f}"

    whole = [float(np.mean(run.scores["baseline"].argmax(axis=1) == labels)) for run in runs]
    vote = [float(run.test.correct("soft").mean()) for run in runs]
    assert (table["0%"]["accuracy"], table["100%"]["accuracy"]) == (text(whole), text(vote))
    assert table["–"]["accuracy"] == text(vote)
    half, computed = [], []
    for run in runs:
        of_val, of_test = (softmax(each, axis=1).max(axis=1) for each in (run.full_map_val, run.scores["baseline"]))
        least = np.sort(of_val)
        unsure = of_test <= (least[2] + least[3]) / 2  # of six validation images, three
        decisions = np.where(unsure, run.test.logits.mean(axis=1).argmax(axis=1), run.scores["baseline"].argmax(axis=1))
        half.append(float(np.mean(decisions == labels)))
        computed.append(unsure.mean())
    assert table["50%"]["accuracy"] == text(half)
    assert table["50%"]["on test"] == f"{np.mean(computed):.1%}"


def test_the_tables_need_nothing_but_what_is_kept(folder: Path, variant: str, tmp_path: Path, capsys) -> None:
    """Written again elsewhere, they are the same; what is missing is named, with a command that trains into outputs."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    names = ("table.md", "comparison.md", "studies.md")
    for name in names:
        (copy / name).unlink()
    fer2013_analysis.main(["--folder", str(copy), "--variant", variant])
    printed = capsys.readouterr().out
    for name in names:
        assert (copy / name).read_text() == (folder / name).read_text()
    assert "not run (9)" in (folder / "comparison.md").read_text()
    assert "split=m1,m2,m3,baseline seed=0,1,2" in printed
    assert "dataset.root=DIR" in printed
    assert "output_dir" not in printed
    for name in ("cost", "curves-loss", "confusion-m3", "crops", "agreement", "resolution"):
        assert (folder / f"{name}.png").stat().st_size > 5_000


def test_nothing_kept_names_this_machine(folder: Path, root: Path, outputs: Path) -> None:
    for path in folder.rglob("*.*"):
        content = path.read_bytes()
        assert str(root).encode() not in content
        assert str(outputs).encode() not in content


def test_a_run_is_evaluated_once_and_never_replaced(
    folder: Path, outputs: Path, root: Path, variant: str, tmp_path: Path, capsys
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    name = f"fer2013-m3-{variant}-seed1"
    words = [name, "--root", str(root), "--output-dir", str(outputs), "--folder", str(copy), "--variant", variant]
    fer2013_analysis.main(words)
    assert f"{name}: was kept before" in capsys.readouterr().out
    kept = Run(copy, name)
    result = kept.result()
    assert result is not None
    kept.write_result(result | {"started": "2020-01-01T00:00:00+00:00"})
    with pytest.raises(SystemExit, match="holds another training of the same name"):
        fer2013_analysis.main(words)


def test_before_the_first_run_and_mistakes(tmp_path: Path, capsys) -> None:
    fer2013_analysis.main(["--folder", str(tmp_path / "new")])
    assert "experiment=fer2013" in capsys.readouterr().out
    for name in ("table", "comparison", "studies"):
        assert "not run" in (tmp_path / "new" / f"{name}.md").read_text()
    with pytest.raises(SystemExit):
        fer2013_analysis.main(["some-run"])
    assert "--root DIR" in capsys.readouterr().err
