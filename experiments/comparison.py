"""The comparison of the splits on a data set's test images: accuracy, cost, paired differences, curves, confusion."""

from functools import partial

from experiments.common import Report, origin
from fer_voting.results.compare import accuracies, comparisons, confusion
from fer_voting.results.cost import cost_points, mean_cost
from fer_voting.results.load import RunGroup
from fer_voting.results.plots import cost_figure, draw_confusion, save, split_curves_figure
from fer_voting.results.text import COMPARISON_NOTE, SPLIT_TITLES, accuracy_table, comparison_table
from fer_voting.runs.run import read_history
from fer_voting.system.messages import duration

NOTHING = "–"


def table_report(section: RunGroup) -> Report:
    """Accuracy of each split and vote on test, with its cost and the plot of both."""
    report = Report("table", f"{section.title}: accuracy on test and cost")
    found = accuracies(section, "test")
    table = accuracy_table(section, found)
    splits = list(dict.fromkeys(one.method.split for one in found))
    for header, key, digits in (
        ("MiB/image", "forward_mib_per_image", 2),
        ("GMACs/image", "gmacs", 3),
        ("images/s", "images_per_second", 0),
    ):
        costs = [mean_cost(section.finished(split), key) for split in splits]
        table.add_column(header, [NOTHING if cost is None else f"{cost:,.{digits}f}" for cost in costs])
    seconds = [mean_cost(section.finished(split), "seconds") for split in splits]
    table.add_column("a run took", [NOTHING if each is None else duration(each) for each in seconds])
    report.add_table(table)
    report.add(f"Accuracy in percent, mean ± standard deviation over seeds. {origin_line(section)}")
    ours, _ = cost_points(section, found)
    heading = f"Accuracy and cost on {section.title}, soft vote"
    if ours:
        report.add_plot("cost", partial(save, cost_figure(ours, [], heading, measure="test accuracy (%)")), heading)
    report.rows += [vars(one) | {"method": vars(one.method)} for one in found]
    return report


def comparison_report(section: RunGroup) -> Report:
    """Paired differences on test, training curves, and confusion of each split."""
    report = Report("comparison", f"{section.title}: the splits on the same test images")
    pairs = comparisons(section, "test")
    report.add_table(comparison_table(section, pairs))
    report.add(COMPARISON_NOTE)
    runs = {split: section.finished(split) for split in section.splits() if section.finished(split)}
    histories = {split: [read_history(run.run.metrics_file) for run in of_split] for split, of_split in runs.items()}
    if not runs:
        return report
    for stem, column, label, scale in (
        ("curves-loss", "train/loss", "training loss", 1.0),
        ("curves-accuracy", "val/soft/accuracy", "validation accuracy, soft vote (%)", 100.0),
    ):
        report.add_plot(
            stem, partial(save, split_curves_figure(histories, column, label, scale)), f"{label}, a line a run"
        )
    for split, of_split in runs.items():
        counts = confusion(of_split, "soft", "test")
        assert counts is not None  # every kept run has been tested
        title = f"{section.title}, {SPLIT_TITLES[split]}, soft vote, test, {runs_text(len(of_split))}"
        names = of_split[0].result["class_names"]
        report.add_plot(
            f"confusion-{split}", partial(draw_confusion, counts=counts, class_names=names, title=title), title
        )
    report.add(origin_line(section))
    report.rows += [vars(one) | {"first": vars(one.first), "second": vars(one.second)} for one in pairs]
    return report


def origin_line(section: RunGroup) -> str:
    results = [run.result for run in section.finished()]
    if not results:
        return "No run is finished yet."
    hours = sum(result["seconds"] for result in results) / 3600
    return f"{origin(results)} {runs_text(len(results))}, {hours:.1f} hours of training in all."


def runs_text(count: int) -> str:
    return "1 run" if count == 1 else f"{count} runs"
