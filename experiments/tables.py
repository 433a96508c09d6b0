"""Tables 3, 4 and 5 of the paper from finished runs: `python -m experiments.tables table3`, or `make table3`.

    table3  validation accuracy by split and vote, differences on the same images, accuracy against cost
    table4  test accuracy on AffectNet after refit, next to the published methods
    table5  the same on RAF-DB

Nothing is trained: missing runs are listed with the command that makes them.
"""

from collections.abc import Callable
from functools import partial

from experiments.common import Options, Report, belongs_to, parse_options, publish
from fer_voting.results.compare import Accuracy, Method, accuracies, accuracy, compare_with_baseline, comparisons
from fer_voting.results.cost import cost_points
from fer_voting.results.load import RunGroup
from fer_voting.results.numbers import (
    NUMBERS_NOTE,
    number_difference_table,
    number_differences,
    number_figures,
    number_table,
)
from fer_voting.results.paper import paper, paper_test_accuracy
from fer_voting.results.plots import cost_figure, save
from fer_voting.results.table import Table
from fer_voting.results.text import accuracy_table, accuracy_text, describe, paper_note, runs_text, title, two_digits

REFIT = "soft"
"""The vote by which the paper selects."""
REFIT_NOTE = (
    "After refit: trained on training and validation images for as many epochs as the selection found best, then "
    "tested once (section 3.3). Without: the selected network itself."
)
PAPER_SPLITS = ("m1", "baseline")
"""The splits that the paper refits: its best, and the baseline."""


def validation_table(options: Options) -> Report:
    """Table 3."""
    groups = options.groups()
    measures = dict.fromkeys(measure for group in groups for measure in _measures(group))
    report = Report("table3", f"Table 3: {' and '.join(measures)} by split and vote")
    for group in groups:
        if group.number_names:
            _add_numbers(report, options, group)
        if not group.has_classes:
            continue
        validation = accuracies(group, "val")
        pairs = comparisons(group, "val")
        report.add(f"## {title('Table 3', 'validation accuracy (%)', group)}")
        report.add_table(accuracy_table(group, validation))
        if note := paper_note(group):
            report.add(note)
        report.add_comparisons("### On the same images", group, pairs)
        measured, published = cost_points(group, validation)
        heading = f"Accuracy and cost on {group.title}, soft vote"
        stem = f"table3-cost-{group.dataset}"
        if measured:
            report.add_plot(stem, partial(save, cost_figure(measured, published, heading)), heading)
        else:
            report.remove_plot(stem)
        report.add_notes(options, group, [*(a.missing for a in validation), *(p.missing for p in pairs)])
        report.add_rows(group, (*validation, *pairs))
        report.add_commands(options, group, group.splits())
    return report


def _measures(group: RunGroup) -> list[str]:
    """Measures that a table of validation shows: the accuracy of a group's classes, its numbers."""
    numbers = [f"validation of {' and '.join(group.number_names)}"] if group.number_names else []
    return [*(["validation accuracy"] if group.has_classes else []), *numbers]


def _add_numbers(report: Report, options: Options, group: RunGroup) -> None:
    """Table 3's form for numbers such as valence and arousal."""
    validation, pairs = number_figures(group, "val"), number_differences(group, "val")
    report.add(f"## {title('Table 3', _measures(group)[-1], group)}")
    report.add_table(number_table(validation))
    if any(one.seeds for one in pairs):
        report.add("### On the same images")
        report.add_table(number_difference_table(pairs))
    report.add(NUMBERS_NOTE)
    report.add_notes(options, group, [one.missing for one in (*validation, *pairs)])
    report.add_rows(group, (*validation, *pairs))
    report.add_commands(options, group, group.splits())


def refit_table(name: str, table_of: str, options: Options) -> Report:
    """Table 4 (`table_of` AffectNet) or Table 5 (RAF-DB)."""
    what = name.replace("table", "Table ")
    report = Report(name, f"{what}: test accuracy, next to the published methods")
    for group in options.groups(belongs_to(table_of, options.datasets)):
        splits = [s for s in group.splits(REFIT) if s in PAPER_SPLITS or group.finished(s, refit=None)]
        after = [accuracy(group, Method(split, "soft", REFIT), "test") for split in splits]
        before = [accuracy(group, Method(split, "soft"), "test") for split in splits]
        pairs = compare_with_baseline(group, [one.method for one in after])
        report.add(f"## {title(what, 'test accuracy (%)', group)}")
        report.add_table(_accuracies(group, after, before))
        report.add(REFIT_NOTE)
        report.add_comparisons("### On the same images, after refit", group, pairs)
        if group.dataset == table_of:
            report.add("### Next to the published methods")
            report.add_table(_published_table(name, after))
        report.add_notes(options, group, [*(a.missing for a in after), *(p.missing for p in pairs)])
        report.add_rows(group, (*after, *before, *pairs))
        report.add_commands(options, group, splits, REFIT)
    report.add_if_empty(options)
    return report


def _accuracies(group: RunGroup, after: list[Accuracy], before: list[Accuracy]) -> Table:
    table = Table(
        ["network", "runs", "after refit", "runs", "without refit"], [], best={"after refit", "paper", "without refit"}
    )
    published = [None if group.variant else paper_test_accuracy(group.dataset, one.method) for one in after]
    for pair in zip(after, before, strict=True):
        cells = [c for one in pair for c in (runs_text(group, one), accuracy_text(one))]
        table.rows.append([describe(pair[0].method), *cells])
    if any(published):
        table.header.insert(3, "paper")
        for row, value in zip(table.rows, published, strict=True):
            row.insert(3, two_digits(value))
    return table


def _published_table(name: str, after: list[Accuracy]) -> Table:
    """The paper's table, its own rows called so, with the accuracies measured here below."""
    key = next(key for key in paper() if key.startswith(f"{name}_"))
    rows = [
        [method.replace("(ours)", "(the paper's)"), str(year), f"{size}×{size}", two_digits(value)]
        for method, year, size, value in paper()[key]
    ]
    rows += [[f"{describe(one.method)} (here)", "", "48×48", accuracy_text(one)] for one in after]
    return Table(["method", "year", "image size", "accuracy (%)"], rows, best={"accuracy (%)"})


TABLES: dict[str, Callable[[Options], Report]] = {
    "table3": validation_table,
    "table4": partial(refit_table, "table4", "affectnet"),
    "table5": partial(refit_table, "table5", "rafdb"),
}


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(__doc__, arguments, TABLES)
    publish(TABLES[options.name](options), options.out)


if __name__ == "__main__":
    main()
