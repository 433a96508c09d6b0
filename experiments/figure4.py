"""Figure 4 of the paper: how many images of each class there are. `make figure4`.

From the audit of a data set (`python -m fer_voting.audit`), which counts its official parts, or where there is none
from a finished run, whose validation images may be a part of the official training images.
"""

from collections.abc import Mapping
from functools import partial

from experiments.common import Options, Report, parse_options, publish
from fer_voting.results.load import RunGroup
from fer_voting.results.markdown import Table
from fer_voting.results.missing import audit_command
from fer_voting.results.plots import draw_class_distribution
from fer_voting.results.text import title
from fer_voting.system.atomic import read_json

Counts = Mapping[str, Mapping[str, int]]


def find_counts(options: Options, section: RunGroup) -> tuple[Counts | None, str, RunGroup]:
    """Part -> class -> images, their source, and the section that they are of; None and the reason, if there are none.

    The official parts are the same under every setting; a run's own parts are those of its setting.
    """
    every_setting = options.runs.group(section.dataset)
    audit = options.runs.output_dir / "audit" / section.dataset / "audit.json"
    if audit.exists():
        try:
            report = read_json(audit)
            counts = report["parts"] if "parts" in report else report["splits"]  # the key of earlier versions
            return counts, "official parts, as the audit counted them", every_setting
        except (ValueError, KeyError, TypeError):
            return None, "damaged: audit.json", every_setting
    if runs := section.finished():
        return runs[0].result["counts"], f"as the run {runs[0].name} divided them", section
    return None, "not run", every_setting


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(__doc__, arguments)
    report = Report("figure4", "Figure 4: class distributions")
    for section in options.sections(options.datasets):
        counts, source, shown = find_counts(options, section)
        report.add(f"## {title('Figure 4', 'class distribution', shown)}")
        stem = f"figure4-{section.dataset}"
        if counts is None:
            report.remove_plot(stem)
            report.add(f"{source[0].upper()}{source[1:]}.")
            report.commands.append(f"# minutes: every image is decoded once\n{audit_command(options.runs, section)}")
        else:
            draw = partial(draw_class_distribution, parts=counts, name=section.dataset, synthetic=section.synthetic)
            report.add_plot(stem, draw, f"Images of each class of {shown.title}")
            classes = list(next(iter(counts.values())))
            rows = [[p, *(f"{of[c]:,}" for c in classes), f"{sum(of.values()):,}"] for p, of in counts.items()]
            report.add_table(Table(["images", *classes, "all"], rows))
            report.add(f"{source[0].upper()}{source[1:]}.")
        report.rows.append({"dataset": section.dataset, "setting": section.setting, "source": source, "counts": counts})
    publish(report, options.out)


if __name__ == "__main__":
    main()
