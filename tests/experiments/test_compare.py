"""Groups of runs against each other, over runs whose decisions were chosen; references are computed by hand."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.runs import CLASSES, make_run
from scipy.stats import binomtest

from experiments.compare import main
from fer_voting.results.statistics import group_ids, holm, mcnemar_p, paired_difference
from fer_voting.runs.run import Run

pytestmark = pytest.mark.slow

LABELS = [0, 1, 2, 3, 4, 5, 6] * 4
WRONG = {"m1": ([4], [4, 5], []), "baseline": ([0, 1, 2, 3, 9, 10], [1, 2, 3], [0, 1, 2, 3, 4, 5])}
OTHER_ORDER = [*range(9, 28), *range(9)]
"""The order of the images in another layout."""


def decided(wrong: Sequence[int]) -> list[int]:
    return [(label + 1) % 7 if i in wrong else label for i, label in enumerate(LABELS)]


def data(fingerprint: str) -> dict[str, Any]:
    return {"data_fingerprint": fingerprint, "data": {"digests": {"test": f"digest of {fingerprint}"}}}


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m1 and the baseline of three seeds; the baseline also as FER2013, with other names and order of the images."""
    folder = tmp_path_factory.mktemp("outputs")
    for split, by_seed in WRONG.items():
        for seed, wrong in enumerate(by_seed):
            words = ["dataset=faces", "model.width=4", f"split={split}", f"seed={seed}"]
            make_run(folder, words, {"val": LABELS, "test": decided(wrong)}, LABELS, **data("a"))
    make_run(folder, ["dataset=faces", "split=m1", "seed=0"], {"test": LABELS}, LABELS, **data("a"))
    for seed, wrong in enumerate(WRONG["baseline"]):
        cache = f"dataset.cache_dir={folder / 'packs'}"
        words = ["dataset=fer2013", "dataset.root=there", cache, "split=baseline", f"seed={seed}"]
        moved, names = (list(np.array(each)[OTHER_ORDER]) for each in (decided(wrong), [f"row {i}" for i in range(28)]))
        labels = list(np.array(LABELS)[OTHER_ORDER])
        make_run(folder, words, {"test": moved}, labels, names=names, synthetic=False, **data("b"))
    manifests = folder / "packs" / "manifests"
    manifests.mkdir(parents=True)
    rows = [f"train,t,neutral,{99:032x}", *(f"test,x{i},{CLASSES[LABELS[i]]},{i:032x}" for i in range(28))]
    for name, order in (("faces-a", rows), ("fer2013-b", [rows[0], *(rows[1 + i] for i in OTHER_ORDER)])):
        (manifests / f"{name}.csv").write_text("\n".join(["part,name,label,hash", *order]) + "\n")
    (folder / "runs" / "empty").mkdir()
    return folder


def names(stem: str, seeds: str = "012") -> list[str]:
    return [f"{stem}-seed{seed}" for seed in seeds]


M1, BASELINE, FER2013 = (names(stem) for stem in ("faces-m1-width4", "faces-baseline-width4", "fer2013-baseline"))


def test_statistics_of_every_pair_are_those_of_the_decisions(outputs: Path, tmp_path: Path) -> None:
    """The third group's images are those of the first in another order, under other names of another data set."""
    main([*M1, "--against", *BASELINE, "--against", *reversed(FER2013), *folders(outputs, tmp_path)])
    rows = json.loads((tmp_path / "compare.json").read_text())
    right = {split: ~np.stack([np.isin(range(28), wrong) for wrong in WRONG[split]]) for split in WRONG}
    expected = paired_difference(right["m1"], right["baseline"])
    p_values = [
        binomtest(int((a & ~b).sum()), int((a ^ b).sum())).pvalue
        for a, b in zip(right["m1"], right["baseline"], strict=True)
    ]
    assert [row["second"] for row in rows] == ["faces-baseline-width4", "fer2013-baseline"]
    for row in rows:
        assert (row["first"], row["images"], row["part"], row["vote"]) == ("faces-m1-width4", 28, "test", "soft")
        assert [row[key] for key in ("difference", "low", "high")] == pytest.approx(
            [expected.mean, expected.low, expected.high]
        )
        assert list(row["p_values"].values()) == pytest.approx(p_values)
    corrected = [p for row in rows for p in row["holm"].values()]
    assert corrected == pytest.approx(holm(p_values * 2))
    text = (tmp_path / "compare.md").read_text()
    assert "| faces-m1-width4       | 0, 1, 2 | 96.43 ± 3.57 |" in text
    assert f"{100 * expected.mean:+.2f}" in (tmp_path / "compare-2.tex").read_text()
    assert "Synthetic faces" in text
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["compare-2.csv", "compare.csv"]


def folders(outputs: Path, out: Path) -> list[str]:
    return ["--output-dir", str(outputs), "--out", str(out)]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (["nobody"], M1, "there is no run nobody in "),
        (["empty"], M1, "config.yaml is missing"),
        (
            M1,
            BASELINE[:2],
            "has the seeds 0, 1, 2, faces-baseline-width4 the seeds 0, 1: give runs of the same",
        ),
        ([M1[0], BASELINE[1]], M1, r"are no seeds of one network \(split: m1 there, baseline here\)"),
        ([M1[0], "faces-m1-seed1"], M1, "there is no run faces-m1-seed1"),
        (["faces-m1-seed0", *M1[1:]], M1, "are no seeds of one network .*model.width"),
        (M1, BASELINE, "unfinished"),
        (M1, FER2013, "other images"),
        (M1, FER2013, "other labels"),
        (M1, FER2013, "no list"),
    ],
)
def test_what_cannot_be_compared_is_named_in_a_line(
    outputs: Path, tmp_path: Path, first: list[str], second: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = outputs / "packs" / "manifests" / "fer2013-b.csv"
    text = manifest.read_text()
    result = Run(outputs, BASELINE[2]).dir / "result.json"
    finished = result.read_text()
    try:
        if message == "unfinished":
            result.write_text(json.dumps({"status": "failed", "error": "no space"}))
            message = f"{BASELINE[2]} is failed: no space: only finished runs are compared"
        elif message == "other images":
            manifest.write_text(text.replace(f"{3:032x}", f"{77:032x}"))
            message = (
                "fer2013-baseline-seed0 was evaluated on other images, or by other labels, than faces-m1-width4-seed0"
            )
        elif message == "other labels":
            manifest.write_text(
                text.replace(f"{3:032x}", "x").replace(f"{4:032x}", f"{3:032x}").replace("x\n", f"{4:032x}\n")
            )
        elif message == "no list":
            manifest.unlink()
            message = r"fer2013-baseline-seed0 has other data than the others, and .* fer2013-b.csv, is not there"
        with pytest.raises(SystemExit, match=message):
            main([*first, "--against", *second, *folders(outputs, tmp_path)])
        assert not list(tmp_path.iterdir())
    finally:
        manifest.write_text(text)
        result.write_text(finished)


# Folds, and images of people ------------------------------------------------------------------------------------------

PEOPLE = np.array(["a", "b", "c", "d"]).repeat(7)
FOLD_OF = {"a": 0, "b": 1, "c": 2, "d": 2}


@pytest.fixture(scope="module")
def folds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """m1 and the baseline of two seeds in three folds; four people have seven images each."""
    folder = tmp_path_factory.mktemp("folds")
    fold_of = np.array([FOLD_OF[person] for person in PEOPLE])
    for split, by_seed in WRONG.items():
        for seed, wrong in enumerate(by_seed[:2]):
            for fold in range(3):
                rows = np.flatnonzero(fold_of == fold)
                words = ["dataset=folder", "dataset.root=there", "dataset.folds=3", f"dataset.fold={fold}"]
                labels, test = (list(np.array(each)[rows]) for each in (LABELS, decided(wrong)))
                of_fold = {"data_fingerprint": f"f{fold}", "data": {"digests": {"test": f"fold {fold}"}}}
                make_run(
                    folder,
                    [*words, f"split={split}", f"seed={seed}"],
                    {"test": test},
                    labels,
                    names=[f"image {row}" for row in rows],
                    groups=list(PEOPLE[rows]),
                    **of_fold,
                )
    return folder


def runs_of(folder: Path, split: str) -> list[str]:
    return [path.name for path in sorted((folder / "runs").iterdir()) if f"-{split}-" in path.name]


def test_folds_are_pooled_and_intervals_are_over_people(folds: Path, tmp_path: Path) -> None:
    m1, baseline = (runs_of(folds, split) for split in ("m1", "baseline"))
    main([*m1, "--against", *baseline, *folders(folds, tmp_path)])
    (row,) = json.loads((tmp_path / "compare.json").read_text())
    right = {split: ~np.stack([np.isin(range(28), wrong) for wrong in WRONG[split][:2]]) for split in WRONG}
    ids = group_ids(PEOPLE)
    expected = paired_difference(right["m1"], right["baseline"], groups=ids)
    assert (row["images"], row["groups"]) == (28, 4)
    assert [row[key] for key in ("difference", "low", "high")] == pytest.approx(
        [expected.mean, expected.low, expected.high]
    )
    pairs = zip(right["m1"], right["baseline"], strict=True)
    assert list(row["p_values"].values()) == pytest.approx([mcnemar_p(*pair, groups=ids) for pair in pairs])
    assert row["first"] == m1[0].rpartition("-fold")[0]
    assert "(4 groups only, two seeds)" in (tmp_path / "compare.md").read_text()


def test_groups_that_one_network_alone_knows_are_those_of_both(tmp_path: Path) -> None:
    for split, people in (("m1", None), ("baseline", list(PEOPLE))):
        words = ["dataset=folder", "dataset.root=there", f"split={split}"]
        make_run(tmp_path, words, {"test": decided(WRONG[split][0])}, LABELS, groups=people)
    for first, second in (("m1", "baseline"), ("baseline", "m1")):
        main([*runs_of(tmp_path, first), "--against", *runs_of(tmp_path, second), *folders(tmp_path, tmp_path)])
        assert "(4 groups only, one seed)" in (tmp_path / "compare.md").read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m1, baseline: (m1, baseline[1:]), "has the seeds 0, 1 and the folds 0, 1, 2, .*: give"),
        (lambda m1, baseline: (m1[1:], baseline[1:]), "give every fold of every seed"),
        (lambda m1, baseline: ([*m1, m1[0]], baseline[:2]), "give runs of the same"),
    ],
)
def test_folds_that_are_missing_are_named(folds: Path, tmp_path: Path, change: Any, message: str) -> None:
    first, second = change(runs_of(folds, "m1"), runs_of(folds, "baseline"))
    with pytest.raises(SystemExit, match=message):
        main([*first, "--against", *second, *folders(folds, tmp_path)])


@pytest.mark.parametrize("words", [[], ["a"], ["a", "--against"], ["a", "--against", "b", "--vote", "none"]])
def test_mistakes_on_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    assert "error:" in capsys.readouterr().err
