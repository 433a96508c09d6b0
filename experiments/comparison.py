"""The comparison of the splits on a data set's test images: accuracy, cost, paired differences, curves, confusion."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

from experiments.common import Report, origin
from fer_voting.results.compare import accuracies, comparisons, confusion
from fer_voting.results.cost import cost_points, mean_cost
from fer_voting.results.load import RunGroup
from fer_voting.results.plots import cost_figure, draw_confusion, save, split_curves_figure
from fer_voting.results.text import COMPARISON_NOTE, NOTHING, SPLIT_TITLES, accuracy_table, comparison_table
from fer_voting.runs.run import read_history
from fer_voting.system.messages import duration
from fer_voting.system.text import counted

SHARED = "Runs shared a device, so their times are not shown."


def shared_a_device(results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether two of these results are of trainings at the same time on devices of the same name.

    Their times then say little about the network. (Two equal devices of one machine look the same.)
    """
    by_device: dict[str, list[tuple[datetime, datetime]]] = {}
    for result in results:
        start = datetime.fromisoformat(result["started"])
        by_device.setdefault(result["device"], []).append((start, start + timedelta(seconds=result["seconds"])))
    return any(first[1] > second[0] for times in by_device.values() for first, second in pairwise(sorted(times)))


def table_report(group: RunGroup) -> Report:
    """Accuracy of each split and vote on test, with its cost and the plot of both."""
    report = Report("table", f"{group.title}: accuracy on test and cost")
    test = accuracies(group, "test")
    table = accuracy_table(group, test)
    splits = list(dict.fromkeys(one.method.split for one in test))
    shared = shared_a_device([run.result for run in group.finished()])
    columns = {
        "MiB/image": ("forward_mib_per_image", "{:,.2f}".format),
        "GMACs/image": ("gmacs", "{:,.3f}".format),
        "images/s": ("images_per_second", "{:,.0f}".format),
        "a run took": ("seconds", duration),
    }
    for header, (key, text_of) in list(columns.items())[: 2 if shared else None]:
        costs = [mean_cost(group.finished(split), key) for split in splits]
        table.add_column(header, [NOTHING if cost is None else text_of(cost) for cost in costs])
    report.add_table(table)
    report.add(f"Accuracy in percent, mean ± standard deviation over seeds. {origin_line(group)}")
    points, _ = cost_points(group, test)
    heading = f"Accuracy and cost on {group.title}, soft vote"
    if points:
        report.add_plot("cost", partial(save, cost_figure(points, [], heading, measure="test accuracy (%)")), heading)
    report.rows += [vars(one) | {"method": vars(one.method)} for one in test]
    return report


def comparison_report(group: RunGroup) -> Report:
    """Paired differences on test, training curves, and confusion of each split."""
    report = Report("comparison", f"{group.title}: the splits on the same test images")
    pairs = comparisons(group, "test")
    report.add_table(comparison_table(group, pairs))
    report.add(COMPARISON_NOTE)
    runs = {split: group.finished(split) for split in group.splits() if group.finished(split)}
    if not runs:
        return report
    histories = {split: [read_history(run.run.metrics_file) for run in of_split] for split, of_split in runs.items()}
    for stem, column, label, scale in (
        ("curves-loss", "train/loss", "training loss", 1.0),
        ("curves-accuracy", "val/soft/accuracy", "validation accuracy, soft vote (%)", 100.0),
    ):
        draw = partial(save, split_curves_figure(histories, column, label, scale))
        report.add_plot(stem, draw, f"{label}, a line a run")
    for split, of_split in runs.items():
        counts = confusion(of_split, "soft", "test")
        assert counts is not None  # every kept run has been tested
        title = f"{group.title}, {SPLIT_TITLES[split]}, soft vote, test, {counted(len(of_split), 'run')}"
        names = of_split[0].result["class_names"]
        plot = partial(draw_confusion, counts=counts, class_names=names, title=title)
        report.add_plot(f"confusion-{split}", plot, title)
    report.add(origin_line(group))
    report.rows += [vars(one) | {"first": vars(one.first), "second": vars(one.second)} for one in pairs]
    return report


def origin_line(group: RunGroup) -> str:
    results = [run.result for run in group.finished()]
    if not results:
        return "No run is finished yet."
    hours = sum(result["seconds"] for result in results) / 3600
    time = f", {hours:.1f} hours of training in all." if not shared_a_device(results) else f". {SHARED}"
    return f"{origin(results)} {counted(len(results), 'run')}{time}"
