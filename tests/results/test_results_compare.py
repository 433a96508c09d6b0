"""Figures over seeds and paired comparisons, with decisions whose statistics were computed by hand."""

from pathlib import Path

import numpy as np
import pytest
from made_runs import make_run

from fer_voting.results.compare import Judge, accuracies, accuracy, compare, comparisons, confusion, recalls
from fer_voting.results.load import Section, load_runs

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
def section(output_dir: Path) -> Section:
    return load_runs(output_dir).section("faces", "width4", seeds=[0, 1])


def test_accuracies_over_seeds(section: Section) -> None:
    figures = {(f.judge.split, f.judge.vote): f for f in accuracies(section, "val")}
    assert [key for key in figures if key[0] == "baseline"] == [("baseline", "soft")]
    assert figures["baseline", "soft"].seeds == {0: pytest.approx(0.6), 1: pytest.approx(0.7)}
    assert figures["baseline", "soft"].mean == pytest.approx(0.65)
    assert figures["baseline", "soft"].std == pytest.approx(0.1 / 2**0.5)
    assert figures["m1", "soft"].mean == pytest.approx(0.9)
    assert figures["m1", "hard"].mean == pytest.approx(0.8)
    assert figures["m2", "soft"].std is None
    assert figures["m2", "soft"].holes == {"faces-m2-width4-seed1": "not run"}
    no_test = accuracy(section, Judge("m3", "soft"), "test")
    assert no_test.mean is None
    assert no_test.holes["faces-m3-width4-seed0"] == "no test figures of the soft vote"


def test_against_the_baseline_on_the_same_images(section: Section) -> None:
    pair = compare(section, Judge("m1", "soft"), Judge("baseline", "soft"), "val")
    # Seed 0: right where the baseline is wrong at 0, 1, 2; wrong where it is right at 4. Seed 1: 0, 1, 2; nowhere.
    assert pair.images == 10
    assert pair.difference == pytest.approx((0.2 + 0.3) / 2)
    assert pair.p_values == {0: pytest.approx(2 * (1 + 4) / 16), 1: pytest.approx(2 / 8)}
    assert pair.low is not None
    assert pair.high is not None
    assert -0.2 < pair.low < pair.difference < pair.high < 0.7
    assert pair.holes == {}


def test_only_seeds_that_both_have_are_compared(section: Section) -> None:
    pair = compare(section, Judge("m2", "soft"), Judge("baseline", "soft"), "val")
    assert pair.difference == 0
    assert pair.p_values == {0: 1.0}
    assert pair.holes == {"faces-m2-width4-seed1": "not run"}


def test_other_images_are_not_compared(section: Section) -> None:
    pair = compare(section, Judge("m3", "soft"), Judge("baseline", "soft"), "val")
    assert pair.difference is None
    assert pair.holes["faces-m3-width4-seed0"] == "judged other images"


def test_the_whole_list_of_comparisons(section: Section) -> None:
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
    # m1's hard vote errs at image 9 besides, under each seed.
    assert pairs[6].difference == pytest.approx(0.1)
    assert pairs[6].p_values == {0: 1.0, 1: 1.0}


def test_damaged_predictions_leave_the_accuracy_and_name_the_hole(output_dir: Path) -> None:
    runs = load_runs(output_dir)
    path = runs.section("faces", "width4").finished("m1")[0].run.predictions_file("soft", "val")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    try:
        section = runs.section("faces", "width4", seeds=[0, 1])
        pair = compare(section, Judge("m1", "soft"), Judge("baseline", "soft"), "val")
        assert pair.difference == pytest.approx(0.3)
        assert pair.holes == {"faces-m1-width4-seed0": "predictions/soft-val.npz is damaged"}
        assert accuracy(section, Judge("m1", "soft"), "val").mean == pytest.approx(0.9)
    finally:
        path.write_bytes(whole)


def test_confusion_is_summed_and_recalls_are_averaged(section: Section) -> None:
    records = section.finished("baseline")
    counts = confusion(records, "soft", "val")
    assert counts is not None
    expected = np.zeros((7, 7), int)
    for seed in (0, 1):
        for label, decided in zip(LABELS, wrong_at(WRONG["baseline", seed]), strict=True):
            expected[label, decided] += 1
    assert counts.tolist() == expected.tolist()
    recall = recalls(records, "soft", "val")
    assert recall is not None
    assert recall["neutral"] == pytest.approx(0.5)  # one of two, under both seeds
    assert recall["surprise"] == pytest.approx(0.5)  # none of one, then one of one
    assert confusion(section.finished("input"), "soft", "val") is None
    assert recalls([], "soft", "val") is None
