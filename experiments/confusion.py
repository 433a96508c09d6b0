"""Figures 5 and 6: the confusion matrix of the paper's best network on the test set, normalised by the actual class."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from experiments.common import Report, datasets_of, parse_options, publish
from fer_voting.results.compare import Method, confusion
from fer_voting.results.load import RunRecord
from fer_voting.results.markdown import Table
from fer_voting.results.paper import paper
from fer_voting.results.plots import draw_confusion, normalise_confusion
from fer_voting.results.text import NO_TEST, describe, title

BEST = Method("m1", "soft", refit="soft")
"""The network that the paper's validation selects, retrained."""


def write_figure(name: str, figure_of: str, description: str | None, arguments: list[str] | None) -> None:
    """The whole script of Figure 5 (`figure_of` AffectNet) or Figure 6 (RAF-DB)."""
    options = parse_options(description, arguments)
    what = name.replace("figure", "Figure ")
    report = Report(name, f"{what}: confusion matrix on the test set")
    for section in options.sections(datasets_of(figure_of, options.datasets)):
        report.add(f"## {title(what, 'confusion matrix', section)}")
        refits = section.finished(BEST.split, BEST.refit)
        runs = refits or section.finished(BEST.split)
        counts = confusion(runs, BEST.vote, "test")
        stem = f"{name}-{section.dataset}"
        if counts is None:
            report.remove_plot(stem)
            report.add("Not run.")
        else:
            class_names = runs[0].result["class_names"]
            how = "after refit" if refits else "without refit"
            caption = f"{section.title}, {describe(BEST)}, test, {how}, {_count(runs)}"
            report.add_plot(
                stem, partial(draw_confusion, counts=counts, class_names=class_names, title=caption), caption
            )
            report.add_table(_matrix(counts, class_names))
            report.add(f"In percent of the actual class (columns; section 3.4), {how}, summed over {_count(runs)}.")
            if section.dataset == figure_of:
                report.add("### What the paper says of its figure")
                report.add_table(_statements(name, counts, class_names))
            row: dict[str, Any] = {"split": BEST.split, "vote": BEST.vote, "refit": bool(refits)}
            row |= {"runs": [run.name for run in runs], "class_names": class_names}
            row |= {"counts": counts.tolist(), "normalised": normalise_confusion(counts).tolist()}
            report.rows.append({"dataset": section.dataset, "setting": section.setting, **row})
        report.add_notes(options, section, [section.missing(BEST.split, BEST.refit)])
        report.add_commands(options, section, [BEST.split])
        if section.lacks_test:
            report.add(NO_TEST)
        else:
            report.add_commands(options, section, [BEST.split], BEST.refit)
    if not report.markdown:
        report.add(f"None of the data sets asked for ({', '.join(options.datasets)}) belongs here.")
    publish(report, options.out)


def _count(runs: Sequence[RunRecord]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"


def _matrix(counts: np.ndarray, class_names: list[str]) -> Table:
    share = 100 * normalise_confusion(counts).T
    rows = [[name, *(f"{value:.1f}" for value in row)] for name, row in zip(class_names, share, strict=True)]
    return Table(["decision \\ actual", *class_names], rows)


def _statements(name: str, counts: np.ndarray, class_names: list[str]) -> Table:
    """What section 4 states of the figure, next to ours."""
    share = normalise_confusion(counts)

    def percent(actual: str, decided: str) -> float:
        return 100 * share[class_names.index(actual), class_names.index(decided)]

    recalls = {c: percent(c, c) for c in class_names}
    others = [recall for c, recall in recalls.items() if c != "happy"]
    of_paper = paper()
    if name == "figure5":
        stated = of_paper["figure5_affectnet"]
        low, high = stated["other_classes_recall_range"]
        rows = [
            ["recall of happy", f"{stated['happy_recall']:.2f}", f"{recalls['happy']:.2f}"],
            ["recall of the other classes", f"{low:.2f} to {high:.2f}", f"{min(others):.2f} to {max(others):.2f}"],
            ["disgust taken for anger", f"{stated['disgust_as_anger']:.1f}", f"{percent('disgust', 'anger'):.1f}"],
            ["anger taken for disgust", f"{stated['anger_as_disgust']:.1f}", f"{percent('anger', 'disgust'):.1f}"],
        ]
    else:
        stated = of_paper["figure6_rafdb"]
        missed = percent("disgust", "neutral") + percent("disgust", "sad")
        wrongly_fear = max(percent(c, "fear") for c in class_names if c != "fear")
        rows = [
            ["recall of happy", f"{stated['happy_recall']:.2f}", f"{recalls['happy']:.2f}"],
            [
                "disgust taken for neutral or sad",
                f"about {stated['disgust_as_neutral_or_sad_about']:.0f}",
                f"{missed:.1f}",
            ],
            ["fear not recognised", f"over {stated['fear_false_negatives_over']:.0f}", f"{100 - recalls['fear']:.1f}"],
            [
                "another class taken for fear",
                f"at most {stated['fear_false_positives_at_most']:.0f}",
                f"at most {wrongly_fear:.1f}",
            ],
        ]
    return Table(["percent", "paper", "here"], rows)
