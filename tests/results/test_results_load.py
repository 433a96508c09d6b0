"""Run folders as data: variants, and the reasons for which runs are missing."""

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import make_run
from helpers.train import REPO
from omegaconf import OmegaConf

from fer_voting.results.load import load_run, load_runs, read_predictions
from fer_voting.runs.run import Run
from fer_voting.system.atomic import write_json

LABELS = [0, 1, 2, 3, 4, 5, 6]
RIGHT = {"val": LABELS, "test": LABELS}
WORDS = ["dataset=faces", "model.width=4"]


def make(output_dir: Path, *words: str) -> Run:
    return make_run(output_dir, [*WORDS, *words], {"test": LABELS} if "refit=true" in words else RIGHT, LABELS)


def test_a_stored_variant_counts_whatever_the_name_says(tmp_path: Path) -> None:
    run = make(tmp_path, "split=m1", "seed=0")
    renamed = run.dir.with_name("faces-m1-demo-seed0")
    run.dir.rename(renamed)
    assert load_run(Run(tmp_path, renamed.name)).variant == "width4"


def test_two_sweeps_in_one_folder_stay_apart(tmp_path: Path) -> None:
    make(tmp_path, "split=m1", "seed=0")
    make(tmp_path, "split=m1", "seed=0", "optimizer.lr=1e-3")
    make(tmp_path, "split=m1", "seed=0", "refit=true")
    make(tmp_path, "split=m1", "seed=5", "name=mine")  # the same but for the seed, whatever it is called
    runs = load_runs(tmp_path)
    assert runs.variants("faces") == {"width4": 3, "width4-lr0.001": 1}
    assert [section.variant for section in runs.groups()] == ["width4", "width4-lr0.001"]
    plain = runs.group("faces", "width4")
    assert [(run.split, run.seed, run.refit) for run in plain.runs] == [("m1", 0, ""), ("m1", 0, "soft"), ("m1", 5, "")]
    assert [run.name for run in plain.finished()] == ["faces-m1-width4-seed0", "mine"]
    assert [run.name for run in plain.finished(refit=None)] == [
        "faces-m1-width4-seed0",
        "faces-m1-width4-refit_soft-seed0",
        "mine",
    ]
    assert not runs.group("faces").runs
    assert plain.title == "drawn faces (synthetic), variant width4"


def relabel(run: Run, variant: str, **trainer: str) -> None:
    """Write another recorded variant, and values of the trainer as another machine resolves them."""
    config = run.config()
    config["composition"]["variant"] = variant
    config["trainer"] |= trainer
    OmegaConf.save(OmegaConf.create(config), run.dir / "config.yaml")


def test_runs_of_one_label_are_not_averaged_where_they_differ(tmp_path: Path) -> None:
    relabel(make(tmp_path, "split=m1", "seed=0", "augment.rotation.probability=0.3"), "probability0.3")
    relabel(make(tmp_path, "split=m1", "seed=1", "augment.erase.probability=0.3"), "probability0.3")
    runs = load_runs(tmp_path)
    rotated, erased = (
        f"probability0.3-erase.probability{erase}-rotation.probability{rotation}"
        for erase, rotation in ((0.5, 0.3), (0.3, 0.5))
    )
    assert runs.variants("faces") == {erased: 1, rotated: 1}
    assert [run.seed for run in runs.group("faces", rotated).finished("m1")] == [0]
    assert runs.group("faces", "probability0.3").runs == []  # of two variants, none


def test_the_precision_that_a_machine_resolved_is_a_variant(tmp_path: Path) -> None:
    words = ["experiment=demo", "model.width=4", "split=m1"]
    for seed in (0, 1):
        run = make_run(tmp_path, [*words, f"seed={seed}"], RIGHT, LABELS)
        relabel(run, "demo-width4", precision=("bf16-mixed", "32-true")[seed])
    runs = load_runs(tmp_path)
    bf16, float32 = "demo-width4-precisionbf16_mixed", "demo-width4-precision32_true"
    assert runs.variants("faces") == {bf16: 1, float32: 1}
    group = runs.group("faces", bf16, seeds=[0, 1])
    assert [run.seed for run in group.finished()] == [0]
    # A missing run is called as a training here would call it.
    assert group.missing("m1") == {"faces-m1-demo-width4-seed1": "not run"}


def test_runs_of_one_recipe_are_averaged_whatever_they_are_called(tmp_path: Path) -> None:
    for seed, label in ((0, "width4"), (1, "width4"), (2, "small-width4")):
        relabel(make(tmp_path, "split=m1", f"seed={seed}"), label)
    runs = load_runs(tmp_path)
    assert runs.variants("faces") == {"width4": 3}
    for label in ("width4", "small-width4"):
        assert [run.seed for run in runs.group("faces", label).finished("m1")] == [0, 1, 2]


def test_a_dashboard_s_row_is_shared_by_the_seeds_of_a_recipe(tmp_path: Path) -> None:
    def row(*words: str) -> str:
        return make(tmp_path, *words).config()["composition"]["row"]

    first = row("split=m1", "seed=0")
    assert first.startswith("m1 ")
    assert row("split=m1", "seed=1", "name=mine") == first
    others = [row("split=m2", "seed=0"), row("split=m1", "optimizer.lr=1e-3"), row("split=m1", "augment=none")]
    assert len({first, *others}) == 4


@pytest.mark.slow
def test_runs_from_the_weights_of_their_own_seed_are_averaged(tmp_path: Path) -> None:
    words = ["dataset=rafdb", "model.width=4", "teacher=m3"]
    for split, seed in (("m1", 0), ("m1", 1), ("m2", 0)):
        make_run(tmp_path, [*words, f"split={split}", f"seed={seed}"], RIGHT, LABELS)
    make_run(tmp_path, [*words, "split=m1", "seed=2", "init_from=affectnet-m1-width4-seed0"], RIGHT, LABELS)
    assert sorted(load_runs(tmp_path).variants("rafdb").values()) == [1, 3]


def test_runs_from_other_weights_under_one_name_are_missing(tmp_path: Path) -> None:
    for seed, digest in ((0, "a"), (1, "b"), (2, "a")):
        run = make(tmp_path, "split=m1", f"seed={seed}", "init_from=some.ckpt")
        write_json(run.dir / "inputs.json", {"initial_weights": {"sha256": digest * 64}})
    (group,) = load_runs(tmp_path).groups()
    assert [run.seed for run in group.finished("m1")] == [0, 2]
    (reason,) = group.missing("m1").values()
    assert reason == f"other data: initial weights {'b' * 12} here, {'a' * 12} in the other runs"


def test_seeds_are_those_found_and_the_first_three_or_those_asked_for(tmp_path: Path) -> None:
    make(tmp_path, "split=m1", "seed=7")
    runs = load_runs(tmp_path)
    assert runs.group("faces", "width4").seeds == (0, 1, 2, 7)
    assert runs.group("faces", "width4", seeds=[0]).finished() == []
    assert runs.groups()[0].seeds == (7,)


def test_splits_are_the_papers_and_input_where_it_was_run(tmp_path: Path) -> None:
    make(tmp_path, "split=m1", "seed=0")
    assert load_runs(tmp_path).group("faces", "width4").splits() == ["m1", "m2", "m3", "baseline"]
    make(tmp_path, "split=input", "seed=0")
    assert load_runs(tmp_path).group("faces", "width4").splits() == ["input", "m1", "m2", "m3", "baseline"]


@contextmanager
def held(run: Run) -> Iterator[None]:
    with (run.dir / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def test_every_missing_run_has_a_name_and_a_reason(tmp_path: Path) -> None:
    runs = [make(tmp_path, "split=m1", f"seed={seed}") for seed in range(7)]
    finished = runs[0].result()
    assert finished is not None
    runs[1].write_result(finished | {"status": "failed", "error": "OSError: disk full"})
    runs[2].write_result(finished | {"status": "running"})
    (runs[3].dir / "result.json").write_text('{"status": "fini')
    runs[4].write_result({key: value for key, value in finished.items() if key not in ("gmacs", "votes")})
    (runs[5].dir / "result.json").write_text("[]")
    (runs[6].dir / "result.json").unlink()
    (tmp_path / "runs" / "a name that no run can have").mkdir()
    for seed, content in ((7, "dataset: [1"), (8, ""), (9, "\x00\x01"), (10, None)):
        folder = tmp_path / "runs" / f"faces-m1-width4-seed{seed}"
        folder.mkdir()
        if content is not None:
            (folder / "config.yaml").write_text(content)
    section = load_runs(tmp_path).group("faces", "width4", seeds=range(12))
    assert section.missing("m1") == {
        "faces-m1-width4-seed1": "failed: OSError: disk full",
        "faces-m1-width4-seed2": "interrupted",
        "faces-m1-width4-seed3": "damaged: result.json is no JSON, or lacks status",
        "faces-m1-width4-seed4": (
            "damaged or of another version: result.json (format 3, written at commit 0123456789ab) lacks votes, gmacs"
        ),
        "faces-m1-width4-seed5": "damaged: result.json is no JSON, or lacks status",
        "faces-m1-width4-seed6": "not run",
        "faces-m1-width4-seed7": "damaged: config.yaml can't be read",
        "faces-m1-width4-seed8": "damaged: config.yaml can't be read",
        "faces-m1-width4-seed9": "damaged: config.yaml can't be read",
        "faces-m1-width4-seed10": "damaged: config.yaml is missing",
        "faces-m1-width4-seed11": "not run",
    }
    assert [run.seed for run in section.finished("m1")] == [0]
    assert "must consist of letters" in load_runs(tmp_path).unreadable["a name that no run can have"]
    with held(runs[2]):
        assert load_runs(tmp_path).group("faces", "width4").missing("m1")["faces-m1-width4-seed2"] == "running"


def test_metrics_and_predictions(tmp_path: Path) -> None:
    decided = {"val": [0, 1, 2, 3, 4, 5, 0], "test": LABELS}
    make_run(tmp_path, [*WORDS, "split=m1", "seed=0"], decided, LABELS, names=[f"n{i}" for i in range(7)])
    run = load_runs(tmp_path).group("faces", "width4").finished("m1")[0]
    metrics = run.metrics("soft", "val")
    assert metrics is not None
    assert metrics["accuracy"] == pytest.approx(6 / 7)
    assert metrics["recall"]["anger"] == 0
    assert run.metrics("soft", "train") is None
    assert run.metrics("none", "val") is None
    predictions = run.predictions("val")
    assert predictions.names.tolist() == [f"n{i}" for i in range(7)]
    assert predictions.logits.shape == (7, 3, 7)
    for vote in ("soft", "hard", "softprob"):
        assert predictions.correct(vote).tolist() == [True] * 6 + [False]


@pytest.mark.parametrize("damage", ["cut", "empty", "no zip", "other arrays", "gone"])
def test_damaged_predictions_are_named(tmp_path: Path, damage: str) -> None:
    run = make(tmp_path, "split=m1", "seed=0")
    path = run.predictions_file("soft", "val")
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "other arrays":
        np.savez(path, scores=np.zeros(3))
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "empty": b"", "no zip": b"#" * 300}[damage])
    loaded = load_runs(tmp_path).runs[0]
    what = "missing" if damage == "gone" else "damaged"
    with pytest.raises(ValueError, match=rf"^predictions/soft-val.npz is {what}$"):
        loaded.predictions("val")


def test_a_misspelt_output_folder_does_not_read_as_not_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no output folder"):
        load_runs(tmp_path / "ouputs")
    assert load_runs(tmp_path).runs == []


# --- what a table must not mix ----------------------------------------------------------------------------------


def test_runs_on_other_data_are_missing_with_both_fingerprints(tmp_path: Path) -> None:
    for seed, fingerprint in enumerate(["a" * 32, "b" * 32, "a" * 32]):
        words = [*WORDS, "split=m1", f"seed={seed}"]
        make_run(tmp_path, words, RIGHT, LABELS, data_fingerprint=fingerprint)
    make_run(tmp_path, [*WORDS, "split=m2", "seed=0"], RIGHT, LABELS, data_fingerprint="a" * 32)
    make_run(tmp_path, ["dataset=faces", "split=m2", "seed=0"], RIGHT, LABELS, data_fingerprint="c" * 32)
    runs = load_runs(tmp_path)
    section = runs.group("faces", "width4", seeds=[0, 1, 2])
    assert [run.name for run in section.finished()] == [
        *("faces-m1-width4-seed0", "faces-m1-width4-seed2"),
        "faces-m2-width4-seed0",
    ]
    reason = f"other data: fingerprint {'b' * 12} here, {'a' * 12} in the other runs"
    assert section.missing("m1") == {"faces-m1-width4-seed1": reason}
    assert len(runs.group("faces", seeds=[0]).finished()) == 1  # another variant may be on other data


def test_of_two_data_sets_of_equally_many_runs_the_newest_counts(tmp_path: Path) -> None:
    for split, started in (("m1", "2026-03-01T00:00:00+00:00"), ("m2", "2026-02-01T00:00:00+00:00")):
        words = [*WORDS, f"split={split}", "seed=0"]
        make_run(tmp_path, words, RIGHT, LABELS, data_fingerprint=split * 16, started=started)
    section = load_runs(tmp_path).group("faces", "width4", seeds=[0])
    assert [run.split for run in section.finished()] == ["m1"]
    assert section.missing("m2")["faces-m2-width4-seed0"].startswith("other data: fingerprint m2m2")


def test_a_refit_has_a_fingerprint_of_its_own_and_comes_from_the_data_of_the_selection(tmp_path: Path) -> None:
    """There are as many images in every part: the digest tells."""
    for seed, selection in ((0, "a"), (1, "a"), (2, "c")):
        words = [*WORDS, "split=m1", f"seed={seed}"]
        make_run(tmp_path, words, RIGHT, LABELS, data_fingerprint="a" * 32)
        refit = {"data_fingerprint": "b" * 32, "data": {"fingerprint": "b" * 32, "selection": selection * 32}}
        make_run(tmp_path, [*words, "refit=true"], {"test": LABELS}, LABELS, **refit)
    section = load_runs(tmp_path).group("faces", "width4", seeds=[0, 1, 2])
    assert [run.seed for run in section.finished("m1", "soft")] == [0, 1]
    assert section.missing("m1", "soft") == {
        "faces-m1-width4-refit_soft-seed2": (
            f"other data: fingerprint {'c' * 12} before the refit, {'a' * 12} in the runs without refit"
        )
    }


def test_a_copied_run_folder_is_not_counted_twice(tmp_path: Path) -> None:
    run = make(tmp_path, "split=m1", "seed=0")
    shutil.copytree(run.dir, run.dir.with_name("saved-copy"))
    section = load_runs(tmp_path).group("faces", "width4", seeds=[0])
    assert [one.name for one in section.finished()] == [run.name]
    assert section.missing("m1") == {"saved-copy": f"not used: {run.name} is the same split, seed and variant"}


def test_compact_predictions_are_read(tmp_path: Path) -> None:
    logits = np.eye(7, dtype=np.float16)[[1, 2]][:, None]
    np.savez(tmp_path / "soft-test.npz", logits=logits, labels=np.array([1, 3], np.uint8), rows=np.array([7, 9]))
    predictions = read_predictions(tmp_path / "soft-test.npz")
    assert predictions.correct("soft").tolist() == [True, False]
    assert predictions.names.tolist() == ["7", "9"]
    assert (predictions.logits.dtype, predictions.labels.dtype) == (np.float32, np.int64)


def test_result_keys_are_what_a_training_writes(tmp_path: Path) -> None:
    """The made-up runs of these tests have the keys of a real one."""
    made = make(tmp_path, "split=m1", "seed=0").result()
    assert made is not None
    files = ("experiment.py", "runs/run.py")
    source = "".join((REPO / "fer_voting" / file).read_text() for file in files)
    assert [key for key in made if f'"{key}"' not in source] == []
    assert json.loads(json.dumps(made)) == made
