"""Table 3 of the paper from finished runs: validation accuracy by split and vote. `make table3`.

Each variant also against the baseline, and the soft vote against the hard, on the same images; and the accuracy of
the splits against their cost. Nothing is trained: missing runs are listed with the command that makes them.
"""

from functools import partial

from experiments.common import Options, Report, parse_options, publish
from fer_voting.results.compare import accuracies, comparisons
from fer_voting.results.cost import cost_points
from fer_voting.results.load import RunGroup
from fer_voting.results.plots import cost_figure, save
from fer_voting.results.text import COMPARISON_NOTE, accuracy_table, comparison_table, title

UNCERTAIN = "The paper's 83.26 for RAF-DB's baseline is uncertain: its digits are printed over two columns."


def write_section(report: Report, options: Options, section: RunGroup) -> None:
    validation = accuracies(section, "val")
    pairs = comparisons(section, "val")
    report.add(f"## {title('Table 3', 'validation accuracy (%)', section)}")
    report.add_table(accuracy_table(section, validation))
    if section.dataset == "rafdb" and not section.setting:
        report.add(UNCERTAIN)
    if any(pair.difference is not None for pair in pairs):
        report.add("### On the same images")
        report.add_table(comparison_table(section, pairs))
        report.add(COMPARISON_NOTE)
    ours, theirs = cost_points(section, validation)
    heading = f"Accuracy and cost on {section.title}, soft vote"
    stem = f"table3-cost-{section.dataset}"
    if ours:
        report.add_plot(stem, partial(save, cost_figure(ours, theirs, heading)), heading)
    else:
        report.remove_plot(stem)
    report.add_notes(options, section, [*(a.missing for a in validation), *(p.missing for p in pairs)])
    report.add_rows(section, (*validation, *pairs))
    report.add_commands(options, section, section.splits())


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(__doc__, arguments)
    report = Report("table3", "Table 3: validation accuracy by split and vote")
    for section in options.sections(options.datasets):
        write_section(report, options, section)
    publish(report, options.out)


if __name__ == "__main__":
    main()
