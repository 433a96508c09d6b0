"""Run folders as records: places, settings, and the holes that damaged or missing runs leave."""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run

from fer_voting.results.load import Place, load_runs, setting_of
from fer_voting.runs.run import Run

LABELS = [0, 1, 2, 3, 4, 5, 6]
RIGHT = {"val": LABELS, "test": LABELS}
WORDS = ["dataset=faces", "model.width=4"]


def make(output_dir: Path, *words: str) -> Run:
    return make_run(output_dir, [*WORDS, *words], {"test": LABELS} if "refit=true" in words else RIGHT, LABELS)


@pytest.mark.parametrize(
    ("name", "refit", "setting"),
    [
        ("faces-m1-seed0", "", ""),
        ("faces-m1-demo-seed0", "", "demo"),
        ("faces-m1-demo-width8-seed0", "", "demo-width8"),
        ("faces-m1-refit_soft-seed0", "soft", ""),
        ("faces-m1-demo-refit_hard-seed0", "hard", "demo"),
        ("mine", "", "mine"),
        ("faces-m1-seed01", "", "faces-m1-seed01"),
    ],
)
def test_setting_is_what_stands_between_split_and_seed(name: str, refit: str, setting: str) -> None:
    assert setting_of(name, "faces", "m1", refit, 0) == setting


def test_two_sweeps_in_one_folder_stay_apart(tmp_path: Path) -> None:
    make(tmp_path, "split=m1", "seed=0")
    make(tmp_path, "split=m1", "seed=0", "optimizer.lr=1e-3")
    make(tmp_path, "split=m1", "seed=0", "refit=true")
    make(tmp_path, "split=m1", "seed=5", "name=mine")
    runs = load_runs(tmp_path)
    assert runs.settings("faces") == {"mine": 1, "width4": 2, "width4-lr0.001": 1}
    assert [section.setting for section in runs.sections()] == ["mine", "width4", "width4-lr0.001"]
    plain = runs.section("faces", "width4")
    assert sorted(plain.records) == [Place("m1", 0), Place("m1", 0, "soft")]
    assert [record.name for record in plain.finished()] == ["faces-m1-width4-seed0"]
    assert [record.name for record in plain.finished(refit=None)] == [
        "faces-m1-width4-seed0",
        "faces-m1-width4-refit_soft-seed0",
    ]
    assert not runs.section("faces").records
    assert plain.title == "drawn faces (synthetic), setting width4"


def test_seeds_are_those_found_and_the_first_three_or_those_asked_for(tmp_path: Path) -> None:
    make(tmp_path, "split=m1", "seed=7")
    runs = load_runs(tmp_path)
    assert runs.section("faces", "width4").seeds == (0, 1, 2, 7)
    assert runs.section("faces", "width4", seeds=[0]).finished() == []
    assert runs.sections()[0].seeds == (7,)


def test_splits_are_the_papers_and_input_where_it_was_run(tmp_path: Path) -> None:
    make(tmp_path, "split=m1", "seed=0")
    assert load_runs(tmp_path).section("faces", "width4").splits() == ["m1", "m2", "m3", "baseline"]
    make(tmp_path, "split=input", "seed=0")
    assert load_runs(tmp_path).section("faces", "width4").splits() == ["input", "m1", "m2", "m3", "baseline"]


@contextmanager
def held(run: Run) -> Iterator[None]:
    with (run.dir / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_every_kind_of_hole_has_a_name_and_a_reason(tmp_path: Path) -> None:
    runs = [make(tmp_path, "split=m1", f"seed={seed}") for seed in range(7)]
    finished = runs[0].result()
    assert finished is not None
    runs[1].write_result(finished | {"status": "failed", "error": "OSError: disk full"})
    runs[2].write_result(finished | {"status": "running"})
    (runs[3].dir / "result.json").write_text('{"status": "fini')
    runs[4].write_result({key: value for key, value in finished.items() if key not in ("gmacs", "votes")})
    (runs[5].dir / "result.json").write_text("[]")
    (runs[6].dir / "result.json").unlink()
    for seed, content in ((7, "dataset: [1"), (8, ""), (9, "\x00\x01"), (10, None)):
        folder = tmp_path / "runs" / f"faces-m1-width4-seed{seed}"
        folder.mkdir()
        if content is not None:
            (folder / "config.yaml").write_text(content)
    section = load_runs(tmp_path).section("faces", "width4", seeds=range(12))
    assert section.holes("m1") == {
        "faces-m1-width4-seed1": "failed: OSError: disk full",
        "faces-m1-width4-seed2": "interrupted",
        "faces-m1-width4-seed3": "damaged: result.json is no JSON",
        "faces-m1-width4-seed4": "damaged: result.json lacks votes, gmacs",
        "faces-m1-width4-seed5": "damaged: result.json lacks status",
        "faces-m1-width4-seed6": "not run",
        "faces-m1-width4-seed7": "damaged: config.yaml can't be read",
        "faces-m1-width4-seed8": "damaged: config.yaml can't be read",
        "faces-m1-width4-seed9": "damaged: config.yaml can't be read",
        "faces-m1-width4-seed10": "damaged: config.yaml is missing",
        "faces-m1-width4-seed11": "not run",
    }
    assert [record.place.seed for record in section.finished("m1")] == [0]
    with held(runs[2]):
        assert load_runs(tmp_path).section("faces", "width4").holes("m1")["faces-m1-width4-seed2"] == "running"


def test_figures_and_decisions(tmp_path: Path) -> None:
    decided = {"val": [0, 1, 2, 3, 4, 5, 0], "test": LABELS}
    make_run(tmp_path, [*WORDS, "split=m1", "seed=0"], decided, LABELS, names=[f"n{i}" for i in range(7)])
    record = load_runs(tmp_path).section("faces", "width4").finished("m1")[0]
    figures = record.figures("soft", "val")
    assert figures is not None
    assert figures["accuracy"] == pytest.approx(6 / 7)
    assert figures["recall"]["anger"] == 0
    assert record.figures("soft", "train") is None
    assert record.figures("none", "val") is None
    decisions = record.decisions("hard", "val")
    assert decisions.names.tolist() == [f"n{i}" for i in range(7)]
    assert decisions.correct.tolist() == [True] * 6 + [False]


@pytest.mark.parametrize("damage", ["cut", "empty", "no zip", "other arrays", "gone"])
def test_damaged_predictions_are_named(tmp_path: Path, damage: str) -> None:
    run = make(tmp_path, "split=m1", "seed=0")
    path = run.predictions_file("soft", "val")
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "other arrays":
        np.savez(path, logits=np.zeros(3))
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "no zip": b"#" * 300}[damage])
    record = load_runs(tmp_path).records[0]
    what = "missing" if damage == "gone" else "damaged"
    with pytest.raises(ValueError, match=rf"^predictions/soft-val.npz is {what}$"):
        record.decisions("soft", "val")


def test_a_misspelt_output_folder_does_not_read_as_not_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no output folder"):
        load_runs(tmp_path / "ouputs")
    assert load_runs(tmp_path).records == []


def test_result_keys_are_what_a_training_writes(tmp_path: Path) -> None:
    """The made-up runs of these tests and a real one have the same keys, so that neither drifts from the other."""
    made = make(tmp_path, "split=m1", "seed=0").result()
    assert made is not None
    source = (Path(__file__).parents[2] / "fer_voting" / "train.py").read_text()
    assert [key for key in made if f'"{key}"' not in source] == []
    assert json.loads(json.dumps(made)) == made
