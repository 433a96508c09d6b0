"""The comparison on FER2013 and what its predictions say besides: `make studies [ROOT=DIR]`.

With the data (`--root`), every finished run of the setting that is not kept yet is evaluated once, under every split
and at lower resolutions, and its predictions are kept in the folder, without faces (`experiments.kept`): on 2 cores a
few minutes a run of width 16. From what is kept, and from nothing else, the command writes

    table.md       accuracy and cost of each split, with the plot
    comparison.md  paired differences, curves, confusion
    studies.md     training split x test split, votes, number of crops, agreement, resolution, leaks, labels,
                   calibration, the adaptive vote

and updates the pages that show them. Runs that are missing are listed with the command that makes them; started again
when there are more, it goes on. Before the first run the tables say so.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments import resolution
from experiments.common import Report, publish
from experiments.comparison import comparison_report, origin_line, table_report
from experiments.kept import SPLITS, Faces, KeptRun, keep, read_faces, read_kept
from fer_voting.data.labels import CLASSES
from fer_voting.data.sets.ferplus import strict_majority
from fer_voting.models import VotingResNet18
from fer_voting.models.adaptive import adaptive_cost
from fer_voting.models.crops import CROPS
from fer_voting.results.calibration import reliability
from fer_voting.results.compare import TABLE_VOTES
from fer_voting.results.load import RunGroup, RunTable, load_runs
from fer_voting.results.markdown import Table
from fer_voting.results.missing import MissingRuns, missing_runs
from fer_voting.results.plots import INK, SPLIT_COLOURS, save
from fer_voting.results.statistics import paired_difference
from fer_voting.results.studies import agreeing_crops, area_under_roc, crop_choices, label_shares, mean_accuracy
from fer_voting.results.text import (
    SPLIT_TITLES,
    VOTE_TITLES,
    interval_over,
    mean_text,
    missing_lines,
    two_digits,
)
from fer_voting.system.messages import set_up_messages
from fer_voting.votes import (
    ALL_VOTES,
    VOTES,
    AdaptiveCost,
    AdaptiveVote,
    CropOutputs,
    Vote,
    certainty,
    fit_threshold,
)

FOLDER = Path("experiments/recorded/fer2013")
NOTHING = "–"
SHARES_OF_CROPS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Wished, of the adaptive vote."""
SAID = "what the predictions say"
DIFFERENCES = (
    "Differences are in percentage points, with 95 % bootstrap intervals in brackets, over what the last column says."
)

Correct = Mapping[int, NDArray[np.bool_]]
"""Seed -> whether the network of that seed was right about each image, [N]."""
BySplit = Mapping[str, Sequence[KeptRun]]
"""Split of the training -> its kept runs by seed; only splits that have one."""


# --- the studies ----------------------------------------------------------------------------------------------------


def studies_report(section: RunGroup, runs: BySplit, faces: Faces) -> Report:
    """What the kept predictions say beyond the comparison."""
    report = Report("studies", f"{section.title}: {SAID}")
    report.add(
        f"{len(faces.labels):,} test images. Accuracies are in percent, mean ± standard deviation over seeds, by the "
        "weights of the soft vote's best epoch."
    )
    _splits(report, runs)
    _votes(report, runs)
    _crops(report, section, runs)
    _agreement(report, section, runs)
    _resolution(report, section, runs)
    _leaks(report, runs, faces)
    _labels(report, runs, faces)
    _calibration(report, runs)
    _adaptive(report, section, runs)
    report.add(origin_line(section))
    return report


def _add(report: Report, study: str, table: Table, note: str) -> None:
    report.add_table(table)
    report.add(note)
    report.rows += [{"study": study} | dict(zip(table.header, row, strict=True)) for row in table.rows]


def _splits(report: Report, runs: BySplit) -> None:
    def correct(split: str, judged: str) -> Correct:
        return {
            run.run.seed: run.scores[judged].argmax(axis=1) == run.test.labels
            for run in runs.get(split, [])
            if judged in run.scores
        }

    report.add("## Training split and test split")
    table = Table(["trained with", "runs", *(f"judged as {judged}" for judged in SPLITS)], [])
    for split, of_split in runs.items():
        cells = [mean_text(right.mean() for right in correct(split, judged).values()) for judged in SPLITS]
        table.rows.append([SPLIT_TITLES[split], str(len(of_split)), *cells])
    note = "The parameters are the same under every split: every network judged under each, soft vote, test."
    _add(report, "splits", table, note)
    table = Table(["", "against", "difference", "over"], [], left=2)
    for split in (split for split in runs if split != "baseline"):
        whole = correct(split, "baseline")
        title = SPLIT_TITLES[split]
        for first, name, second, against in (
            (correct(split, split), f"{title}, its vote", whole, "the same network, whole map"),
            (whole, f"{title}, whole map", correct("baseline", "baseline"), "the network trained without crops"),
        ):
            table.rows.append([name, against, *_difference(first, second)])
    if table.rows:
        note = f"What voting adds at the test, and what training on crops adds to the whole map. {DIFFERENCES}"
        _add(report, "gain", table, note)


def _difference(first: Correct, second: Correct) -> tuple[str, str]:
    """`+0.45 (-0.10 to +1.02)` of the seeds that both have, and what the interval covers."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return NOTHING, NOTHING
    found = paired_difference(np.stack([first[seed] for seed in seeds]), np.stack([second[seed] for seed in seeds]))
    text = f"{100 * found.mean:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"
    return text, interval_over(len(seeds))


def _votes(report: Report, runs: BySplit) -> None:
    """Every vote on the same weights; what a vote is fitted on is validation."""
    voting = _voting(runs)
    if not voting:
        return
    report.add("## Votes")
    table = Table(["architecture", "runs", *ALL_VOTES], [])
    for split, of_split in voting.items():
        cells = []
        cost = _cost(split, of_split)
        for vote in ALL_VOTES.values():
            right = []
            for run in of_split:
                fitted = vote.fit(_outputs(run, "val"), run.val.labels, cost)
                decisions = fitted.scores(_outputs(run, "test")).argmax(dim=1).numpy()
                right.append(float((decisions == run.test.labels).mean()))
            cells.append(mean_text(right))
        table.rows.append([SPLIT_TITLES[split], str(len(of_split)), *cells])
    note = (
        "Every vote of the same logits, test; the weights of the weighted vote and the threshold of the adaptive vote, "
        "at half of the extra arithmetic, are fitted on validation."
    )
    _add(report, "votes", table, note)


def _outputs(run: KeptRun, part: str) -> CropOutputs:
    """The logits of the crops and of the full map; of a part, `val` or `test`."""
    crops, full_map = (run.val.logits, run.whole_val) if part == "val" else (run.test.logits, run.scores["baseline"])
    return CropOutputs(torch.from_numpy(crops), torch.from_numpy(full_map))


def _cost(split: str, runs: Sequence[KeptRun]) -> AdaptiveCost:
    config = runs[0].run.config
    net = VotingResNet18(split, runs[0].test.logits.shape[2], config["model"]["width"])
    return adaptive_cost(net, config["dataset"]["size"])


def _voting(runs: BySplit) -> BySplit:
    return {split: of_split for split, of_split in runs.items() if split != "baseline"}


def _crops(report: Report, section: RunGroup, runs: BySplit) -> None:
    choices = crop_choices()
    found = {
        (split, vote): {
            kind: [mean_accuracy(torch.from_numpy(run.test.logits), run.test.labels, vote, chosen) for run in of_split]
            for kind, chosen in choices.items()
        }
        for split, of_split in _voting(runs).items()
        for vote in TABLE_VOTES
    }
    report.add("## Number of crops")
    if not found:
        report.add("No finished run votes yet.")
        return
    table = Table(["architecture", "vote", "runs", *choices], [], left=2)
    for (split, vote), by_kind in found.items():
        cells = [mean_text(by_kind[kind]) for kind in choices]
        table.rows.append([SPLIT_TITLES[split], VOTE_TITLES[vote], str(len(runs[split])), *cells])
    _add(
        report,
        "crops",
        table,
        "Crops of one, two and all five places, without and with their mirror images; one and two places are the mean "
        "over all choices.",
    )

    def draw(axes: Axes) -> None:
        for (split, vote), by_kind in found.items():
            for mirrored, style in ((False, "--"), (True, "-")):
                kinds = [kind for kind in choices if ("with" in kind) == mirrored]
                means = [100 * float(np.mean(by_kind[kind])) for kind in kinds]
                if vote == "soft":
                    label = f"{split}, {'with mirror images' if mirrored else 'not mirrored'}"
                    counts = [int(kind.split(",")[0]) for kind in kinds]
                    axes.plot(counts, means, style, marker="o", ms=4, color=SPLIT_COLOURS[split], label=label)
        axes.set_xlabel("crops")
        axes.set_xticks([1, 2, 4, 5, 10])

    heading = f"Accuracy by number of crops on {section.title}, soft vote"
    report.add_plot("crops", partial(_plot, draw, heading, "test accuracy (%)"), heading)


def _agreement(report: Report, section: RunGroup, runs: BySplit) -> None:
    voting = _voting(runs)
    if not voting:
        return
    report.add("## Agreement of the crops")
    levels = [CROPS, CROPS - 1, CROPS - 2, CROPS - 3, CROPS - 4]
    names = [*map(str, levels), f"under {levels[-1]}"]
    by_level: dict[str, list[list[float]]] = {}
    table = Table(["crops that agree", *(f"{split}: {what}" for split in voting for what in ("images", "right"))], [])
    columns: list[list[str]] = []
    areas = Table(["architecture", "runs", "agreement", "confidence of the soft vote", "… of the softmax vote"], [])
    for split, of_split in voting.items():
        shares: list[list[float]] = [[] for _ in names]
        right: list[list[float]] = [[] for _ in names]
        scores: dict[str, list[float]] = {"agreement": [], "soft": [], "softprob": []}
        for run in of_split:
            logits = torch.from_numpy(run.test.logits)
            correct = run.test.correct("soft")
            agreeing = agreeing_crops(logits, "soft")
            for i, level in enumerate([*levels, None]):
                chosen = agreeing < levels[-1] if level is None else agreeing == level
                shares[i].append(float(chosen.mean()))
                if chosen.any():
                    right[i].append(float(correct[chosen].mean()))
            scores["agreement"].append(area_under_roc(agreeing, correct))
            for vote in ("soft", "softprob"):
                confidence = VOTES[vote].probabilities(CropOutputs(logits)).amax(dim=1).numpy()
                scores[vote].append(area_under_roc(confidence, run.test.correct(vote)))
        by_level[split] = right
        columns += [[mean_text(each) for each in shares], [mean_text(each) for each in right]]
        known = ([area for area in areas_of if not np.isnan(area)] for areas_of in scores.values())
        areas.rows.append([SPLIT_TITLES[split], str(len(of_split)), *map(mean_text, known)])
    table.rows.extend([name, *cells] for name, *cells in zip(names, *columns, strict=True))
    note = "How many of the ten crops decide as the soft vote does: share of the images, and of right ones among them."
    _add(report, "agreement", table, note)
    _add(
        report,
        "doubt",
        areas,
        "Area under the ROC curve in percent: how often a right decision has more agreement, or more confidence, than "
        "a wrong one. 50 is chance. Each confidence is judged on its own vote's decisions.",
    )

    def draw(axes: Axes) -> None:
        for split, right in by_level.items():
            means = [100 * float(np.mean(each)) if each else np.nan for each in right]
            axes.plot(range(len(names)), means, marker="o", ms=4, color=SPLIT_COLOURS[split], label=split)
        axes.set_xticks(range(len(names)), names)
        axes.set_xlabel("crops that agree with the soft vote")

    heading = f"Accuracy by agreement of the crops on {section.title}"
    report.add_plot("agreement", partial(_plot, draw, heading, "test accuracy (%)"), heading)


def _resolution(report: Report, section: RunGroup, runs: BySplit) -> None:
    report.add("## Resolution")
    rows: list[resolution.Row] = []
    for split, of_split in runs.items():
        for run in of_split:
            about: dict[str, Any] = {"network": run.run.name.removesuffix(f"-seed{run.run.seed}"), "run": run.run.name}
            about |= {"trained_split": split, "split": split, "part": "test"}
            classes = run.test.logits.shape[2]
            for side, by_vote in sorted(run.decisions.items()):
                for vote, decisions in by_vote.items():
                    figures = resolution.figures(run.test.labels, decisions, classes)
                    rows.append(about | {"vote": vote, "resolution": side} | figures)
    of_network = {row["network"]: SPLIT_TITLES[row["split"]] for row in rows}
    table = resolution.table(rows)
    cells = [[of_network[network], vote, *rest] for network, _, vote, *rest in table.rows]
    table = Table(["architecture", *table.header[2:]], cells, left=2)
    sides = sorted({row["resolution"] for row in rows})
    note = (
        f"Test images brought down to as many pixels a side and back to {max(sides)}. Always the most frequent class: "
        f"{100 * rows[0]['majority']:.2f}."
    )
    _add(report, "resolution", table, note)
    gains = Table(["against the baseline", "vote", *(f"{side} px" for side in sides), "over"], [], left=2)

    def correct(run: KeptRun, side: int, vote: str) -> NDArray[np.bool_]:
        return run.decisions[side][vote] == run.test.labels

    for split, of_split in _voting(runs).items():
        for vote in TABLE_VOTES[:2]:
            found = [
                _difference(
                    {run.run.seed: correct(run, side, vote) for run in of_split},
                    {run.run.seed: correct(run, side, "soft") for run in runs.get("baseline", [])},
                )
                for side in sides
            ]
            gains.rows.append([SPLIT_TITLES[split], vote, *(text for text, _ in found), found[0][1]])
    if gains.rows:
        note = f"Whether the vote helps more on small faces: networks of the same seed. {DIFFERENCES}"
        _add(report, "gain by resolution", gains, note)
    heading = f"Accuracy by resolution on {section.title}"
    report.add_plot("resolution", partial(resolution.draw, rows=rows, title=heading), heading)


def _leaks(report: Report, runs: BySplit, faces: Faces) -> None:
    report.add("## Leaks")
    kinds = {"also in Training": faces.in_training, "not in Training": ~faces.in_training}
    header = [f"{kind} ({chosen.sum():,})" for kind, chosen in kinds.items()]
    table = Table(["architecture", "vote", "runs", *header], [], left=2)
    for split, of_split in runs.items():
        for vote in TABLE_VOTES if split != "baseline" else TABLE_VOTES[:1]:
            shares = [
                mean_text(float(run.test.correct(vote)[chosen].mean()) for run in of_split) if chosen.any() else NOTHING
                for chosen in kinds.values()
            ]
            table.rows.append([SPLIT_TITLES[split], vote, str(len(of_split)), *shares])
    dropped = {run.run.config["dataset"].get("drop_leaks") for of_split in runs.values() for run in of_split}
    seen = {True: "were left out of", False: "were in"}
    how = " or ".join(seen[bool(each)] for each in sorted(dropped, key=bool, reverse=True))
    note = (
        f"Test images whose very pixels also occur in the official Training part, and the others. They {how} training."
    )
    _add(report, "leaks", table, note)


def _labels(report: Report, runs: BySplit, faces: Faces) -> None:
    report.add("## Labels")
    if faces.votes is None:
        report.add("fer2013new.csv was not beside the csv: nothing is known of other labels.")
        return
    names = next(iter(runs.values()))[0].run.result["class_names"]
    assert names == list(CLASSES[: len(names)])  # the order of the votes' columns
    majority = strict_majority(faces.votes, len(names))
    header = ["by FER2013's label", "by FER+'s majority", "errors", "label's", "network's", "neither's"]
    table = Table(["architecture", "vote", "runs", *header], [], left=2)
    agree = images = 0.0
    for split, of_split in runs.items():
        for vote in TABLE_VOTES if split != "baseline" else TABLE_VOTES[:1]:
            found = [label_shares(run.decisions[_size(run)][vote], faces.labels, majority) for run in of_split]
            agree, images = found[0].labels_agree, found[0].images
            shares = ("by_label", "by_other")
            cells = [mean_text(getattr(one, key) for one in found) for key in shares]
            cells.append(mean_text(one.errors / one.images for one in found))
            cells += [mean_text(getattr(one, key) for one in found) for key in ("of_label", "of_network", "of_neither")]
            table.rows.append([SPLIT_TITLES[split], vote, str(len(of_split)), *cells])
    _add(
        report,
        "labels",
        table,
        f"On the {images:,} test images on which more than half of FER+'s ten votes are for one of the classes; on "
        f"{100 * agree:.2f} % of them that is FER2013's label. Errors are by FER2013's label. Of these, in percent: "
        "label's, where the decision is FER+'s majority; network's, where both labels agree against it; neither's, "
        "where the labels differ and it is neither.",
    )


def _size(run: KeptRun) -> int:
    return max(run.decisions)


def _calibration(report: Report, runs: BySplit) -> None:
    report.add("## Calibration")
    table = Table(["architecture", "vote", "runs", "error", "temperature", "error with it"], [], left=2)
    for split, of_split in runs.items():
        for vote in VOTES if split != "baseline" else ["soft"]:
            fits = [VOTES[vote].fit(CropOutputs(torch.from_numpy(run.val.logits)), run.val.labels) for run in of_split]
            before = [_calibration_error(run, VOTES[vote]) for run in of_split]
            after = [_calibration_error(run, fit) for run, fit in zip(of_split, fits, strict=True)]
            fitted = any(fit != VOTES[vote] for fit in fits)
            cells = [mean_text(before)]
            cells += (
                [two_digits(float(np.mean([fit.temperature for fit in fits]))), mean_text(after)]
                if fitted
                else [NOTHING, NOTHING]
            )
            table.rows.append([SPLIT_TITLES[split], vote, str(len(of_split)), *cells])
    note = (
        "Expected calibration error on test in percent, 15 bins, before and after the temperature that validation "
        f"fitted; {NOTHING} where a vote's scores are shares, which no temperature changes."
    )
    _add(report, "calibration", table, note)


def _calibration_error(run: KeptRun, vote: Vote) -> float:
    probabilities = vote.probabilities(CropOutputs(torch.from_numpy(run.test.logits)))
    confidence, decisions = probabilities.max(dim=1)
    return reliability(confidence.numpy(), decisions.numpy() == run.test.labels).error


def _adaptive(report: Report, section: RunGroup, runs: BySplit) -> None:
    """Accuracy against mean cost where the crops are computed of the uncertain faces alone."""
    voting = _voting(runs)
    if not voting:
        return
    report.add("## The adaptive vote")
    table = Table(["architecture", "crops computed (wished)", "on test", "GMACs/image", "runs", "accuracy"], [])
    curves: dict[str, tuple[list[float], list[float]]] = {}
    for split, of_split in voting.items():
        cost = _cost(split, of_split)
        curves[split] = [], []
        for wished in SHARES_OF_CROPS:
            found = [_decide_adaptively(run, wished) for run in of_split]
            share = float(np.mean([computed for computed, _ in found]))
            accuracies_here = [accuracy for _, accuracy in found]
            curves[split][0].append(cost.mean(share))
            curves[split][1].append(100 * float(np.mean(accuracies_here)))
            cells = [f"{wished:.0%}", f"{share:.1%}", f"{cost.mean(share):.3f}", str(len(of_split))]
            table.rows.append([SPLIT_TITLES[split], *cells, mean_text(accuracies_here)])
        table.rows.append(
            [
                f"{SPLIT_TITLES[split]}, soft vote",
                NOTHING,
                NOTHING,
                f"{cost.cost_vote:.3f}",
                str(len(of_split)),
                mean_text(float(run.test.correct("soft").mean()) for run in of_split),
            ]
        )
    _add(
        report,
        "adaptive",
        table,
        "The whole map decides where it is certain, the soft vote of the crops elsewhere; what is computed up to the "
        "cut serves both. The threshold is the one at which the wished share of the validation images has its crops "
        "computed.",
    )

    def draw(axes: Axes) -> None:
        for split, (costs, accuracies_here) in curves.items():
            axes.plot(costs, accuracies_here, marker="o", ms=4, color=SPLIT_COLOURS[split], label=split)
        axes.set_xlabel("multiply-accumulates (billions an image, mean)")

    heading = f"Accuracy of the adaptive vote by its cost on {section.title}"
    report.add_plot("adaptive", partial(_plot, draw, heading, "test accuracy (%)"), heading)


def _decide_adaptively(run: KeptRun, wished: float) -> tuple[float, float]:
    """The share of the test images whose crops are computed, and the accuracy.

    Args:
        wished: share of the validation images, which sets the threshold.
    """
    threshold = fit_threshold(certainty(torch.from_numpy(run.whole_val)).numpy(), wished)
    vote, outputs = AdaptiveVote("adaptive", threshold=threshold), _outputs(run, "test")
    decisions = vote.scores(outputs).argmax(dim=1).numpy()
    computed = vote.undecided(outputs.require_full_map()).float().mean().item()
    return computed, float((decisions == run.test.labels).mean())


def _plot(draw: Callable[[Axes], None], title: str, measure: str, path: Path) -> None:
    figure = Figure(figsize=(6, 3.8))
    axes = figure.add_subplot()
    draw(axes)
    axes.set_ylabel(measure, color=INK)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)


# --- the command ----------------------------------------------------------------------------------------------------


def keep_finished(options: argparse.Namespace, names: Iterable[str]) -> None:
    """Evaluate the runs that the folder lacks. Raises as `resolution.open_run` and `kept.keep` do."""
    for name in names:
        trained = resolution.open_run(options.output_dir, name, "test", options.root)
        done = keep(trained, options.folder)
        print(f"{name}: {'evaluated and kept' if done else 'was kept before'}", flush=True)


def write(folder: Path, dataset: str, setting: str) -> MissingRuns | None:
    """Write the tables and plots of what a folder keeps; returns the command for the runs that it lacks.

    Before the first run the tables say so. Raises ValueError if a file is damaged.
    """
    stored = replace(load_runs(folder), output_dir=Path("outputs"))  # a command must not train into the folder
    section = stored.group(dataset, setting)
    reports = [table_report(section), comparison_report(section)]
    if section.finished():
        faces = read_faces(folder)
        runs = {
            split: [read_kept(run, run.config["dataset"]["size"]) for run in section.finished(split)]
            for split in SPLITS
            if section.finished(split)
        }
        for run in (run for of_split in runs.values() for run in of_split):
            if not np.array_equal(run.test.names.astype(np.int64), faces.rows):
                raise ValueError(f"{run.run.name} was evaluated on other images than faces.npz has")
        reports.append(studies_report(section, runs, faces))
    else:
        reports.append(Report("studies", f"{section.title}: {SAID}"))
        reports[-1].add("No run is finished yet.")
    missing = missing_lines([section.missing(split) for split in section.splits()])
    for report in reports:
        if missing and report.name != "table":
            report.add("\n".join(f"- {line}" for line in missing))
        publish(report, folder, ("png",))
    return missing_runs(stored, section, section.splits())


def parse_options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="finished runs to keep (default: all of the setting)")
    parser.add_argument(
        "--root", type=Path, help="folder of fer2013.csv (and fer2013new.csv); without it nothing is kept"
    )
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="holds what is kept (default: %(default)s)")
    parser.add_argument("--dataset", default="fer2013", help="name of the runs' data set (default: %(default)s)")
    parser.add_argument("--setting", default="fer2013", help="of the runs, as in their names (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.runs and options.root is None:
        parser.error("to keep runs, give the folder of fer2013.csv: --root DIR")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(arguments)
    set_up_messages()
    torch.set_float32_matmul_precision("highest")  # as a training's default, tf32=false
    torch.backends.cudnn.allow_tf32 = False
    try:
        if options.root is not None:
            there: RunTable = load_runs(options.output_dir)
            finished = there.group(options.dataset, options.setting).finished()
            keep_finished(options, options.runs or [run.name for run in finished])
        options.folder.mkdir(parents=True, exist_ok=True)
        missing = write(options.folder, options.dataset, options.setting)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if missing:
        print(f"For what is missing, this command and then `make studies` again:\n\n{missing}\n")


if __name__ == "__main__":
    main()
