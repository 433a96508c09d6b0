"""The report: one HTML page of all run folders.

Style and plots are inside the page. It loads nothing from elsewhere and needs no script, so that it can be mailed,
printed, and opened on a phone.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from fer_voting.config import CONF_DIR, compose
from fer_voting.results.compare import (
    Accuracy,
    Comparison,
    Method,
    accuracies,
    accuracy,
    compare_with_baseline,
    comparisons,
    confusion,
    recalls,
)
from fer_voting.results.cost import cost_points
from fer_voting.results.load import PARTS, RunGroup, RunRecord, RunTable
from fer_voting.results.missing import missing_runs
from fer_voting.results.numbers import (
    NUMBERS_NOTE,
    number_difference_table,
    number_differences,
    number_figures,
    number_table,
)
from fer_voting.results.plots import COST_LABELS, INK, SPLIT_COLOURS, cost_figure, split_curves_figure, svg
from fer_voting.results.statistics import ENOUGH_SEEDS
from fer_voting.results.table import Table
from fer_voting.results.text import (
    COMPARISON_NOTE,
    NOTHING,
    accuracy_table,
    comparison_table,
    confusion_table,
    cost_table,
    describe,
    interval_text,
    missing_lines,
    paper_note,
    percent,
)
from fer_voting.runs.identity import compared_data, identity, resolve
from fer_voting.runs.lineage import inherited_lines
from fer_voting.runs.run import read_history
from fer_voting.system.environment import git_commit
from fer_voting.system.messages import duration
from fer_voting.system.text import counted

_EXPECTED_TO_DIFFER = re.compile(r"seed|dataset\.fold|split\..*|refit|refit_voting|dataset\.name|dataset\._target_")
"""Keys of the configuration in which the runs of one group differ by definition."""

Titled = tuple[str, Any]
"""A caption, and the table or the plot that it belongs to."""


def build_page(runs: RunTable) -> str:
    """The whole page as HTML."""
    groups = runs.groups()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    configurations = {group.title: [run.config for run in group.runs] for group in groups}
    return environment.get_template("page.html").render(
        sections=[_section(runs, group) for group in groups],
        finished=sum(not run.problem for run in runs.runs),
        count=len(runs.runs) + len(runs.unreadable),
        between=_differences(configurations) if len(groups) > 1 else None,
        unreadable=runs.unreadable,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        commit=git_commit(),
        split_colours=SPLIT_COLOURS,
    )


def _section(runs: RunTable, group: RunGroup) -> dict[str, Any]:
    """The content of a group's section, by the names in page.html."""
    validation, pairs = (accuracies(group, "val"), comparisons(group, "val")) if group.has_classes else ([], [])
    curves, unreadable_curves = _curves(group)
    to_run = missing_runs(runs, group, group.splits())
    inherited = inherited_lines(run.result for run in group.finished(refit=None))
    note = " ".join(filter(None, [paper_note(group), "; ".join(inherited)]))
    return {
        "anchor": re.sub(r"[^a-z0-9]+", "-", f"{group.dataset}-{group.variant}".lower()).strip("-"),
        "title": group.title,
        "synthetic": group.synthetic,
        "cards": _cards(group, validation, pairs),
        "tables": [
            *([("Validation accuracy (%)", accuracy_table(group, validation), note)] if validation else []),
            *_comparison_tables(group, "On the same validation images", pairs),
            *(_test_tables(group) if group.has_classes else []),
            *_number_tables(group),
            ("Cost", cost_table(group), "Mean over the finished runs. Forward memory: a training step's."),
        ],
        "cost_plots": _cost_plots(group, validation),
        "curves": curves,
        "confusions": _confusions(group),
        "recalls": _recalls(group),
        "configuration": _configuration(group),
        "environment": _environment(group),
        "runs": _runs(group),
        "missing": missing_lines([*(a.missing for a in validation), *(p.missing for p in pairs), unreadable_curves]),
        "command": to_run and str(to_run),
    }


# --- tables -----------------------------------------------------------------------------------------------------

NotedTable = tuple[str, Table, str]
"""Heading, table, note."""


def _comparison_tables(group: RunGroup, heading: str, pairs: Sequence[Comparison]) -> list[NotedTable]:
    """The comparisons' table, if there is anything to compare."""
    if all(pair.difference is None for pair in pairs):
        return []
    return [(heading, comparison_table(group, pairs), COMPARISON_NOTE)]


def _test_tables(group: RunGroup) -> list[NotedTable]:
    tables = []
    selected = accuracies(group, "test")
    if any(one.mean is not None for one in selected):
        note = "Of the networks that validation selected, without refit."
        tables.append(("Test accuracy (%)", accuracy_table(group, selected), note))
    for vote in sorted({run.refit for run in group.runs if run.refit}):
        refit_splits = {run.split for run in group.runs if run.refit == vote}
        methods = [Method(split, vote, vote) for split in group.splits(vote) if split in refit_splits]
        refitted = accuracy_table(group, [accuracy(group, method, "test") for method in methods])
        note = "Trained again on training and validation images (section 3.3), then tested once."
        tables.append(("Test accuracy after refit (%)", refitted, note))
        pairs = compare_with_baseline(group, methods)
        tables += _comparison_tables(group, "On the same test images, after refit", pairs)
    return tables


def _number_tables(group: RunGroup) -> list[NotedTable]:
    tables = []
    for refit in sorted({run.refit for run in group.runs}) if group.number_names else ():
        for part in PARTS:
            figures = number_figures(group, part, refit)
            if any(one.seeds for one in figures):
                heading = f"{' and '.join(group.number_names).capitalize()}, {part}{refit and ' after refit'}"
                tables.append((heading, number_table(figures), NUMBERS_NOTE))
                differences = number_differences(group, part, refit)
                if any(one.seeds for one in differences):
                    title = f"{heading}: differences on the same images"
                    tables.append((title, number_difference_table(differences), NUMBERS_NOTE))
    return tables


def _cards(group: RunGroup, validation: Sequence[Accuracy], pairs: Sequence[Comparison]) -> list[tuple[str, str, str]]:
    """Label, value and note of: the highest accuracy by the soft vote, its difference to the baseline and to the hard
    vote, its cost. Differences only from ENOUGH_SEEDS on: large type reads as a conclusion."""
    by_soft_vote = [(one.mean, one) for one in validation if one.mean is not None and one.method.vote == "soft"]
    if not by_soft_vote:
        return []
    mean, highest = max(by_soft_vote, key=lambda pair: pair[0])
    method, runs = highest.method, counted(highest.runs, "run")
    few = "" if len(highest.seeds) >= ENOUGH_SEEDS else ": too few seeds for a conclusion"
    cards = [("highest on validation", f"{percent(mean)} %", f"{describe(method)}, {runs}{few}")]
    for pair in pairs:
        if pair.first == method and pair.difference is not None and len(pair.p_values) >= ENOUGH_SEEDS:
            over = "baseline" if pair.second.split == "baseline" else "hard vote"
            note = f"95 % interval {interval_text(pair)} points"
            cards.append((f"over the {over}", f"{100 * pair.difference:+.2f}", note))
    costs = [group.finished(split) for split in (method.split, "baseline")]
    if method.split != "baseline" and all(costs):
        own, baseline = (of_split[0].result for of_split in costs)
        note = "the baseline's multiply-accumulates"
        if own["forward_mib_per_image"] and baseline["forward_mib_per_image"]:
            note += f", {own['forward_mib_per_image'] / baseline['forward_mib_per_image']:.1f}× its forward memory"
        cards.append(("costs", f"{own['gmacs'] / baseline['gmacs']:.1f}×", note))
    return cards


def _confusions(group: RunGroup) -> list[Titled]:
    """The confusion matrix of each split by the soft vote, on test if there is a test part."""
    part = _last_part(group)
    tables = []
    for split in group.splits():
        runs = group.finished(split)
        if (counts := confusion(runs, "soft", part)) is not None:
            caption = f"{describe(Method(split, 'soft'))}, {part}, {counted(len(runs), 'run')}"
            tables.append((caption, confusion_table(counts, runs[0].result["class_names"])))
    return tables


def _recalls(group: RunGroup) -> Titled | None:
    """The recall of each class and split by the soft vote, on test if there is a test part."""
    part = _last_part(group)
    by_split = {s: recall for s in group.splits() if (recall := recalls(group.finished(s), "soft", part))}
    if not by_split:
        return None
    for recall in by_split.values():
        recall["mean"] = fmean(recall.values())
    names = next(iter(by_split.values()))
    rows = [[name, *(f"{100 * recall[name]:.1f}" for recall in by_split.values())] for name in names]
    return f"Recall of each class, soft vote, {part}, mean over runs", Table(["class", *by_split], rows)


def _last_part(group: RunGroup) -> str:
    return "test" if any(run.metrics("soft", "test") for run in group.finished()) else "val"


# --- plots ------------------------------------------------------------------------------------------------------


def _inline(figure: Figure) -> Markup:
    """The plot as SVG in the page's own colours, light and dark."""
    text = svg(figure).replace(INK, "currentColor")
    for split, colour in SPLIT_COLOURS.items():
        text = text.replace(colour.lower(), f"var(--split-{split})")
    return Markup(text)


def _cost_plots(group: RunGroup, validation: Sequence[Accuracy]) -> list[Titled]:
    here, paper = cost_points(group, validation)
    rings = "; rings, dotted: the paper's" if paper else ""
    return [
        (f"Validation accuracy against {label}{rings}", _inline(cost_figure(here, paper, "", [cost])))
        for cost, label in COST_LABELS.items()
        if any(getattr(point, cost) is not None for point in here)
    ]


def _curves(group: RunGroup) -> tuple[list[Titled], dict[str, str]]:
    """Caption and plot of the curves by epoch; and name of a run whose metrics.csv is damaged -> reason."""
    histories: dict[str, list[list[dict[str, float]]]] = {}
    missing = {}
    for run in group.finished():
        try:
            if history := read_history(run.run.metrics_file):
                histories.setdefault(run.split, []).append(history)
        except ValueError:
            missing[run.name] = "no curve, metrics.csv is damaged"
    if not histories:
        return [], missing
    loss = split_curves_figure(histories, "train/loss", "training loss")
    column, label, scale = "val/soft/accuracy", "accuracy, soft vote (%)", 100
    if not group.has_classes:
        column, label, scale = "val/soft/mean_ccc", "CCC, soft vote", 1
    accurate = split_curves_figure(histories, column, f"validation {label}", scale)
    plots = [
        ("Training loss by epoch, a line a run", _inline(loss)),
        (f"Validation {label} by epoch, a line a run", _inline(accurate)),
    ]
    return plots, missing


# --- configuration, environment, runs ---------------------------------------------------------------------------


def _configuration(group: RunGroup) -> Table:
    """How the group's runs differ from the data set's defaults, and from each other."""
    columns = {"here": [run.config for run in group.runs]}
    if not (CONF_DIR / "dataset" / f"{group.dataset}.yaml").exists():  # a data set of the user's own name
        return _differences(columns, always=True)
    return _differences({"defaults": [resolve(compose([f"dataset={group.dataset}"]))]} | columns)


def _differences(columns: Mapping[str, Sequence[dict[str, Any]]], always: bool = False) -> Table:
    """A row per key whose value is not the same in all columns, or in all configurations of one column.

    Args:
        columns: title -> configurations.
        always: a row for the other keys too.
    """
    values = {title: [_values(config) for config in configs] for title, configs in columns.items()}
    keys = sorted({key for configs in values.values() for config in configs for key in config})
    rows = []
    for key in keys:
        cells = [_cell(key, values[title], columns[title]) for title in columns]
        if not _EXPECTED_TO_DIFFER.fullmatch(key) and (always or len(set(cells)) > 1 or any(";" in c for c in cells)):
            rows.append([key, *cells])
    return Table(["", *columns], rows, left=len(columns) + 1)


def _values(config: dict[str, Any]) -> dict[str, str]:
    """Key -> value as text. In names of other runs, the split and seed that they share with this are placeholders."""
    split, seed = f"-{config['split']['name']}-", f"-seed{config['seed']}"
    fold = f"-fold{config['dataset'].get('fold')}-"
    values = {key: NOTHING if value is None else str(value) for key, value in identity(config).items()}
    return {
        key: text.replace(split, "-<split>-").replace(seed, "-seed<k>").replace(fold, "-fold<k>-")
        for key, text in values.items()
    }


def _cell(key: str, values: Sequence[Mapping[str, str]], configs: Sequence[dict[str, Any]]) -> str:
    """The value; where runs differ, each value with the splits that have it."""
    splits: dict[str, list[str]] = {}
    for config, value in zip(configs, values, strict=True):
        splits.setdefault(value.get(key, NOTHING), []).append(config["split"]["name"])
    if len(splits) == 1:
        return next(iter(splits))
    return "; ".join(f"{value} ({', '.join(dict.fromkeys(of))})" for value, of in splits.items())


def _environment(group: RunGroup) -> Table:
    """When, for how long, and with what the finished runs were trained."""
    runs = group.finished(refit=None)
    results = [run.result for run in runs]
    rows = []
    if results:
        dates = sorted({result["started"][:10] for result in results})
        rows.append(["started", dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"])
        rows.append(["training time", f"{duration(sum(result['seconds'] for result in results))} in all"])
    facts = {
        "device": [result["device"] for result in results],
        "precision": [result["precision"] for result in results],
        "commit": [result["git_commit"] or "not from a checkout" for result in results],
        "data": [f"fingerprint {compared_data(run.result)[:12]}" for run in runs if not run.refit],
    }
    for result in results:
        for package, version in result["versions"].items():
            facts.setdefault(package, []).append(version)
    rows += [[name, ", ".join(dict.fromkeys(values))] for name, values in facts.items() if values]
    return Table(["", "finished runs"], rows, left=2)


def _runs(group: RunGroup) -> Table:
    rows = [[run.name, run.problem or "finished", *_metrics(run, run.refit or "soft")] for run in group.runs]
    parts = ("val (%)", "test (%)") if group.has_classes else ("val CCC", "test CCC")
    return Table(["run", "status", "vote", "best epoch", *parts, "time"], rows, left=3)


def _metrics(run: RunRecord, vote: str) -> list[str]:
    if run.problem:
        return [""] * 5
    of_vote = run.result["votes"].get(vote)
    epoch = str(of_vote["best_epoch"] + 1) if of_vote else NOTHING
    metrics = [run.metrics(vote, part) or {} for part in PARTS]
    shares = [percent(values.get("accuracy")) for values in metrics]
    if not run.result["class_names"]:
        shares = [f"{values['mean_ccc']:.3f}" if values else NOTHING for values in metrics]
    return [vote, epoch, *shares, duration(run.result["seconds"])]
