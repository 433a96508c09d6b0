"""One page of everything that was run: `python -m fer_voting.report`, or `make report`.

The page holds its style and its pictures in itself, asks no server for anything, and needs no account to be read: it
can be mailed, printed, and opened on a phone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure as Picture

from fer_voting.config import compose_config
from fer_voting.results.compare import Comparison, Figure, Judge, accuracies, accuracy, compare, comparisons, confusion
from fer_voting.results.compare import recalls as mean_recalls
from fer_voting.results.cost import cost_points
from fer_voting.results.load import RunRecord, Runs, Section
from fer_voting.results.markdown import Table
from fer_voting.results.missing import missing
from fer_voting.results.plots import (
    COST_LABELS,
    INK,
    SPLIT_COLOURS,
    cost_figure,
    normalise_confusion,
    split_curves_figure,
    svg,
)
from fer_voting.results.text import (
    NO_CORRECTION,
    NOTHING,
    accuracy_table,
    comparison_table,
    cost_table,
    describe,
    hole_lines,
    percent,
)
from fer_voting.runs.identity import identity, resolve
from fer_voting.runs.run import read_history
from fer_voting.system.environment import git_commit
from fer_voting.system.messages import duration

__all__ = ["build_page"]

# What tells runs of one section apart by its very nature.
PLACE = re.compile(r"seed|split\..*|refit|refit_voting|dataset\.name|dataset\._target_")


@dataclass(frozen=True)
class Card:
    """A figure at a glance."""

    label: str
    value: str
    note: str


@dataclass(frozen=True)
class HeatMap:
    """A table of shares of 1, shown in percent on a ground as dark as they are large; None is an empty cell."""

    caption: str
    corner: str
    columns: list[str]
    rows: dict[str, list[float | None]]


@dataclass(frozen=True)
class SectionView:
    """What the page says of one data set under one setting."""

    anchor: str
    title: str
    synthetic: bool
    cards: list[Card]
    tables: list[tuple[str, Table, str]]
    cost_pictures: list[tuple[str, Markup]]
    curves: list[tuple[str, Markup]]
    confusions: list[HeatMap]
    recalls: HeatMap | None
    configuration: Table
    environment: Table
    runs: Table
    holes: list[str]
    command: str


def build_page(runs: Runs) -> str:
    """The whole page as HTML."""
    sections = runs.sections()
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    configurations = {section.title: [r.config for r in section.records.values()] for section in sections}
    return environment.get_template("page.html").render(
        sections=[view_section(runs, section) for section in sections],
        finished=sum(not record.problem for record in runs.records),
        count=len(runs.records) + len(runs.strays),
        between=_differences(configurations) if len(sections) > 1 else None,
        strays=runs.strays,
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        commit=git_commit(),
        split_colours=SPLIT_COLOURS,
    )


def view_section(runs: Runs, section: Section) -> SectionView:
    validation = accuracies(section, "val")
    pairs = comparisons(section, "val")
    tables = [("Validation accuracy (%)", accuracy_table(section, validation), "")]
    if any(pair.difference is not None for pair in pairs):
        tables.append(("On the same validation images", comparison_table(section, pairs), NO_CORRECTION))
    tables += _test_tables(section)
    tables.append(("Cost", cost_table(section), "Mean over the finished runs. Forward memory: a training step's."))
    gap = missing(runs, section, section.splits())
    return SectionView(
        anchor=re.sub(r"[^a-z0-9]+", "-", f"{section.dataset}-{section.setting}".lower()).strip("-"),
        title=section.title,
        synthetic=section.synthetic,
        cards=_cards(section, validation, pairs),
        tables=tables,
        cost_pictures=_cost_pictures(section, validation),
        curves=_curves(section),
        confusions=_confusions(section),
        recalls=_recalls(section),
        configuration=_configuration(section),
        environment=_environment(section),
        runs=_runs(section),
        holes=hole_lines([*(figure.holes for figure in validation), *(pair.holes for pair in pairs)]),
        command=str(gap) if gap else "",
    )


def _test_tables(section: Section) -> list[tuple[str, Table, str]]:
    tables = []
    selected = accuracies(section, "test")
    if any(figure.mean is not None for figure in selected):
        note = "Of the networks that validation selected, without refit."
        tables.append(("Test accuracy (%)", accuracy_table(section, selected), note))
    for vote in sorted({place.refit for place in section.records if place.refit}):
        splits = [split for split in section.splits(vote) if any(p[::2] == (split, vote) for p in section.records)]
        refitted = [accuracy(section, Judge(split, vote, vote), "test") for split in splits]
        note = "Trained again on training and validation images (section 3.3), then judged once."
        tables.append(("Test accuracy after refit (%)", accuracy_table(section, refitted), note))
        baseline = Judge("baseline", vote, vote)
        pairs = [compare(section, f.judge, baseline, "test") for f in refitted if f.judge.split != "baseline"]
        if any(pair.difference is not None for pair in pairs):
            tables.append(("On the same test images, after refit", comparison_table(section, pairs), NO_CORRECTION))
    return tables


# --- at a glance ------------------------------------------------------------------------------------------------


def _cards(section: Section, figures: Sequence[Figure], pairs: Sequence[Comparison]) -> list[Card]:
    """The best variant by the soft vote: its accuracy, its lead over the baseline and over its hard vote, its cost."""
    by_soft_vote = [(f.mean, f.judge) for f in figures if f.mean is not None and f.judge.vote == "soft"]
    if not by_soft_vote:
        return []
    best, judge = max(by_soft_vote, key=lambda pair: pair[0])
    runs = len(section.finished(judge.split))
    cards = [Card("best on validation", f"{percent(best)} %", f"{describe(judge)}, {runs} run{'s' * (runs > 1)}")]
    for pair in pairs:
        if pair.first == judge and pair.difference is not None and pair.low is not None and pair.high is not None:
            over = "baseline" if pair.second.split == "baseline" else "hard vote"
            interval = f"95 % interval {100 * pair.low:+.2f} to {100 * pair.high:+.2f} points"
            cards.append(Card(f"over the {over}", f"{100 * pair.difference:+.2f}", interval))
    costs = [section.finished(split) for split in (judge.split, "baseline")]
    if judge.split != "baseline" and all(costs):
        ours, baseline = (records[0].result for records in costs)
        note = "the baseline's multiply-accumulates"
        if ours["forward_mib_per_image"] and baseline["forward_mib_per_image"]:
            note += f", {ours['forward_mib_per_image'] / baseline['forward_mib_per_image']:.1f}× its forward memory"
        cards.append(Card("costs", f"{ours['gmacs'] / baseline['gmacs']:.1f}×", note))
    return cards


# --- pictures ---------------------------------------------------------------------------------------------------


def _inline(picture: Picture) -> Markup:
    """The picture as SVG in the page's own colours, light and dark."""
    text = svg(picture).replace(INK, "currentColor")
    for split, colour in SPLIT_COLOURS.items():
        text = text.replace(colour.lower(), f"var(--split-{split})")
    return Markup(text)


def _cost_pictures(section: Section, figures: Sequence[Figure]) -> list[tuple[str, Markup]]:
    ours, theirs = cost_points(section, figures)
    rings = "; rings, dotted: the paper's" if theirs else ""
    return [
        (f"Validation accuracy against {label}{rings}", _inline(cost_figure(ours, theirs, "", [cost])))
        for cost, label in COST_LABELS.items()
        if any(getattr(point, cost) is not None for point in ours)
    ]


def _curves(section: Section) -> list[tuple[str, Markup]]:
    histories: dict[str, list[list[dict[str, float]]]] = {}
    for record in section.finished():
        try:
            history = read_history(record.run.metrics_file)
        except ValueError:
            continue  # damaged: the figures of the run still stand, its curve is left out
        if history:
            histories.setdefault(record.place.split, []).append(history)
    if not histories:
        return []
    panels = [("train/loss", "training loss", 1), ("val/soft/accuracy", "validation accuracy, soft vote (%)", 100)]
    return [
        (
            f"{label[0].upper()}{label[1:]} by epoch, a line a run",
            _inline(split_curves_figure(histories, column, label, s)),
        )
        for column, label, s in panels
    ]


def _judged(section: Section) -> str:
    """The stage that confusion and recalls are shown of: test where there is one."""
    return "test" if any(record.figures("soft", "test") for record in section.finished()) else "val"


def _confusions(section: Section) -> list[HeatMap]:
    stage = _judged(section)
    maps = []
    for split in section.splits():
        records = section.finished(split)
        counts = confusion(records, "soft", stage)
        if counts is not None:
            names = records[0].result["class_names"]
            share = normalise_confusion(counts).T.tolist()
            runs = f"{len(records)} run{'s' * (len(records) > 1)}"
            caption = f"{describe(Judge(split, 'soft'))}, {stage}, {runs}"
            maps.append(HeatMap(caption, "decision \\ actual", names, dict(zip(names, share, strict=True))))
    return maps


def _recalls(section: Section) -> HeatMap | None:
    stage = _judged(section)
    of = {split: mean_recalls(section.finished(split), "soft", stage) for split in section.splits()}
    found = {split: recall for split, recall in of.items() if recall}
    if not found:
        return None
    names = list(next(iter(found.values())))
    rows: dict[str, list[float | None]] = {name: [recall[name] for recall in found.values()] for name in names}
    rows["mean"] = [sum(recall.values()) / len(recall) for recall in found.values()]
    return HeatMap(f"Recall of each class, soft vote, {stage}, mean over runs", "class", list(found), rows)


# --- what was run, and with what --------------------------------------------------------------------------------


def _configuration(section: Section) -> Table:
    """How the section's runs differ from the data set's defaults, and from each other."""
    columns = {}
    try:
        columns["defaults"] = [resolve(compose_config([f"dataset={section.dataset}"]))]
    except Exception:  # a data set under a name of the user's own
        columns = {}
    return _differences(columns | {"here": [record.config for record in section.records.values()]}, always=not columns)


def _differences(columns: Mapping[str, Sequence[dict[str, Any]]], always: bool = False) -> Table:
    """A row a value that is not the same in all columns, or in all configurations of one column."""
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
    """A value as text; in a name of another run, this run's split and seed are what it shares with it."""
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


def _environment(section: Section) -> Table:
    results = [record.result for record in section.finished(refit=None)]
    facts = {
        "device": [r["device"] for r in results],
        "precision": [r["precision"] for r in results],
        "commit": [r["git_commit"] or "not from a checkout" for r in results],
        "data": [f"fingerprint {r['data_fingerprint'][:12]}" for r in results if not r["refit"]],
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


def _runs(section: Section) -> Table:
    rows = []
    for _, record in sorted(section.records.items()):
        vote = record.place.refit or "soft"
        rows.append([record.name, record.problem or "finished", *_run_cells(record, vote)])
    return Table(["run", "status", "vote", "best epoch", "val (%)", "test (%)", "time"], rows, left=3)


def _run_cells(record: RunRecord, vote: str) -> list[str]:
    if record.problem:
        return ["", "", "", "", ""]
    figures = [record.figures(vote, stage) for stage in ("val", "test")]
    best_epoch = str(record.result["votes"][vote]["best_epoch"] + 1) if vote in record.result["votes"] else NOTHING
    return [
        vote,
        best_epoch,
        *(percent(f["accuracy"] if f else None) for f in figures),
        duration(record.result["seconds"]),
    ]
