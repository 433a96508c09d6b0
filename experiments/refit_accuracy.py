"""Tables 4 and 5: accuracy on the test set after refit, next to the published methods."""

from experiments.common import Report, datasets_of, parse_options, publish
from fer_voting.results.compare import Accuracy, Method, accuracy, compare_with_baseline
from fer_voting.results.load import RunGroup
from fer_voting.results.markdown import Table
from fer_voting.results.paper import paper, paper_test_accuracy
from fer_voting.results.text import (
    COMPARISON_NOTE,
    NO_TEST,
    accuracy_text,
    comparison_table,
    describe,
    title,
    two_digits,
)

REFIT = "soft"
"""The vote by which the paper selects."""
REFIT_MEANS = (
    "After refit: trained on training and validation images for as many epochs as the selection found best, then "
    "tested once (section 3.3). Without: the selected network itself."
)
PAPER_SPLITS = ("m1", "baseline")
"""What the paper refits: its best, and the baseline."""


def write_table(name: str, table_of: str, description: str | None, arguments: list[str] | None) -> None:
    """The whole script of Table 4 (`table_of` AffectNet) or Table 5 (RAF-DB)."""
    options = parse_options(description, arguments)
    what = name.replace("table", "Table ")
    report = Report(name, f"{what}: test accuracy, next to the published methods")
    for section in options.sections(datasets_of(table_of, options.datasets)):
        splits = [s for s in section.splits(REFIT) if s in PAPER_SPLITS or section.finished(s, refit=None)]
        after = [accuracy(section, Method(split, "soft", REFIT), "test") for split in splits]
        before = [accuracy(section, Method(split, "soft"), "test") for split in splits]
        pairs = compare_with_baseline(section, [one.method for one in after], "test")
        report.add(f"## {title(what, 'test accuracy (%)', section)}")
        report.add_table(_ours(section, after, before))
        report.add(REFIT_MEANS)
        if any(pair.difference is not None for pair in pairs):
            report.add("### On the same images, after refit")
            report.add_table(comparison_table(section, pairs))
            report.add(COMPARISON_NOTE)
        if section.dataset == table_of:
            report.add("### Next to the published methods")
            report.add_table(_next_to_published(name, after))
        report.add_notes(options, section, [*(a.missing for a in after), *(p.missing for p in pairs)])
        report.add_rows(section, (*after, *before, *pairs))
        report.add_commands(options, section, splits)
        if section.lacks_test:
            report.add(NO_TEST)
        else:
            report.add_commands(options, section, splits, REFIT)
    if not report.markdown:
        report.add(f"None of the data sets asked for ({', '.join(options.datasets)}) belongs here.")
    publish(report, options.out)


def _ours(section: RunGroup, after: list[Accuracy], before: list[Accuracy]) -> Table:
    table = Table(["network", "runs", "after refit", "runs", "without refit"], [])
    papers = [None if section.setting else paper_test_accuracy(section.dataset, one.method) for one in after]
    for refitted, selected in zip(after, before, strict=True):
        cells = [
            cell
            for one in (refitted, selected)
            for cell in (f"{len(one.seeds)} of {len(section.seeds)}", accuracy_text(one))
        ]
        table.rows.append([describe(refitted.method), *cells])
    if any(papers):
        table.header.insert(3, "paper")
        for row, value in zip(table.rows, papers, strict=True):
            row.insert(3, two_digits(value))
    return table


def _next_to_published(name: str, after: list[Accuracy]) -> Table:
    """The paper's table, its own rows called so, with ours below."""
    key = next(key for key in paper() if key.startswith(f"{name}_"))
    rows = [
        [method.replace("(ours)", "(the paper's)"), str(year), f"{size}×{size}", two_digits(value)]
        for method, year, size, value in paper()[key]
    ]
    rows += [[f"{describe(one.method)} (here)", "", "48×48", accuracy_text(one)] for one in after]
    return Table(["method", "year", "image size", "accuracy (%)"], rows)
