"""Accuracies over seeds and paired comparisons, with decisions whose statistics were computed by hand."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import CLASSES, make_run

from fer_voting.results.compare import (
    Method,
    accuracies,
    accuracy,
    compare,
    compare_with_baseline,
    comparisons,
    confusion,
    recalls,
)
from fer_voting.results.load import RunGroup, load_runs
from fer_voting.results.statistics import holm, paired_difference

LABELS = [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
WORDS = ["dataset=faces", "model.width=4"]
# (split, seed) -> images whose soft vote is wrong
WRONG = {
    ("baseline", 0): [0, 1, 2, 3],
    ("baseline", 1): [0, 1, 2],
    ("m1", 0): [3, 4],
    ("m1", 1): [],
    ("m2", 0): [0, 1, 2, 3],
}


def wrong_at(images: list[int]) -> list[int]:
    return [(label + 1) % 7 if i in images else label for i, label in enumerate(LABELS)]


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outputs")
    for (split, seed), images in WRONG.items():
        soft = {"val": wrong_at(images), "test": LABELS}
        hard = {"val": wrong_at([*images, 9]), "test": LABELS}
        words = [*WORDS, f"split={split}", f"seed={seed}"]
        make_run(folder, words, soft, LABELS, hard=None if split == "baseline" else hard)
    make_run(folder, [*WORDS, "split=m3", "seed=0"], {"val": LABELS}, LABELS, names=[f"other {i}" for i in range(10)])
    return folder


@pytest.fixture(scope="module")
def section(output_dir: Path) -> RunGroup:
    return load_runs(output_dir).group("faces", "width4", seeds=[0, 1])


def test_accuracies_over_seeds(section: RunGroup) -> None:
    found = {(a.method.split, a.method.vote): a for a in accuracies(section, "val")}
    assert [key for key in found if key[0] == "baseline"] == [("baseline", "soft")]
    assert found["baseline", "soft"].seeds == {0: pytest.approx(0.6), 1: pytest.approx(0.7)}
    assert found["baseline", "soft"].mean == pytest.approx(0.65)
    assert found["baseline", "soft"].std == pytest.approx(0.1 / 2**0.5)
    assert found["m1", "soft"].mean == pytest.approx(0.9)
    assert found["m1", "hard"].mean == pytest.approx(0.8)
    assert found["m2", "soft"].std is None
    assert found["m2", "soft"].missing == {"faces-m2-width4-seed1": "not run"}
    no_test = accuracy(section, Method("m3", "soft"), "test")
    assert no_test.mean is None
    assert no_test.missing["faces-m3-width4-seed0"] == "no test metrics of the soft vote"


def test_against_the_baseline_on_the_same_images(section: RunGroup) -> None:
    (pair,) = compare(section, [(Method("m1", "soft"), Method("baseline", "soft"))], "val")
    # Seed 0: right where the baseline is wrong at 0, 1, 2; wrong where it is right at 4. Seed 1: 0, 1, 2; nowhere.
    assert pair.images == 10
    assert pair.difference == pytest.approx((0.2 + 0.3) / 2)
    assert pair.p_values == {0: pytest.approx(2 * (1 + 4) / 16), 1: pytest.approx(2 / 8)}
    right = {key: ~np.isin(range(10), images) for key, images in WRONG.items()}
    first, second = (np.stack([right[split, seed] for seed in (0, 1)]) for split in ("m1", "baseline"))
    interval = paired_difference(first, second)
    assert (pair.low, pair.high) == (interval.low, interval.high)
    assert pair.part == "val"
    assert pair.missing == {}


def test_only_seeds_that_both_have_are_compared(section: RunGroup) -> None:
    (pair,) = compare(section, [(Method("m2", "soft"), Method("baseline", "soft"))], "val")
    assert pair.difference == 0
    assert pair.p_values == {0: 1.0}
    assert pair.missing == {"faces-m2-width4-seed1": "not run"}


def test_other_images_are_not_compared(section: RunGroup) -> None:
    (pair,) = compare(section, [(Method("m3", "soft"), Method("baseline", "soft"))], "val")
    assert (pair.part, pair.difference) == ("val", None)
    for split in ("m3", "baseline"):
        assert pair.missing[f"faces-{split}-width4-seed0"] == "evaluated on other images"


def test_the_whole_list_of_comparisons(section: RunGroup) -> None:
    pairs = comparisons(section, "val")
    assert [(p.first.split, p.first.vote, p.second.split, p.second.vote) for p in pairs] == [
        ("m1", "soft", "baseline", "soft"),
        ("m1", "hard", "baseline", "soft"),
        ("m2", "soft", "baseline", "soft"),
        ("m2", "hard", "baseline", "soft"),
        ("m3", "soft", "baseline", "soft"),
        ("m3", "hard", "baseline", "soft"),
        ("m1", "soft", "m1", "hard"),
        ("m2", "soft", "m2", "hard"),
        ("m3", "soft", "m3", "hard"),
    ]
    # The crops agree, so the votes do, on the same weights: the hard vote's own best epoch errs at image 9 besides.
    assert pairs[6].difference == 0
    assert accuracy(section, Method("m1", "hard"), "val").mean == pytest.approx(0.8)


def logits(*crops: int) -> np.ndarray:
    """Logits [V, 7] of crops that decide so, the last by more than all others together."""
    margins = [*[1.0] * (len(crops) - 1), 10.0]
    return np.stack([margin * np.eye(7)[crop] for crop, margin in zip(crops, margins, strict=True)])


def test_votes_are_compared_on_the_same_weights(tmp_path: Path) -> None:
    """By the logits of the soft vote's best epoch, whatever the hard vote's own epoch says."""
    for seed in (0, 1, 2):
        words = [*WORDS, "split=m1", f"seed={seed}"]
        decided = {"val": wrong_at([0])}
        run = make_run(tmp_path, words, decided, LABELS, hard={"val": wrong_at(list(range(10)))})
        # Two of three crops see the label; the last outweighs them in the soft vote, wrongly at images 0, 1 and 2.
        wrong = np.array([(label + 1) % 7 if i < 3 else label for i, label in enumerate(LABELS)])
        of_image = [logits(label, label, last) for label, last in zip(LABELS, wrong, strict=True)]
        names = np.array([f"image {i}" for i in range(10)])
        np.savez(run.predictions_file("soft", "val"), logits=np.stack(of_image), labels=np.array(LABELS), names=names)
    section = load_runs(tmp_path).group("faces", "width4")
    (pair,) = compare(section, [(Method("m1", "soft"), Method("m1", "hard"))], "val")
    assert pair.difference == pytest.approx(-0.3)
    assert pair.p_values == {seed: pytest.approx(2 / 8) for seed in (0, 1, 2)}
    assert pair.holm == {seed: pytest.approx(3 * 2 / 8) for seed in (0, 1, 2)}


def test_p_values_are_corrected_for_all_of_the_table(section: RunGroup) -> None:
    pairs = comparisons(section, "val")
    raw = [p for pair in pairs for p in pair.p_values.values()]
    assert (
        len(raw) == 2 + 2 + 1 + 1 + 2 + 1 + 1
    )  # m1, m2 twice each against the baseline; m1, m2, m3 against themselves
    assert [p for pair in pairs for p in pair.holm.values()] == holm(raw)
    assert all(pair.holm.keys() == pair.p_values.keys() for pair in pairs)


def test_damaged_predictions_leave_the_accuracy_and_are_listed_as_missing(output_dir: Path) -> None:
    runs = load_runs(output_dir)
    path = runs.group("faces", "width4").finished("m1")[0].run.predictions_file("soft", "val")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    try:
        section = runs.group("faces", "width4", seeds=[0, 1])
        (pair,) = compare(section, [(Method("m1", "soft"), Method("baseline", "soft"))], "val")
        assert pair.difference == pytest.approx(0.3)
        assert pair.missing == {"faces-m1-width4-seed0": "predictions/soft-val.npz is damaged"}
        assert accuracy(section, Method("m1", "soft"), "val").mean == pytest.approx(0.9)
    finally:
        path.write_bytes(whole)


def test_confusion_is_summed_and_recalls_are_averaged(section: RunGroup) -> None:
    runs = section.finished("baseline")
    counts = confusion(runs, "soft", "val")
    assert counts is not None
    expected = np.zeros((7, 7), int)
    for seed in (0, 1):
        for label, decided in zip(LABELS, wrong_at(WRONG["baseline", seed]), strict=True):
            expected[label, decided] += 1
    assert counts.tolist() == expected.tolist()
    recall = recalls(runs, "soft", "val")
    assert recall is not None
    assert recall["neutral"] == pytest.approx(0.5)  # one of two, under both seeds
    assert recall["surprise"] == pytest.approx(0.5)  # none of one, then one of one
    assert recalls(runs[1:], "soft", "val") != recall
    assert confusion(section.finished("input"), "soft", "val") is None
    assert recalls([], "soft", "val") is None


@pytest.fixture(scope="module")
def refitted(tmp_path_factory: pytest.TempPathFactory) -> RunGroup:
    """Refits of seed 0, beside runs that are none, of two seeds."""
    folder = tmp_path_factory.mktemp("outputs")
    counts = dict(zip(CLASSES, np.bincount(LABELS).tolist(), strict=True))
    for split, images in {"baseline": [0, 1, 2], "m1": [3], "input": []}.items():
        words = [*WORDS, f"split={split}", "refit=true", "seed=0"]
        make_run(folder, words, {"test": wrong_at(images)}, LABELS, counts={"train": counts, "test": counts})
    for split, seed in itertools.product(("baseline", "m1"), (0, 1)):
        make_run(folder, [*WORDS, f"split={split}", f"seed={seed}"], {"val": LABELS, "test": LABELS}, LABELS)
    return load_runs(folder).group("faces", "width4", seeds=[0, 1])


@pytest.mark.slow
def test_refits_are_a_method_of_their_own(refitted: RunGroup) -> None:
    after = {one.method.split: one for one in accuracies(refitted, "test", refit="soft") if one.method.vote == "soft"}
    assert {split: one.mean for split, one in after.items()} == {
        "input": 1.0, "m1": pytest.approx(0.9), "m2": None, "m3": None, "baseline": pytest.approx(0.7),
    }  # fmt: skip
    assert after["m1"].missing == {"faces-m1-width4-refit_soft-seed1": "not run"}
    assert accuracy(refitted, Method("m1", "soft"), "test").seeds == {0: 1.0, 1: 1.0}
    reasons = accuracy(refitted, Method("m1", "soft", "soft"), "val").missing
    assert reasons["faces-m1-width4-refit_soft-seed0"] == "no val images"


def test_refits_are_compared_with_refits(refitted: RunGroup) -> None:
    pairs = comparisons(refitted, "test", refit="soft")
    assert {method.refit for pair in pairs for method in (pair.first, pair.second)} == {"soft"}
    by_methods = {(pair.first.split, pair.first.vote, pair.second.split): pair for pair in pairs}
    assert by_methods["input", "soft", "baseline"].difference == pytest.approx(0.3)
    of_m1 = by_methods["m1", "soft", "baseline"]
    assert (of_m1.difference, of_m1.part) == (pytest.approx(0.2), "test")
    assert of_m1.missing.keys() == {f"faces-{split}-width4-refit_soft-seed1" for split in ("m1", "baseline")}


def test_each_method_against_the_baseline_by_its_own_vote(refitted: RunGroup) -> None:
    methods = [Method("baseline", "soft", "soft"), Method("m1", "soft", "soft")]
    (pair,) = compare_with_baseline(refitted, methods)
    assert (pair.first, pair.second, pair.part) == (methods[1], methods[0], "test")
    assert pair.difference == pytest.approx(0.2)


# Cross-validation -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> RunGroup:
    """Three folds of 10, 10 and 5 images under two seeds; m1 of the second seed lacks fold 2, and the baseline of the
    second seed has fold 1 from other data."""
    folder = tmp_path_factory.mktemp("outputs")
    images = {0: LABELS, 1: LABELS, 2: LABELS[:5]}
    wrong = {"baseline": {0: [0, 1], 1: [0], 2: [0, 1, 2]}, "m1": {0: [0], 1: [], 2: [4]}}
    for split, seed, fold in itertools.product(wrong, (0, 1), images):
        if (split, seed, fold) == ("m1", 1, 2):
            continue
        labels, decided = images[fold], wrong_at(wrong[split][fold])[: len(images[fold])]
        words = ["dataset=folder", "dataset.root=CK", "dataset.folds=3", f"dataset.fold={fold}", f"split={split}"]
        other = (split, seed, fold) == ("baseline", 1, 1)
        data = {"folds": {"number": 3, "fingerprint": "other" if other else "all"}, "counts": {}}
        names = [f"fold {fold}, image {i}" for i in range(len(labels))]
        fingerprint = f"fold {fold}"
        words.append(f"seed={seed}")
        make_run(folder, words, {"test": decided}, labels, names=names, data=data, data_fingerprint=fingerprint)
    (group,) = load_runs(folder).groups()
    return group


def test_folds_are_pooled_by_seed_over_all_images(folded: RunGroup) -> None:
    assert folded.folds == (0, 1, 2)
    baseline = accuracy(folded, Method("baseline", "soft"), "test")
    assert baseline.seeds == {0: pytest.approx(19 / 25), 1: pytest.approx(10 / 15)}
    assert baseline.folds == {0: pytest.approx(0.8), 1: pytest.approx(0.9), 2: pytest.approx(0.4)}
    assert baseline.runs == 5
    lacking = f"CK-baseline-{folded.variant}-fold1-seed1"
    assert baseline.missing[lacking].startswith("other data: fingerprint other here, all in the other runs")
    m1 = accuracy(folded, Method("m1", "soft"), "test")
    assert m1.seeds == {0: pytest.approx(23 / 25), 1: pytest.approx(19 / 20)}
    assert m1.missing == {f"CK-m1-{folded.variant}-fold2-seed1": "not run"}
    recall = recalls(folded.finished("m1"), "soft", "test")
    assert recall is not None
    assert recall["neutral"] == pytest.approx((4 / 5 + 3 / 4) / 2)  # of each seed over its folds


def test_splits_are_compared_on_the_folds_that_every_seed_has(folded: RunGroup) -> None:
    (pair,) = compare(folded, [(Method("m1", "soft"), Method("baseline", "soft"))], "test")
    assert pair.images == 10  # only fold 0 is there of both splits under both seeds
    assert pair.difference == pytest.approx(0.1)
    assert pair.p_values.keys() == {0, 1}
    assert len(pair.missing) == 2
