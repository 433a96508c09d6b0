"""Metrics of numbers with intervals, against NumPy, a plain bootstrap and values computed by hand."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.runs import make_run
from scipy.stats import norm, t

from fer_voting.results.compare import Method
from fer_voting.results.load import RunGroup, load_runs
from fer_voting.results.numbers import (
    METRICS,
    RESAMPLES,
    evaluate_numbers,
    number_difference_table,
    number_differences,
    number_figures,
    number_intervals,
    number_metrics,
    number_table,
)
from fer_voting.results.statistics import half_interval
from fer_voting.runs.run import Run
from fer_voting.system.arrays import write_npz
from fer_voting.targets import NUMBERS, ValenceArousal
from fer_voting.votes import ALL_VOTES, CropOutputs

IMAGES = 30


def numbers(seed: int, spread: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.random.default_rng(99).uniform(-1, 1, (IMAGES, 2))
    return 0.5 * labels + rng.normal(0.1, spread, labels.shape), labels


def test_metrics_are_those_of_a_training() -> None:
    scores, labels = numbers(0)
    ours, judged = number_metrics(scores, labels), ValenceArousal().judge(*map(torch.tensor, (scores, labels)), ())
    for metric in METRICS:
        assert ours[metric].tolist() == pytest.approx(list(judged[metric].values()), abs=1e-6)


def test_what_does_not_vary_correlates_with_nothing() -> None:
    ours = number_metrics(np.full((5, 1), 0.2), np.linspace(-1, 1, 5)[:, None])
    assert (ours["pearson"].item(), ours["ccc"].item()) == (0, 0)


def test_intervals_are_those_of_drawing_images_again_and_again() -> None:
    scores, labels = numbers(0)
    intervals = number_intervals(scores, labels)
    rng = np.random.default_rng(0)
    drawn = [rng.integers(IMAGES, size=IMAGES) for _ in range(RESAMPLES)]
    again = [number_metrics(scores[rows], labels[rows]) for rows in drawn]
    for metric in METRICS:
        expected = np.quantile([values[metric] for values in again], [0.025, 0.975], axis=0)
        np.testing.assert_allclose(intervals[metric], expected, atol=1e-9)


def test_intervals_over_groups_leave_out_one_at_a_time() -> None:
    scores, labels = numbers(0)
    people = np.resize(["ann", "bob", "cy", "dan", "eve", "ann"], IMAGES)
    intervals = evaluate_numbers(scores, labels, NUMBERS, people)
    assert intervals["groups"] == 5
    without = [number_metrics(scores[people != one], labels[people != one]) for one in np.unique(people)]
    for metric, values in number_metrics(scores, labels).items():
        for place, name in enumerate(NUMBERS):
            ends = np.clip(jackknife([each[metric][place] for each in without], values[place]), -1, 1)
            assert intervals["number_intervals"][metric][name] == pytest.approx(ends)
    alone = evaluate_numbers(scores, labels, NUMBERS, np.full(IMAGES, "ann"))
    assert alone == evaluate_numbers(scores, labels, NUMBERS) | {"groups": None}


def jackknife(without: list[float], value: float) -> tuple[float, float]:
    """Ends of the interval of a value, from that without each group."""
    groups = len(without)
    half = t.ppf(0.975, groups - 1) * math.sqrt((groups - 1) * np.var(without))
    return value - half, value + half


def test_half_an_interval_by_hand() -> None:
    z = norm.ppf(0.975)
    assert half_interval(0.04, [0.1, 0.3]) == pytest.approx(z * 0.2)  # too few seeds
    seeds = [0.1, 0.2, 0.3]  # standard error 0.1 / sqrt(3)
    expected = math.hypot(t.ppf(0.975, 2) * 0.1 / math.sqrt(3), z * 0.2)
    assert half_interval(0.04, seeds) == pytest.approx(expected)


# Runs -------------------------------------------------------------------------------------------------------------


def make_number_run(output_dir: Path, split: str, seed: int, spread: float, **more: np.ndarray) -> Run:
    """A finished run of three crops an image, the third far off, so that mean and median differ."""
    words = ["dataset=faces", "target=valence_arousal", f"split={split}", f"seed={seed}"]
    run = make_run(output_dir, words, {}, [0] * IMAGES, number_names=list(NUMBERS), class_names=[])
    scores, labels = numbers(seed, spread)
    crops = torch.tensor(np.stack([scores, scores, scores + 0.6], axis=1)).float()
    for vote in ("soft", "hard"):
        chosen = ALL_VOTES[vote].numbers(crops)
        arrays = ValenceArousal().to_arrays(CropOutputs(crops), chosen, torch.tensor(labels).float(), ())
        names = np.array([f"image {i}" for i in range(IMAGES)])
        write_npz(run.predictions_file(vote, "val"), **arrays, names=names, **more)
    return run


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> RunGroup:
    output_dir = tmp_path_factory.mktemp("numbers")
    for seed in range(3):
        make_number_run(output_dir, "baseline", seed, 0.5)
        make_number_run(output_dir, "m1", seed, 0.3)
    return load_runs(output_dir).group("faces", "valence_arousal")


def test_figures_of_a_group(group: RunGroup) -> None:
    assert (group.number_names, group.has_classes) == (list(NUMBERS), False)
    figures = {(f.first, f.number, f.metric): f for f in number_figures(group, "val")}
    soft = figures[Method("m1", "soft"), "arousal", "ccc"]
    for seed in range(3):
        scores, labels = numbers(seed)
        expected = number_metrics(np.float32(scores + 0.2), np.float32(labels))["ccc"][1]
        assert soft.seeds[seed] == pytest.approx(expected, abs=1e-6)
    assert soft.mean == pytest.approx(np.mean(list(soft.seeds.values())))
    assert soft.low is not None
    assert soft.high is not None
    assert soft.low < soft.mean < soft.high
    assert soft.images == IMAGES
    assert figures[Method("m1", "hard"), "arousal", "ccc"].seeds != soft.seeds
    absent = figures[Method("m2", "soft"), "valence", "rmse"]
    assert absent.mean is None
    assert absent.missing == {f"faces-m2-valence_arousal-seed{seed}": "not run" for seed in range(3)}


def test_differences_are_of_the_same_images_and_seeds(group: RunGroup) -> None:
    differences = {(f.first, f.second, f.metric): f for f in number_differences(group, "val") if f.number == "valence"}
    own = {(f.first, f.metric): f for f in number_figures(group, "val") if f.number == "valence"}
    pair = Method("m1", "soft"), Method("baseline", "soft")
    for metric in METRICS:
        expected = {s: own[pair[0], metric].seeds[s] - own[pair[1], metric].seeds[s] for s in range(3)}
        assert differences[*pair, metric].seeds == pytest.approx(expected)
    votes = differences[Method("m1", "soft"), Method("m1", "hard"), "rmse"]
    assert votes.mean is not None
    assert votes.mean == pytest.approx(np.mean(list(votes.seeds.values())))


def test_tables_of_a_group(group: RunGroup) -> None:
    table = number_table(number_figures(group, "val"))
    rows = {(row[0], row[1]): row for row in table.rows}
    assert table.header == ["architecture", "number", "runs", "RMSE", "r", "CCC", "SAGR", "CCC, 95 % interval"]
    row = rows["crops after module 1, soft vote", "valence"]
    ccc = next(
        f
        for f in number_figures(group, "val")
        if (f.first, f.number, f.metric) == (Method("m1", "soft"), "valence", "ccc")
    )
    deviation = np.std(list(ccc.seeds.values()), ddof=1)
    assert row[2] == "3"
    assert row[5] == f"{ccc.mean:.3f} ± {deviation:.3f}"
    assert row[7] == f"{ccc.low:.3f} to {ccc.high:.3f}"
    assert rows["crops after module 2, soft vote", "valence"][2:] == ["0", "–", "–", "–", "–", "–"]
    differences = number_difference_table(number_differences(group, "val"))
    assert {row[0] for row in differences.rows} == {
        "crops after module 1, soft vote – baseline",
        "crops after module 1, hard vote – baseline",
        "crops after module 1, soft vote – crops after module 1, hard vote",
    }


def test_intervals_of_runs_are_over_people_where_images_have_some(tmp_path: Path) -> None:
    """A difference of one seed, by hand; three seeds make its interval wider."""
    people = np.resize(["ann", "bob", "cy", "dan", "eve", "ann"], IMAGES)
    for seed in range(3):
        make_number_run(tmp_path, "baseline", seed, 0.5, groups=people)
        make_number_run(tmp_path, "m1", seed, 0.3, groups=people)
    runs = load_runs(tmp_path)
    one, three = (runs.group("faces", "valence_arousal", seeds) for seeds in ([0], [0, 1, 2]))
    first, second = (numbers(0, spread) for spread in (0.3, 0.5))

    def difference(kept: np.ndarray) -> float:
        pair = [np.float32(scores + 0.2)[kept] for scores, _ in (first, second)]
        return float(np.subtract(*(number_metrics(scores, np.float32(first[1][kept]))["ccc"][0] for scores in pair)))

    without = np.array([difference(people != name) for name in np.unique(people)])
    mean = difference(people != "")
    half = t.ppf(0.975, 4) * math.sqrt(4 / 5 * ((without - mean) ** 2).sum())
    figure, wider = (
        next(f for f in number_differences(each, "val") if (f.number, f.metric) == ("valence", "ccc"))
        for each in (one, three)
    )
    assert (figure.groups, figure.low, figure.high) == (5, pytest.approx(mean - half), pytest.approx(mean + half))
    assert wider.high - wider.low >= t.ppf(0.975, 2) * np.std(list(wider.seeds.values()), ddof=1) / math.sqrt(3)
    table = number_difference_table(number_differences(three, "val"))
    assert table.rows[0][-1] == f"{wider.low:+.3f} to {wider.high:+.3f} (5 groups and seeds)"


def test_a_run_on_other_images_is_left_out(tmp_path: Path) -> None:
    runs = [make_number_run(tmp_path, split, 0, 0.3) for split in ("baseline", "m1")]
    path = runs[0].predictions_file("soft", "val")
    with np.load(path) as file:
        arrays = dict(file)
    write_npz(path, **(arrays | {"names": arrays["names"][::-1]}))
    alone = load_runs(tmp_path).group("faces", "valence_arousal", [0])
    pairs = number_differences(alone, "val")
    assert all(not one.seeds for one in pairs if one.second == Method("baseline", "soft"))
    assert {name: reason for one in pairs for name, reason in one.missing.items()}[runs[0].name] == "other images"
    path.unlink()
    gone = next(one for one in number_figures(replace(alone), "val") if one.first.split == "baseline")
    assert gone.missing == {runs[0].name: "no val images"}
