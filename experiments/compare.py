"""Compare networks on one test part: `python -m experiments.compare RUN ... --against RUN ... [--against RUN ...]`.

The runs of a group are the seeds of one network, and of a cross-validation its folds; each `--against` begins another
group. The first group is compared with each of the others, whatever their data sets, splits and variants: by the same
seeds on the same images, which the content of their files tells, not their names. The folds of a seed are pooled. For
example, whether a larger batch changes m1:

    python -m experiments.compare faces-m1-batch_size64-seed{0,1,2} --against faces-m1-seed{0,1,2}

Trains nothing. Writes compare.md, .json, .tex and .csv into <output-dir>/tables.
"""

import csv
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.common import SYNTHETIC, Report, add_folders, make_parser, origin, publish
from fer_voting.data.tables import open_text
from fer_voting.results.compare import Comparison, Correct, compare_correct, correct_for_number, join_groups
from fer_voting.results.load import PARTS, Predictions, RunRecord, load_run
from fer_voting.results.table import Table
from fer_voting.results.text import INTERVAL_NOTE, P_NOTE, comparison_table, mean_text
from fer_voting.runs.identity import different_values
from fer_voting.runs.run import Run
from fer_voting.votes import VOTES

Group = list[RunRecord]
"""The finished runs of one network, of different seeds or folds."""


def read_group(output_dir: Path, names: Sequence[str]) -> Group:
    """Raises ValueError if a run is not there or not finished, or if they are no seeds of one network."""
    runs: Group = []
    for name in dict.fromkeys(names):
        run = Run(output_dir, name)
        if not run.dir.is_dir():
            raise ValueError(f"there is no run {name} in {run.dir.parent}")
        record = load_run(run)
        if record.problem:
            raise ValueError(f"{name} is {record.problem}: only finished runs are compared")
        first = runs[0] if runs else record
        row = ({"split": one.split, "refit": one.refit, "folds": one.fold is not None} for one in (first, record))
        network, expected = (one.recipe | own for one, own in zip((first, record), row, strict=True))
        if different := different_values(network, expected):
            raise ValueError(f"{first.name} and {name} are no seeds of one network ({different})")
        if same := [one.name for one in runs if (one.seed, one.fold) == (record.seed, record.fold)]:
            what = f"seed, {record.seed}" if record.fold is None else f"seed and fold, {record.seed} and {record.fold}"
            raise ValueError(f"{same[0]} and {name} have the same {what}")
        runs.append(record)
    return runs


def title(group: Group) -> str:
    return re.sub(r"(-fold\d+)?-seed\d+$", "", group[0].name)


def read_correct(groups: Sequence[Group], part: str, vote: str) -> tuple[list[Correct], NDArray[np.str_] | None]:
    """Whether each network's vote was right about each image by seed, in one order of the images for all groups; and
    the groups that the images have, e.g. people, or None.

    Raises ValueError if groups have other seeds or folds, or runs other images or labels.
    """
    first = groups[0][0]
    expected_runs = {(one.seed, one.fold) for one in groups[0]}
    for group in groups:
        own = {(one.seed, one.fold) for one in group}
        if own != expected_runs:
            shown = [_runs_text(each) for each in (expected_runs, own)]
            raise ValueError(f"{title(groups[0])} has {shown[0]}, {title(group)} {shown[1]}: give runs of the same")
        if len(own) < len({seed for seed, _ in own}) * len({fold for _, fold in own}):
            raise ValueError(f"{title(group)} has {_runs_text(own)}: give every fold of every seed")
    runs = [run for group in groups for run in group]
    for run in runs:
        if "accuracy" not in (run.metrics(vote, part) or {}):
            raise ValueError(f"{run.name} has no {part} images, no {vote} vote, or no classes")
    digests = {
        (run.fold, run.result["data"].get("digests", {}).get(part, run.result["data_fingerprint"])) for run in runs
    }
    same_data = len(digests) == len({fold for fold, _ in digests})
    expected: NDArray[np.str_] | None = None
    words: NDArray[np.str_] | None = None
    correct: list[Correct] = []
    for group in groups:
        by_seed: dict[int, NDArray[np.bool_]] = {}
        for seed in sorted({run.seed for run in group}):
            of_seed = sorted((run for run in group if run.seed == seed), key=lambda run: run.fold or 0)
            read = [run.predictions(part) for run in of_seed]
            pairs = zip(of_seed, read, strict=True)
            keys = np.concatenate([one.names if same_data else _contents(run, part, one) for run, one in pairs])
            order = np.argsort(keys, kind="stable")
            if expected is None:
                expected = keys[order]
            if not np.array_equal(keys[order], expected):
                name = of_seed[0].name
                raise ValueError(f"{name} was evaluated on other images, or by other labels, than {first.name}")
            if words is None and (joined := join_groups(one.groups for one in read)) is not None:
                words = joined[order]
            by_seed[seed] = np.concatenate([one.correct(vote) for one in read])[order]
        correct.append(by_seed)
    return correct, words


def _runs_text(runs: Collection[tuple[int, int | None]]) -> str:
    seeds = ", ".join(map(str, sorted({seed for seed, _ in runs})))
    folds = ", ".join(map(str, sorted({fold for _, fold in runs if fold is not None})))
    return f"the seeds {seeds}" + (f" and the folds {folds}" if folds else "")


def _contents(run: RunRecord, part: str, predictions: Predictions) -> NDArray[np.str_]:
    """Content hash and class of each image, [N], by the manifest that the run's data set wrote."""
    name = f"{run.dataset}-{run.result['data_fingerprint'][:12]}.csv"
    folders = (Path(run.config["dataset"]["cache_dir"]), run.run.dir.parent.parent / "packs")
    path = next((p for folder in folders if (p := folder / "manifests" / name).is_file()), None)
    if path is None:
        raise ValueError(f"{run.name} has other data than the others, and the list of its images, {name}, is not there")
    with open_text(path) as file:
        hashes = [row["hash"] for row in csv.DictReader(file) if row["part"] == part]
    if len(hashes) != len(predictions.labels):
        raise ValueError(f"{path} does not list the {part} images of {run.name}")
    classes = run.result["class_names"]
    return np.array([f"{one} {classes[label]}" for one, label in zip(hashes, predictions.labels, strict=True)])


def compare_groups(groups: Sequence[Group], part: str, vote: str) -> Report:
    """The report of the first group against each other one."""
    correct, words = read_correct(groups, part, vote)
    titles = [title(group) for group in groups]
    pairs = correct_for_number(
        [
            Comparison(titles[0], name, part, **compare_correct(correct[0], other, groups=words))
            for name, other in zip(titles[1:], correct[1:], strict=True)
        ]
    )
    report = Report("compare", f"{titles[0]} against {', '.join(titles[1:])}")
    accuracies = Table(["network", "seeds", f"{part} (%)"], [], left=2, best={f"{part} (%)"})
    for name, of_group in zip(titles, correct, strict=True):
        shares = mean_text(float(right.mean()) for right in of_group.values())
        accuracies.rows.append([name, ", ".join(map(str, of_group)), shares])
    report.add_table(accuracies)
    report.add_table(comparison_table(None, pairs))
    report.add(
        f"The {vote} vote, by the weights of the soft vote's best epoch (of a refit, by its own). Differences in "
        f"percentage points, on the same images. {INTERVAL_NOTE} {P_NOTE}"
    )
    runs = [run for group in groups for run in group]
    if any(run.result["synthetic"] for run in runs):
        report.add(SYNTHETIC)
    report.add(origin([run.result for run in runs]))
    for group, pair in zip(groups[1:], pairs, strict=True):
        names = {"runs": [[run.name for run in one] for one in (groups[0], group)]}
        report.rows.append({"vote": vote, **names, **asdict(pair)})
    return report


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished runs by name, the seeds of one network")
    parser.add_argument(
        "--against", nargs="+", action="append", required=True, metavar="RUN", help="those of another; may be repeated"
    )
    parser.add_argument("--part", choices=PARTS, default="test", help="(default: %(default)s)")
    parser.add_argument("--vote", choices=list(VOTES), default="soft", help="(default: %(default)s)")
    add_folders(parser)
    options = parser.parse_args(arguments)
    try:
        groups = [read_group(options.output_dir, names) for names in (options.runs, *options.against)]
        report = compare_groups(groups, options.part, options.vote)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    publish(report, options.out or options.output_dir / "tables")


if __name__ == "__main__":
    main()
