"""The comparison on FER2013 and further analyses of its predictions: `make studies [ROOT=DIR]`.

With the data (`--root`), every finished run of the variant that is not kept yet is evaluated once, under every split
and at lower resolutions, and its predictions are kept in the folder, without faces (`experiments.kept`): on 2 cores a
few minutes a run of width 16. From what is kept, and from nothing else, the command writes

    table.md       accuracy and cost of each split, with the plot
    comparison.md  paired differences, curves, confusion
    studies.md     training split x test split, votes, number of crops, agreement, resolution, leaks, labels,
                   calibration, the adaptive vote

and updates the pages that show them. Runs that are missing are listed with the command that makes them; started again
when there are more, it goes on. Before the first run the tables say so.
"""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from experiments import resolution
from experiments.common import SPLITS, Report, make_parser, publish
from experiments.comparison import comparison_report, origin_line, table_report
from experiments.crop_analysis import agreeing_crops, area_under_roc, crop_choices, label_shares, mean_accuracy
from experiments.kept import Faces, KeptRun, keep, read_faces, read_kept
from fer_voting.data.labels import CLASSES
from fer_voting.data.sets.ferplus import strict_majority
from fer_voting.experiment import use_float32_precision
from fer_voting.models import VotingResNet18
from fer_voting.models.adaptive import adaptive_cost
from fer_voting.models.crops import CROPS
from fer_voting.results.calibration import reliability
from fer_voting.results.compare import Correct
from fer_voting.results.evaluation import confusion_counts
from fer_voting.results.load import RunGroup, load_runs
from fer_voting.results.missing import MissingRuns, missing_runs
from fer_voting.results.plots import INK, SPLIT_COLOURS, save
from fer_voting.results.table import Table
from fer_voting.results.text import (
    INTERVAL_NOTE,
    NOTHING,
    SPLIT_TITLES,
    interval_over,
    mean_text,
    missing_lines,
    two_digits,
    vote_title,
)
from fer_voting.system.messages import set_up_messages
from fer_voting.votes import (
    ALL_VOTES,
    PAPER_VOTES,
    VOTES,
    AdaptiveCost,
    AdaptiveVote,
    CropOutputs,
    Vote,
    certainty,
    fit_threshold,
)

FOLDER = Path("experiments/recorded/fer2013")
SHARES_OF_CROPS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
"""Shares of the images whose crops the adaptive vote may compute."""
HEADING = "what the predictions say"
DIFFERENCES = f"Differences are in percentage points, with 95 % intervals in brackets. {INTERVAL_NOTE}"

BySplit = Mapping[str, Sequence[KeptRun]]
"""Split of the training -> its kept runs by seed; only splits that have one."""


def analyse(group: RunGroup, runs: BySplit, faces: Faces) -> Report:
    """The report beyond the comparison."""
    report = Report("studies", f"{group.title}: {HEADING}")
    report.add(
        f"{len(faces.labels):,} test images. Accuracies are in percent, mean ± standard deviation over seeds, by the "
        "weights of the soft vote's best epoch."
    )
    voting = {split: of_split for split, of_split in runs.items() if split != "baseline"}
    _splits(report, runs)
    if voting:
        _votes(report, voting)
        _crops(report, group, voting)
        _agreement(report, group, voting)
    _resolution(report, group, runs)
    _leaks(report, runs, faces)
    _labels(report, runs, faces)
    _calibration(report, runs)
    if voting:
        _adaptive(report, group, voting)
    report.add(origin_line(group))
    return report


def _add(report: Report, study: str, table: Table, note: str) -> None:
    report.add_table(table)
    report.add(note)
    report.rows += [{"study": study} | dict(zip(table.header, row, strict=True)) for row in table.rows]


def _by_vote(runs: BySplit, votes: Iterable[str]) -> Iterator[tuple[str, Sequence[KeptRun], list[str]]]:
    """A vote, the runs of a split, and the first cells of their row; of the baseline, whose votes agree, one vote."""
    for split, of_split in runs.items():
        for vote in ["soft"] if split == "baseline" else votes:
            yield vote, of_split, [SPLIT_TITLES[split], vote, str(len(of_split))]


def _splits(report: Report, runs: BySplit) -> None:
    def correct(split: str, judged: str) -> Correct:
        return {
            run.run.seed: run.scores[judged].argmax(axis=1) == run.test.labels
            for run in runs.get(split, [])
            if judged in run.scores
        }

    report.add("## Training split and test split")
    by_split = [f"judged as {judged}" for judged in SPLITS]
    table = Table(["trained with", "runs", *by_split], [], best={*by_split})
    for split, of_split in runs.items():
        cells = [mean_text(right.mean() for right in correct(split, judged).values()) for judged in SPLITS]
        table.rows.append([SPLIT_TITLES[split], str(len(of_split)), *cells])
    note = "The parameters are the same under every split: every network judged under each, soft vote, test."
    _add(report, "splits", table, note)
    table = Table(["", "against", "difference", "over"], [], left=2)
    for split in (split for split in runs if split != "baseline"):
        full_map = correct(split, "baseline")
        title = SPLIT_TITLES[split]
        for first, name, second, against in (
            (correct(split, split), f"{title}, its vote", full_map, "the same network, whole map"),
            (full_map, f"{title}, whole map", correct("baseline", "baseline"), "the network trained without crops"),
        ):
            table.rows.append([name, against, *_difference(first, second)])
    if table.rows:
        note = f"The gain of voting at the test, and the gain of training on crops for the whole map. {DIFFERENCES}"
        _add(report, "gain", table, note)


def _difference(first: Correct, second: Correct) -> tuple[str, str]:
    """`+0.45 (-0.10 to +1.02)` of the seeds that both have, and what the interval covers."""
    text, seeds = resolution.difference_text(first, second)
    return text, interval_over(seeds) if seeds else NOTHING


def _votes(report: Report, voting: BySplit) -> None:
    """Every vote on the same weights, with parameters that are fitted on validation."""
    report.add("## Votes")
    table = Table(["architecture", "runs", *ALL_VOTES], [], best={*ALL_VOTES})
    for split, of_split in voting.items():
        cost = _cost(split, of_split)
        cells = []
        for vote in ALL_VOTES.values():
            fitted = [vote.fit(_outputs(run, "val"), run.val.labels, cost) for run in of_split]
            cells.append(mean_text(_accuracy(run, fit) for run, fit in zip(of_split, fitted, strict=True)))
        table.rows.append([SPLIT_TITLES[split], str(len(of_split)), *cells])
    note = (
        "Every vote of the same logits, test; the weights of the weighted vote and the threshold of the adaptive vote, "
        "at half of the extra arithmetic, are fitted on validation."
    )
    _add(report, "votes", table, note)


def _outputs(run: KeptRun, part: str) -> CropOutputs:
    """The logits of the crops and of the full map for "val" or "test"."""
    full_map = run.full_map_val if part == "val" else run.scores["baseline"]
    crops = run.val.logits if part == "val" else run.test.logits
    return CropOutputs(torch.from_numpy(crops), torch.from_numpy(full_map))


def _accuracy(run: KeptRun, vote: Vote) -> float:
    decisions = vote.scores(_outputs(run, "test")).argmax(dim=1).numpy()
    return float((decisions == run.test.labels).mean())


def _cost(split: str, runs: Sequence[KeptRun]) -> AdaptiveCost:
    config = runs[0].run.config
    net = VotingResNet18(split, runs[0].test.logits.shape[2], config["model"]["width"])
    return adaptive_cost(net, config["dataset"]["size"])


def _crops(report: Report, group: RunGroup, voting: BySplit) -> None:
    report.add("## Number of crops")
    choices = crop_choices()
    table = Table(["architecture", "vote", "runs", *choices], [], left=2, best={*choices})
    lines: list[dict[str, Any]] = []
    for split, of_split in voting.items():
        for vote in PAPER_VOTES:
            by_kind = {
                kind: [mean_accuracy(torch.from_numpy(r.test.logits), r.test.labels, vote, c) for r in of_split]
                for kind, c in choices.items()
            }
            cells = [mean_text(accuracies) for accuracies in by_kind.values()]
            table.rows.append([SPLIT_TITLES[split], vote_title(vote), str(len(of_split)), *cells])
            for mirrored, label, style in ((False, "not mirrored", "--"), (True, "with mirror images", "-")):
                kinds = [kind for kind in choices if ("with" in kind) == mirrored]
                if vote == "soft":
                    points = {int(kind.split(",")[0]): 100 * float(np.mean(by_kind[kind])) for kind in kinds}
                    look = {"ls": style, "color": SPLIT_COLOURS[split], "label": f"{split}, {label}"}
                    lines.append({"points": points, **look})
    note = (
        "Crops of one, two and all five places, without and with their mirror images; one and two places are the mean "
        "over all choices."
    )
    _add(report, "crops", table, note)
    heading = f"Accuracy by number of crops on {group.title}, soft vote"
    report.add_plot("crops", partial(_plot, lines, heading, "crops", {n: str(n) for n in (1, 2, 4, 5, 10)}), heading)


def _agreement(report: Report, group: RunGroup, voting: BySplit) -> None:
    report.add("## Agreement of the crops")
    least = CROPS - 4
    names = [*map(str, range(CROPS, least - 1, -1)), f"under {least}"]
    table = Table(["crops that agree", *(f"{split}: {what}" for split in voting for what in ("images", "right"))], [])
    table.rows.extend([name] for name in names)
    areas = Table(["architecture", "runs", "agreement", "confidence of the soft vote", "… of the softmax vote"], [])
    lines = []
    for split, of_split in voting.items():
        shares: list[list[float]] = [[] for _ in names]
        right: list[list[float]] = [[] for _ in names]
        scores: dict[str, list[float]] = {"agreement": [], "soft": [], "softprob": []}
        for run in of_split:
            logits = torch.from_numpy(run.test.logits)
            correct = run.test.correct("soft")
            agreeing = agreeing_crops(logits)
            levels = np.minimum(CROPS - agreeing, len(names) - 1)
            for level in range(len(names)):
                shares[level].append(float((levels == level).mean()))
                right[level] += [float(correct[levels == level].mean())] if (levels == level).any() else []
            scores["agreement"].append(area_under_roc(agreeing, correct))
            for vote in ("soft", "softprob"):
                confidence = VOTES[vote].probabilities(CropOutputs(logits)).amax(dim=1).numpy()
                scores[vote].append(area_under_roc(confidence, run.test.correct(vote)))
        for row, images, accuracies in zip(table.rows, shares, right, strict=True):
            row += [mean_text(images), mean_text(accuracies)]
        known = ([area for area in of_score if not np.isnan(area)] for of_score in scores.values())
        areas.rows.append([SPLIT_TITLES[split], str(len(of_split)), *map(mean_text, known)])
        means = {i: 100 * float(np.mean(each)) if each else np.nan for i, each in enumerate(right)}
        lines.append({"points": means, "color": SPLIT_COLOURS[split], "label": split})
    note = "How many of the ten crops decide as the soft vote does: share of the images, and of right ones among them."
    _add(report, "agreement", table, note)
    note = (
        "Area under the ROC curve in percent: how often a right decision has more agreement, or more confidence, than "
        "a wrong one. 50 is chance. Each confidence is judged on its own vote's decisions."
    )
    _add(report, "doubt", areas, note)
    heading = f"Accuracy by agreement of the crops on {group.title}"
    draw = partial(_plot, lines, heading, "crops that agree with the soft vote", dict(enumerate(names)))
    report.add_plot("agreement", draw, heading)


def _resolution(report: Report, group: RunGroup, runs: BySplit) -> None:
    report.add("## Resolution")
    rows: list[resolution.Row] = []
    for split, of_split in runs.items():
        for run in of_split:
            about = {"network": split, "run": run.run.name, "trained_split": split, "split": split, "part": "test"}
            for side, by_vote in sorted(run.decisions.items()):
                for vote, decisions in by_vote.items():
                    counts = confusion_counts(run.test.labels, decisions, run.test.logits.shape[2])
                    rows.append(about | {"vote": vote, "resolution": side} | resolution.figures(counts))
    table = resolution.table(rows)
    cells = [[SPLIT_TITLES[split], vote, *rest] for _, split, vote, *rest in table.rows]
    sides = sorted({row["resolution"] for row in rows})
    note = (
        f"Test images brought down to as many pixels a side and back to {max(sides)}. Always the most frequent class: "
        f"{100 * rows[0]['majority']:.2f}."
    )
    _add(report, "resolution", Table(["architecture", *table.header[2:]], cells, left=2, best=table.best), note)
    gains = Table(["against the baseline", "vote", *(f"{side} px" for side in sides), "over"], [], left=2)

    def correct(split: str, side: int, vote: str) -> Correct:
        return {run.run.seed: run.decisions[side][vote] == run.test.labels for run in runs.get(split, [])}

    for split in (split for split in runs if split != "baseline"):
        for vote in PAPER_VOTES[:2]:
            pairs = [_difference(correct(split, side, vote), correct("baseline", side, "soft")) for side in sides]
            gains.rows.append([SPLIT_TITLES[split], vote, *(text for text, _ in pairs), pairs[0][1]])
    if gains.rows:
        note = f"Whether the vote helps more on small faces: networks of the same seed. {DIFFERENCES}"
        _add(report, "gain by resolution", gains, note)
    heading = f"Accuracy by resolution on {group.title}"
    report.add_plot("resolution", partial(resolution.draw, rows=rows, title=heading), heading)


def _leaks(report: Report, runs: BySplit, faces: Faces) -> None:
    report.add("## Leaks")
    kinds = {"also in Training": faces.in_training, "not in Training": ~faces.in_training}
    header = [f"{kind} ({chosen.sum():,})" for kind, chosen in kinds.items()]
    table = Table(["architecture", "vote", "runs", *header], [], left=2)
    for vote, of_split, cells in _by_vote(runs, PAPER_VOTES):
        shares = (
            mean_text(float(run.test.correct(vote)[chosen].mean()) for run in of_split) if chosen.any() else NOTHING
            for chosen in kinds.values()
        )
        table.rows.append([*cells, *shares])
    dropped = {bool(run.run.config["dataset"].get("drop_leaks")) for of_split in runs.values() for run in of_split}
    texts = {True: "were left out of", False: "were in"}
    how = " or ".join(texts[each] for each in sorted(dropped, reverse=True))
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
    for vote, of_split, cells in _by_vote(runs, PAPER_VOTES):
        shares = [label_shares(run.decisions[max(run.decisions)][vote], faces.labels, majority) for run in of_split]
        table.rows.append([*cells, *(mean_text(each) for each in zip(*shares, strict=True))])
    agree = (majority == faces.labels)[majority >= 0]
    note = (
        f"On the {len(agree):,} test images on which more than half of FER+'s ten votes are for one of the classes; on "
        f"{100 * agree.mean():.2f} % of them that is FER2013's label. Errors are by FER2013's label. Of these, in "
        "percent: label's, where the decision is FER+'s majority; network's, where both labels agree against it; "
        "neither's, where the labels differ and it is neither."
    )
    _add(report, "labels", table, note)


def _calibration(report: Report, runs: BySplit) -> None:
    report.add("## Calibration")
    table = Table(["architecture", "vote", "runs", "error", "temperature", "error with it"], [], left=2)
    for vote, of_split, cells in _by_vote(runs, VOTES):
        fits = [VOTES[vote].fit(CropOutputs(torch.from_numpy(run.val.logits)), run.val.labels) for run in of_split]
        errors = [mean_text(_calibration_error(run, VOTES[vote]) for run in of_split), NOTHING, NOTHING]
        if any(fit != VOTES[vote] for fit in fits):
            errors[1] = two_digits(float(np.mean([fit.temperature for fit in fits])))
            errors[2] = mean_text(_calibration_error(run, fit) for run, fit in zip(of_split, fits, strict=True))
        table.rows.append([*cells, *errors])
    note = (
        "Expected calibration error on test in percent, 15 bins, before and after the temperature that validation "
        f"fitted; {NOTHING} where a vote's scores are shares, which no temperature changes."
    )
    _add(report, "calibration", table, note)


def _calibration_error(run: KeptRun, vote: Vote) -> float:
    probabilities = vote.probabilities(CropOutputs(torch.from_numpy(run.test.logits)))
    confidence, decisions = probabilities.max(dim=1)
    return reliability(confidence.numpy(), decisions.numpy() == run.test.labels)["error"]


def _adaptive(report: Report, group: RunGroup, voting: BySplit) -> None:
    """Accuracy against mean cost if the crops are computed only for the faces of which the full map is uncertain."""
    report.add("## The adaptive vote")
    table = Table(["architecture", "crops computed (wished)", "on test", "GMACs/image", "runs", "accuracy"], [])
    lines = []
    for split, of_split in voting.items():
        cost, count = _cost(split, of_split), str(len(of_split))
        points = {}
        for wished in SHARES_OF_CROPS:
            results = [_decide_adaptively(run, wished) for run in of_split]
            share = float(np.mean([computed for computed, _ in results]))
            accuracies = [accuracy for _, accuracy in results]
            points[cost.mean(share)] = 100 * float(np.mean(accuracies))
            cells = [f"{wished:.0%}", f"{share:.1%}", f"{cost.mean(share):.3f}", count]
            table.rows.append([SPLIT_TITLES[split], *cells, mean_text(accuracies)])
        soft = mean_text(float(run.test.correct("soft").mean()) for run in of_split)
        title = f"{SPLIT_TITLES[split]}, soft vote"
        table.rows.append([title, NOTHING, NOTHING, f"{cost.cost_vote:.3f}", count, soft])
        lines.append({"points": points, "color": SPLIT_COLOURS[split], "label": split})
    note = (
        "The whole map decides where it is certain, the soft vote of the crops elsewhere; what is computed up to the "
        "cut serves both. The threshold is the one at which the wished share of the validation images has its crops "
        "computed."
    )
    _add(report, "adaptive", table, note)
    heading = f"Accuracy of the adaptive vote by its cost on {group.title}"
    draw = partial(_plot, lines, heading, "multiply-accumulates (billions an image, mean)", {})
    report.add_plot("adaptive", draw, heading)


def _decide_adaptively(run: KeptRun, wished: float) -> tuple[float, float]:
    """The share of the test images whose crops are computed, and the accuracy.

    Args:
        wished: share of the validation images, which sets the threshold.
    """
    threshold = fit_threshold(certainty(torch.from_numpy(run.full_map_val)).numpy(), wished)
    vote = AdaptiveVote("adaptive", threshold=threshold)
    undecided = vote.undecided(torch.from_numpy(run.scores["baseline"]))
    return undecided.float().mean().item(), _accuracy(run, vote)


def _plot(lines: Sequence[Mapping[str, Any]], title: str, x_label: str, ticks: Mapping[int, str], path: Path) -> None:
    """Test accuracies in percent.

    Args:
        lines: `points` (x -> accuracy) and matplotlib's options of each line.
        ticks: position on the x axis -> label; without any, matplotlib's.
    """
    figure = Figure(figsize=(6, 3.8))
    axes = figure.add_subplot()
    for line in lines:
        look = {key: value for key, value in line.items() if key != "points"}
        axes.plot(list(line["points"]), list(line["points"].values()), marker="o", ms=4, **look)
    if ticks:
        axes.set_xticks(list(ticks), list(ticks.values()))
    axes.set_xlabel(x_label)
    axes.set_ylabel("test accuracy (%)", color=INK)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    save(figure, path)


def write(folder: Path, dataset: str, variant: str) -> MissingRuns | None:
    """Write the tables and plots of what a folder keeps; returns the command for the runs that it lacks.

    Before the first run the tables say so. Raises ValueError if a file is damaged.
    """
    stored = replace(load_runs(folder), output_dir=Path("outputs"))  # a command must not train into the folder
    group = stored.group(dataset, variant)
    reports = [table_report(group), comparison_report(group)]
    if group.finished():
        faces = read_faces(folder)
        by_split = {split: group.finished(split) for split in SPLITS if group.finished(split)}
        runs = {
            split: [read_kept(run, run.config["dataset"]["size"]) for run in of_split]
            for split, of_split in by_split.items()
        }
        for run in (run for of_split in runs.values() for run in of_split):
            if not np.array_equal(run.test.names.astype(np.int64), faces.rows):
                raise ValueError(f"{run.run.name} was evaluated on other images than faces.npz has")
        reports.append(analyse(group, runs, faces))
    else:
        reports.append(Report("studies", f"{group.title}: {HEADING}", ["No run is finished yet.\n"]))
    missing = missing_lines([group.missing(split) for split in group.splits()])
    for report in reports:
        if missing and report.name != "table":
            report.add("\n".join(f"- {line}" for line in missing))
        publish(report, folder, ("png",))
    return missing_runs(stored, group, group.splits())


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="finished runs to keep (default: all of the variant)")
    parser.add_argument(
        "--root", type=Path, help="folder of fer2013.csv (and fer2013new.csv); without it nothing is kept"
    )
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="holds what is kept (default: %(default)s)")
    parser.add_argument("--dataset", default="fer2013", help="name of the runs' data set (default: %(default)s)")
    parser.add_argument("--variant", default="fer2013", help="of the runs, as in their names (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.runs and options.root is None:
        parser.error("to keep runs, give the folder of fer2013.csv: --root DIR")
    set_up_messages()
    use_float32_precision(tf32=False)  # as a training's default
    try:
        if options.root is not None:
            finished = load_runs(options.output_dir).group(options.dataset, options.variant).finished()
            for name in options.runs or [run.name for run in finished]:
                done = keep(resolution.open_run(options.output_dir, name, "test", options.root), options.folder)
                print(f"{name}: {'evaluated and kept' if done else 'was kept before'}", flush=True)
        options.folder.mkdir(parents=True, exist_ok=True)
        missing = write(options.folder, options.dataset, options.variant)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    if missing:
        print(f"For what is missing, this command and then `make studies` again:\n\n{missing}\n")


if __name__ == "__main__":
    main()
