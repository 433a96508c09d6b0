"""A cross-validation with people kept apart, from the trainings to the pooled table."""

import numpy as np
import pytest
from helpers.datasets import class_image, save
from helpers.train import TINY, train_here

from fer_voting.results.compare import Method, accuracy, compare, confusion
from fer_voting.results.load import RunGroup, RunTable, load_runs
from fer_voting.results.missing import missing_runs
from fer_voting.results.sweep_table import sweep_table
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep, job_overrides

LABELS = ("happy", "sad", "anger")
FOLDS = 3
SEQUENCES = 2 * 6


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep of two splits over the folds of six people, each with two sequences of their last three frames."""
    root = tmp_path_factory.mktemp("cv")
    for number in range(SEQUENCES):
        label = LABELS[number % 3]
        for frame in (10, 11, 12):
            name = f"S{number // 2 + 10:03d}_{number:03d}_{frame:08d}.png"
            save(root / "CK" / label / name, class_image(label, 20 * number + frame))
    words = [
        *(word for word in TINY if not word.startswith("dataset")),
        *("dataset=folder", f"dataset.root={root / 'CK'}", r"dataset.group='S\d+'", f"dataset.folds={FOLDS}"),
        *("dataset.size=24", "dataset.batch_size=12", "dataset.fold=0,1,2", "split=baseline,m3"),
    ]
    jobs = []
    for overrides in job_overrides(words):
        train_here(root / "outputs", *overrides)
        name = next(r.name for r in (root / "outputs/runs").iterdir() if r.name not in {job["run"] for job in jobs})
        jobs.append({"overrides": overrides, "run": name, "voting": "soft", "needs": []})
    sweep = Sweep(root / "outputs/sweeps/cv")
    sweep.write(words, jobs)
    return sweep


@pytest.mark.slow  # six trainings of a second
def test_folds_are_pooled_from_the_trainings_to_the_table(swept: Sweep) -> None:
    group = _group(swept)
    assert [run.name for run in group.finished("m3")] == [
        f"CK-m3-{group.variant}-fold{fold}-seed0" for fold in range(FOLDS)
    ]
    assert (group.seeds, group.folds) == ((0,), (0, 1, 2))
    of_folds = [run.predictions("test") for run in group.finished("m3")]
    names = np.concatenate([one.names for one in of_folds])
    assert len(names) == len(set(names)) == 3 * SEQUENCES  # each image is tested once
    people = [{name.split("/")[1][:4] for name in one.names} for one in of_folds]
    assert sum(map(len, people)) == len(set().union(*people)) == 6
    right = np.concatenate([one.correct("soft") for one in of_folds])
    pooled = accuracy(group, Method("m3", "soft"), "test")
    assert pooled.mean == pytest.approx(right.mean())
    counts = confusion(group.finished("m3"), "soft", "test")
    assert counts is not None
    assert counts.sum() == 3 * SEQUENCES
    (pair,) = compare(group, [(Method("m3", "soft"), Method("baseline", "soft"))], "test")
    assert (pair.images, pair.groups) == (3 * SEQUENCES, 6)
    for one in of_folds:
        assert one.groups is not None
        assert one.groups.tolist() == [name.split("/")[1][:4] for name in one.names]
    table, unfinished, _ = sweep_table(swept)
    assert unfinished == 0
    assert "Not comparable" not in table
    assert f"## {group.title}, 3 folds: test accuracy (%)" in table
    row = next(line for line in table.splitlines() if line.startswith("| crops after module 3 ") and "3 of 3" in line)
    assert f"{100 * right.mean():.2f}" in row
    assert "(6 groups only, one seed)" in table
    assert "### m3, soft vote: decisions over the folds (%)" in table


def _group(sweep: Sweep) -> RunGroup:
    (group,) = load_runs(sweep.output_dir).groups()
    return group


@pytest.mark.slow
def test_a_missing_fold_is_named_and_its_command_given(swept: Sweep) -> None:
    runs = load_runs(swept.output_dir)
    left = RunTable(runs.output_dir, [r for r in runs.runs if (r.split, r.fold) != ("m3", 1)], {})
    (group,) = left.groups()
    lacking = f"CK-m3-{group.variant}-fold1-seed0"
    pooled = accuracy(group, Method("m3", "soft"), "test")
    assert pooled.missing == {lacking: "not run"}
    assert (pooled.runs, pooled.folds.keys()) == (2, {0, 2})
    # Compared on the folds that both have.
    (pair,) = compare(group, [(Method("m3", "soft"), Method("baseline", "soft"))], "test")
    assert pair.images == sum(len(run.predictions("test").labels) for run in group.finished("m3"))
    gap = missing_runs(left, group, ["baseline", "m3"])
    assert gap is not None
    assert gap.jobs == 1
    assert "split=m3 seed=0 dataset.fold=1" in gap.command
    assert Run(swept.output_dir, lacking).status() == "finished"  # the name is the run's
