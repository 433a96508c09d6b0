"""The report: one HTML page of all run folders.

Style and plots are inside the page. It loads nothing from elsewhere and needs no script, so that it can be mailed,
printed, and opened on a phone.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure

from fer_voting.config import CONF_DIR, compose_config
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
from fer_voting.results.markdown import Table
from fer_voting.results.missing import missing_runs
from fer_voting.results.plots import (
    COST_LABELS,
    INK,
    SPLIT_COLOURS,
    cost_figure,
    normalise_confusion,
    split_curves_figure,
    svg,
)
from fer_voting.results.statistics import ENOUGH_SEEDS
from fer_voting.results.text import (
    COMPARISON_NOTE,
    NOTHING,
    accuracy_table,
    comparison_table,
    cost_table,
    describe,
    interval_text,
    missing_lines,
    percent,
)
from fer_voting.runs.identity import identity, resolve
from fer_voting.runs.run import read_history
from fer_voting.system.environment import git_commit
from fer_voting.system.messages import duration

# The keys in which the runs of one section differ by definition.
PLACE = re.compile(r"seed|split\..*|refit|refit_voting|dataset\.name|dataset\._target_")


def build_page(runs: RunTable) -> str:
    """The whole page as HTML."""
    sections = runs.groups()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    configurations = {section.title: [run.config for run in section.runs] for section in sections}
    return environment.get_template("page.html").render(
        sections=[_view(runs, section) for section in sections],
        finished=sum(not run.problem for run in runs.runs),
        count=len(runs.runs) + len(runs.unreadable),
        between=_differences(configurations) if len(sections) > 1 else None,
        unreadable=runs.unreadable,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        commit=git_commit(),
        split_colours=SPLIT_COLOURS,
    )


def _view(runs: RunTable, section: RunGroup) -> dict[str, Any]:
    """What page.html shows of one section, by the template's names."""
    validation = accuracies(section, "val")
    pairs = comparisons(section, "val")
    curves, unreadable_curves = _curves(section)
    to_run = missing_runs(runs, section, section.splits())
    return {
        "anchor": re.sub(r"[^a-z0-9]+", "-", f"{section.dataset}-{section.setting}".lower()).strip("-"),
        "title": section.title,
        "synthetic": section.synthetic,
        "cards": _cards(section, validation, pairs),
        "tables": [
            ("Validation accuracy (%)", accuracy_table(section, validation), ""),
            *_comparison_tables(section, "On the same validation images", pairs),
            *_test_tables(section),
            ("Cost", cost_table(section), "Mean over the finished runs. Forward memory: a training step's."),
        ],
        "cost_plots": _cost_plots(section, validation),
        "curves": curves,
        "confusions": _confusions(section),
        "recalls": _recalls(section),
        "configuration": _configuration(section),
        "environment": _environment(section),
        "runs": _runs(section),
        "missing": missing_lines([*(a.missing for a in validation), *(p.missing for p in pairs), unreadable_curves]),
        "command": to_run and str(to_run),
    }


NamedTable = tuple[str, Table, str]
"""Heading, table, note."""


def _comparison_tables(section: RunGroup, heading: str, pairs: Sequence[Comparison]) -> list[NamedTable]:
    """The comparisons' table, if there is anything to compare."""
    if all(pair.difference is None for pair in pairs):
        return []
    return [(heading, comparison_table(section, pairs), COMPARISON_NOTE)]


def _test_tables(section: RunGroup) -> list[NamedTable]:
    tables = []
    selected = accuracies(section, "test")
    if any(one.mean is not None for one in selected):
        note = "Of the networks that validation selected, without refit."
        tables.append(("Test accuracy (%)", accuracy_table(section, selected), note))
    for vote in sorted({run.refit for run in section.runs if run.refit}):
        splits = [s for s in section.splits(vote) if any((run.split, run.refit) == (s, vote) for run in section.runs)]
        methods = [Method(split, vote, vote) for split in splits]
        refitted = accuracy_table(section, [accuracy(section, method, "test") for method in methods])
        note = "Trained again on training and validation images (section 3.3), then tested once."
        tables.append(("Test accuracy after refit (%)", refitted, note))
        pairs = compare_with_baseline(section, methods, "test")
        tables += _comparison_tables(section, "On the same test images, after refit", pairs)
    return tables


# --- at a glance ------------------------------------------------------------------------------------------------


def _cards(
    section: RunGroup, validation: Sequence[Accuracy], pairs: Sequence[Comparison]
) -> list[tuple[str, str, str]]:
    """Label, value and note of: the highest accuracy by the soft vote, its difference to the baseline and to the hard
    vote, its cost. Differences only from ENOUGH_SEEDS on: large type reads as a conclusion."""
    by_soft_vote = [(one.mean, one.method) for one in validation if one.mean is not None and one.method.vote == "soft"]
    if not by_soft_vote:
        return []
    highest, method = max(by_soft_vote, key=lambda pair: pair[0])
    runs = len(section.finished(method.split))
    few = "" if runs >= ENOUGH_SEEDS else ": too few seeds for a conclusion"
    note = f"{describe(method)}, {runs} run{'s' * (runs > 1)}{few}"
    cards = [("highest on validation", f"{percent(highest)} %", note)]
    for pair in pairs:
        if pair.first == method and pair.difference is not None and len(pair.p_values) >= ENOUGH_SEEDS:
            over = "baseline" if pair.second.split == "baseline" else "hard vote"
            note = f"95 % interval {interval_text(pair)} points"
            cards.append((f"over the {over}", f"{100 * pair.difference:+.2f}", note))
    costs = [section.finished(split) for split in (method.split, "baseline")]
    if method.split != "baseline" and all(costs):
        ours, baseline = (of_split[0].result for of_split in costs)
        note = "the baseline's multiply-accumulates"
        if ours["forward_mib_per_image"] and baseline["forward_mib_per_image"]:
            note += f", {ours['forward_mib_per_image'] / baseline['forward_mib_per_image']:.1f}× its forward memory"
        cards.append(("costs", f"{ours['gmacs'] / baseline['gmacs']:.1f}×", note))
    return cards


# --- plots ------------------------------------------------------------------------------------------------------


def _inline(figure: Figure) -> Markup:
    """The plot as SVG in the page's own colours, light and dark."""
    text = svg(figure).replace(INK, "currentColor")
    for split, colour in SPLIT_COLOURS.items():
        text = text.replace(colour.lower(), f"var(--split-{split})")
    return Markup(text)


def _cost_plots(section: RunGroup, validation: Sequence[Accuracy]) -> list[tuple[str, Markup]]:
    ours, theirs = cost_points(section, validation)
    rings = "; rings, dotted: the paper's" if theirs else ""
    return [
        (f"Validation accuracy against {label}{rings}", _inline(cost_figure(ours, theirs, "", [cost])))
        for cost, label in COST_LABELS.items()
        if any(getattr(point, cost) is not None for point in ours)
    ]


def _curves(section: RunGroup) -> tuple[list[tuple[str, Markup]], dict[str, str]]:
    """Caption and plot of the curves by epoch; and name of a run whose metrics.csv is damaged -> reason."""
    histories: dict[str, list[list[dict[str, float]]]] = {}
    missing = {}
    for run in section.finished():
        try:
            history = read_history(run.run.metrics_file)
        except ValueError:
            missing[run.name] = "no curve, metrics.csv is damaged"
            continue
        if history:
            histories.setdefault(run.split, []).append(history)
    if not histories:
        return [], missing
    loss = split_curves_figure(histories, "train/loss", "training loss")
    accurate = split_curves_figure(histories, "val/soft/accuracy", "validation accuracy, soft vote (%)", 100)
    plots = [
        ("Training loss by epoch, a line a run", _inline(loss)),
        ("Validation accuracy, soft vote (%) by epoch, a line a run", _inline(accurate)),
    ]
    return plots, missing


HeatMap = dict[str, Any]
"""`caption`, `corner`, `columns` (titles) and `rows` (title -> shares of 1), shown in percent, darker the larger."""


def _shown_part(section: RunGroup) -> str:
    """The part whose confusion and recalls are shown: test where there is one."""
    return "test" if any(run.metrics("soft", "test") for run in section.finished()) else "val"


def _confusions(section: RunGroup) -> list[HeatMap]:
    part = _shown_part(section)
    maps = []
    for split in section.splits():
        runs = section.finished(split)
        counts = confusion(runs, "soft", part)
        if counts is not None:
            names = runs[0].result["class_names"]
            share = normalise_confusion(counts).T.tolist()
            caption = f"{describe(Method(split, 'soft'))}, {part}, {len(runs)} run{'s' * (len(runs) > 1)}"
            rows = dict(zip(names, share, strict=True))
            maps.append({"caption": caption, "corner": "decision \\ actual", "columns": names, "rows": rows})
    return maps


def _recalls(section: RunGroup) -> HeatMap | None:
    part = _shown_part(section)
    found = {s: recall for s in section.splits() if (recall := recalls(section.finished(s), "soft", part))}
    if not found:
        return None
    rows = {name: [recall[name] for recall in found.values()] for name in next(iter(found.values()))}
    rows["mean"] = [sum(recall.values()) / len(recall) for recall in found.values()]
    caption = f"Recall of each class, soft vote, {part}, mean over runs"
    return {"caption": caption, "corner": "class", "columns": list(found), "rows": rows}


# --- what was run, and with what --------------------------------------------------------------------------------


def _configuration(section: RunGroup) -> Table:
    """How the section's runs differ from the data set's defaults, and from each other."""
    columns = {"here": [run.config for run in section.runs]}
    if not (CONF_DIR / "dataset" / f"{section.dataset}.yaml").exists():  # a data set of the user's own name
        return _differences(columns, always=True)
    return _differences({"defaults": [resolve(compose_config([f"dataset={section.dataset}"]))]} | columns)


def _differences(columns: Mapping[str, Sequence[dict[str, Any]]], always: bool = False) -> Table:
    """A row per key whose value is not the same in all columns, or in all configurations of one column."""
    values = {
        title: [{k: _plain(v, config) for k, v in identity(config).items()} for config in configs]
        for title, configs in columns.items()
    }
    keys = sorted({key for configs in values.values() for config in configs for key in config})
    rows = []
    for key in keys:
        cells = {title: _cell(key, values[title], columns[title]) for title in columns}
        if not PLACE.fullmatch(key) and (
            always or len(set(cells.values())) > 1 or any(";" in c for c in cells.values())
        ):
            rows.append([key, *cells.values()])
    return Table(["", *columns], rows, left=len(columns) + 1)


def _plain(value: Any, config: dict[str, Any]) -> str:
    """A value as text; in the name of another run, placeholders for the split and seed that it shares with this run."""
    text = NOTHING if value is None else str(value)
    return text.replace(f"-{config['split']['name']}-", "-<split>-").replace(f"-seed{config['seed']}", "-seed<k>")


def _cell(key: str, values: Sequence[Mapping[str, str]], configs: Sequence[dict[str, Any]]) -> str:
    """The value; where runs differ, each value with the splits that have it."""
    splits: dict[str, list[str]] = {}
    for config, value in zip(configs, values, strict=True):
        splits.setdefault(value.get(key, NOTHING), []).append(config["split"]["name"])
    if len(splits) == 1:
        return next(iter(splits))
    return "; ".join(f"{value} ({', '.join(dict.fromkeys(of))})" for value, of in splits.items())


def _environment(section: RunGroup) -> Table:
    runs = section.finished(refit=None)
    results = [run.result for run in runs]
    facts = {
        "device": [result["device"] for result in results],
        "precision": [result["precision"] for result in results],
        "commit": [result["git_commit"] or "not from a checkout" for result in results],
        "data": [f"fingerprint {run.result['data_fingerprint'][:12]}" for run in runs if not run.refit],
    }
    for result in results:
        for package, version in result["versions"].items():
            facts.setdefault(package, []).append(version)
    rows = [[name, ", ".join(dict.fromkeys(values))] for name, values in facts.items() if values]
    if results:
        rows.insert(0, ["started", _first_and_last([r["started"][:10] for r in results])])
        rows.insert(1, ["training time", f"{duration(sum(r['seconds'] for r in results))} in all"])
    return Table(["", "finished runs"], rows, left=2)


def _first_and_last(dates: list[str]) -> str:
    return min(dates) if min(dates) == max(dates) else f"{min(dates)} to {max(dates)}"


def _runs(section: RunGroup) -> Table:
    rows = [[run.name, run.problem or "finished", *_run_cells(run, run.refit or "soft")] for run in section.runs]
    return Table(["run", "status", "vote", "best epoch", "val (%)", "test (%)", "time"], rows, left=3)


def _run_cells(run: RunRecord, vote: str) -> list[str]:
    if run.problem:
        return [""] * 5
    of_vote = run.result["votes"].get(vote)
    epochs = run.result["epochs"] if run.refit else of_vote and of_vote["best_epoch"] + 1  # a refit takes its last
    shares = [percent(metrics["accuracy"] if (metrics := run.metrics(vote, part)) else None) for part in PARTS]
    return [vote, str(epochs or NOTHING), *shares, duration(run.result["seconds"])]
