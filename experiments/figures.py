"""Figures 4, 5 and 6 of the paper: `python -m experiments.figures figure4`, or `make figure4`.

    figure4  images of each class, by the audit of a data set (`python -m fer_voting.audit`), which counts its official
             parts; without an audit by a finished run, whose validation images may be a share of the training part
    figure5  confusion matrix on the test set of AffectNet, of the crops after module 1 by the soft vote, after refit
             (without where no refit was run; the caption says which)
    figure6  the same on RAF-DB

Nothing is trained: missing runs are listed with the command that makes them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from experiments.common import Options, Report, belongs_to, parse_options, publish
from fer_voting.results.compare import Method, confusion, normalise_confusion
from fer_voting.results.load import RunGroup
from fer_voting.results.missing import audit_command
from fer_voting.results.paper import paper
from fer_voting.results.plots import draw_class_distribution, draw_confusion
from fer_voting.results.table import Table
from fer_voting.results.text import confusion_table, describe, title
from fer_voting.system.atomic import read_json
from fer_voting.system.text import counted

BEST = Method("m1", "soft", refit="soft")
"""The network that the paper's validation selects, retrained."""

Counts = Mapping[str, Mapping[str, int]]
"""Part -> class -> images."""


def class_distribution(options: Options) -> Report:
    """Figure 4."""
    report = Report("figure4", "Figure 4: class distributions")
    for group in options.groups():
        counts, source, of_group = find_counts(options, group)
        report.add(f"## {title('Figure 4', 'class distribution', of_group)}")
        stem = f"figure4-{group.dataset}"
        if counts is None:
            report.remove_plot(stem)
            report.commands.append(f"# minutes: every image is decoded once\n{audit_command(options.runs, group)}")
        else:
            draw = partial(draw_class_distribution, parts=counts, name=group.dataset, synthetic=group.synthetic)
            report.add_plot(stem, draw, f"Images of each class of {of_group.title}")
            classes = list(next(iter(counts.values())))
            rows = [[p, *(f"{of[c]:,}" for c in classes), f"{sum(of.values()):,}"] for p, of in counts.items()]
            report.add_table(Table(["images", *classes, "all"], rows))
        report.add(f"{source[0].upper()}{source[1:]}.")
        report.rows.append({"dataset": group.dataset, "variant": group.variant, "source": source, "counts": counts})
    return report


def find_counts(options: Options, group: RunGroup) -> tuple[Counts | None, str, RunGroup]:
    """Images of each part and class, their source, and the runs that they belong to; without counts, the reason.

    The official parts are the same under every variant; a run's own parts are those of its variant.
    """
    every_variant = options.runs.group(group.dataset)
    audit = options.runs.output_dir / "audit" / group.dataset / "audit.json"
    if audit.exists():
        try:
            return read_json(audit)["parts"], "official parts, as the audit counted them", every_variant
        except (ValueError, KeyError, TypeError):
            return None, "damaged: audit.json", every_variant
    if runs := group.finished():
        return runs[0].result["counts"], f"as the run {runs[0].name} divided them", group
    return None, "not run", every_variant


def confusion_figure(name: str, figure_of: str, options: Options) -> Report:
    """Figure 5 (`figure_of` AffectNet) or Figure 6 (RAF-DB), normalised by the actual class."""
    what = name.replace("figure", "Figure ")
    report = Report(name, f"{what}: confusion matrix on the test set")
    for group in options.groups(belongs_to(figure_of, options.datasets)):
        report.add(f"## {title(what, 'confusion matrix', group)}")
        refits = group.finished(BEST.split, BEST.refit)
        runs = refits or group.finished(BEST.split)
        counts = confusion(runs, BEST.vote, "test")
        stem = f"{name}-{group.dataset}"
        if counts is None:
            report.remove_plot(stem)
            report.add("Not run.")
        else:
            class_names = runs[0].result["class_names"]
            how = "after refit" if refits else "without refit"
            caption = f"{group.title}, {describe(BEST)}, test, {how}, {counted(len(runs), 'run')}"
            draw = partial(draw_confusion, counts=counts, class_names=class_names, title=caption)
            report.add_plot(stem, draw, caption)
            share = 100 * normalise_confusion(counts)
            report.add_table(confusion_table(counts, class_names))
            summed = f"summed over {counted(len(runs), 'run')}"
            report.add(f"In percent of the actual class (columns; section 3.4), {how}, {summed}.")
            if group.dataset == figure_of:
                report.add("### What the paper says of its figure")
                report.add_table(STATEMENTS[name](share, class_names))
            row: dict[str, Any] = {"split": BEST.split, "vote": BEST.vote, "refit": bool(refits)}
            row |= {"runs": [run.name for run in runs], "class_names": class_names}
            row |= {"counts": counts.tolist(), "normalised": normalise_confusion(counts).tolist()}
            report.rows.append({"dataset": group.dataset, "variant": group.variant, **row})
        report.add_notes(options, group, [group.missing(BEST.split, BEST.refit)])
        report.add_commands(options, group, [BEST.split], BEST.refit)
    report.add_if_empty(options)
    return report


def _affectnet_statements(share: np.ndarray, class_names: list[str]) -> Table:
    """Section 4 on Figure 5 next to the shares here: percent [actual class, decision]."""
    stated = paper()["figure5_affectnet"]
    happy, disgust, anger = map(class_names.index, ("happy", "disgust", "anger"))
    others = np.delete(share.diagonal(), happy)
    low, high = stated["other_classes_recall_range"]
    rows = [
        ["recall of happy", f"{stated['happy_recall']:.2f}", f"{share[happy, happy]:.2f}"],
        ["recall of the other classes", f"{low:.2f} to {high:.2f}", f"{others.min():.2f} to {others.max():.2f}"],
        ["disgust taken for anger", f"{stated['disgust_as_anger']:.1f}", f"{share[disgust, anger]:.1f}"],
        ["anger taken for disgust", f"{stated['anger_as_disgust']:.1f}", f"{share[anger, disgust]:.1f}"],
    ]
    return Table(["percent", "paper", "here"], rows)


def _rafdb_statements(share: np.ndarray, class_names: list[str]) -> Table:
    """Section 4 on Figure 6 next to the shares here: percent [actual class, decision]."""
    stated = paper()["figure6_rafdb"]
    happy, disgust, neutral, sad, fear = map(class_names.index, ("happy", "disgust", "neutral", "sad", "fear"))
    missed = share[disgust, neutral] + share[disgust, sad]
    wrongly_fear = np.delete(share[:, fear], fear).max()
    about, over = stated["disgust_as_neutral_or_sad_about"], stated["fear_false_negatives_over"]
    most = stated["fear_false_positives_at_most"]
    rows = [
        ["recall of happy", f"{stated['happy_recall']:.2f}", f"{share[happy, happy]:.2f}"],
        ["disgust taken for neutral or sad", f"about {about:.0f}", f"{missed:.1f}"],
        ["fear not recognised", f"over {over:.0f}", f"{100 - share[fear, fear]:.1f}"],
        ["another class taken for fear", f"at most {most:.0f}", f"at most {wrongly_fear:.1f}"],
    ]
    return Table(["percent", "paper", "here"], rows)


STATEMENTS = {"figure5": _affectnet_statements, "figure6": _rafdb_statements}
FIGURES: dict[str, Callable[[Options], Report]] = {
    "figure4": class_distribution,
    "figure5": partial(confusion_figure, "figure5", "affectnet"),
    "figure6": partial(confusion_figure, "figure6", "rafdb"),
}


def main(arguments: list[str] | None = None) -> None:
    options = parse_options(__doc__, arguments, FIGURES)
    publish(FIGURES[options.name](options), options.out)


if __name__ == "__main__":
    main()
