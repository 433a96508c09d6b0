"""Plots: confusion matrices, training curves, accuracy against cost, class distributions, reliability diagrams.

Functions named `..._figure` return a matplotlib figure; `draw_...` writes one to a file.
"""

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from fer_voting.results.compare import normalise_confusion
from fer_voting.results.evaluation import recalibrated
from fer_voting.results.statistics import CostPoint, pareto_front
from fer_voting.runs.run import Run, read_history
from fer_voting.system.arrays import read_npz
from fer_voting.system.text import counted, escape_mathtext

# Okabe and Ito's colours: colour-blind readers can distinguish them, also in grey.
VOTE_COLOURS = {
    "soft": "#0072B2",
    "hard": "#D55E00",
    "softprob": "#009E73",
    "confidence": "#CC79A7",
    "weighted": "#E69F00",
    "adaptive": "#56B4E9",
}
SPLIT_COLOURS = {"baseline": "#767676", "input": "#CC79A7", "m1": "#0072B2", "m2": "#D55E00", "m3": "#009E73"}
PART_COLOURS = {"train": "#0072B2", "val": "#D55E00", "test": "#009E73"}
INK = "#111112"
"""Colour of text and axes: a black used nowhere else, which a page replaces by its own colour."""

PANEL = (4.5, 3.4)
"""Width and height of a panel in inches: readable on a phone, and two fit a printed page."""

FEW_IMAGES = 10
"""A bin of the reliability diagram with fewer is drawn pale."""

MANY_CLASSES = 20
"""More than these are drawn without numbers, and with small names."""
MOST_NAMES = 100
"""More names than these are not written along an axis; of more classes, every second or third is."""

COST_LABELS = {
    "forward_mib": "forward memory in training (MiB an image)",
    "gmacs": "multiply-accumulates (billions an image)",
}

_INKED: dict[Any, Any] = dict.fromkeys(
    ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK
)


def save(figure: Figure, path: Path) -> None:
    """Write a figure to `path`, in the format of its suffix; the file appears only when complete."""
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    box = figure.get_tightbbox().padded(0.1)  # inches; given "tight", matplotlib would draw the figure twice
    metadata = {"CreationDate": None} if path.suffix == ".pdf" else None  # the same figure gives the same bytes
    with mpl.rc_context({"pdf.fonttype": 42}):  # text that programs can edit
        figure.savefig(draft, dpi=150, format=path.suffix[1:], bbox_inches=box, metadata=metadata)
    draft.replace(path)


def svg(figure: Figure) -> str:
    """The figure as an SVG element for an HTML page: transparent, as wide as its container, with selectable text.

    The same figure gives the same bytes.
    """
    FigureCanvasAgg(figure)
    buffer = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fer_voting"}):
        metadata = dict.fromkeys(["Date", "Creator", "Format", "Type"])
        figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata=metadata)
    page = buffer.getvalue()
    tag, content = page[page.index("<svg") :].split(">", 1)
    return re.sub(r' (?:width|height)="[^"]*"', "", tag) + ">" + content


class ConfusionPlot:
    """Confusion matrices normalised per actual class, in percent; a column per actual class, as in the paper's Figures
    5 and 6.

    The axes, whose layout takes most of the time, are made once for all matrices of the same classes.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        classes = range(len(class_names))
        numbered = len(classes) <= MANY_CLASSES  # thousands of texts would take minutes
        side = 0.75 * len(classes) if numbered else 0.16 * min(len(classes), MOST_NAMES)
        self._figure = Figure(figsize=(side + 1.6, side + 1.2))
        self._axes = self._figure.add_subplot()
        self._image = self._axes.imshow(np.zeros((len(classes), len(classes))), cmap="Blues", vmin=0, vmax=1)
        look: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 9, "in_layout": False}
        self._cells = [
            [self._axes.text(actual, decided, "", **look) for actual in classes] for decided in classes if numbered
        ]
        _name_classes(self._axes.xaxis, class_names, 45, ha="right")
        _name_classes(self._axes.yaxis, class_names, 0)
        self._axes.set_xlabel("actual class")
        self._axes.set_ylabel("decision")
        self._figure.colorbar(self._image, ax=self._axes, shrink=0.8, label="share of the actual class")

    def write(self, path: Path, counts: np.ndarray, title: str) -> None:
        """Write one matrix.

        Args:
            counts: int [K, K] (true class, decision).
        """
        share = normalise_confusion(counts).T  # the paper: a column for each actual class
        self._image.set_data(share)
        for cells, values in zip(self._cells, share, strict=False):  # of many classes there are none
            for cell, value in zip(cells, values, strict=True):
                cell.set(text=f"{100 * value:.1f}", color="white" if value > 0.55 else "black")
        accuracy = np.trace(counts) / max(counts.sum(), 1)
        self._axes.set_title(
            f"{escape_mathtext(title)}\naccuracy {accuracy:.2%} of {counted(counts.sum(), 'image')}", fontsize=10
        )
        save(self._figure, path)


def _name_classes(axis: Axis, names: Sequence[str], rotation: int, **look: Any) -> None:
    """Write the names of classes along an axis."""
    if len(names) > MANY_CLASSES:
        look = {"fontsize": 7}
        rotation = 90 if rotation else 0
    shown = range(0, len(names), -(-len(names) // MOST_NAMES) or 1)
    axis.set_ticks(shown, [escape_mathtext(names[i]) for i in shown], rotation=rotation, **look)


def draw_confusion(path: Path, counts: np.ndarray, class_names: Sequence[str], title: str) -> None:
    """Write one confusion matrix, as `ConfusionPlot` does."""
    ConfusionPlot(class_names).write(path, counts, title)


def draw_curves(path: Path, history: Sequence[dict[str, float]], title: str) -> None:
    """Write the curves of one run by epoch: losses, and validation accuracy of each vote; without classes its CCC."""
    figure = Figure(figsize=(9, 3.6))
    losses, accuracies = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    for name, style in (("train/loss", "-"), ("val/loss", "--")):
        if any(name in row for row in history):
            losses.plot(epochs, _column(history, name), style, marker=".", color="black", label=name)
    has_classes = any("val/soft/accuracy" in row for row in history) or not any(
        "val/soft/mean_ccc" in r for r in history
    )
    metric, scale = ("accuracy", 100) if has_classes else ("mean_ccc", 1)
    for vote, colour in VOTE_COLOURS.items():
        name = f"val/{vote}/{metric}"
        if any(name in row for row in history):
            values = scale * _column(history, name)
            accuracies.plot(epochs, values, marker=".", color=colour, label=f"{vote} vote")
    losses.set_ylabel("loss")
    accuracies.set_ylabel("validation accuracy (%)" if has_classes else "validation CCC")
    _finish_epochs(losses, accuracies)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    save(figure, path)


def split_curves_figure(
    histories: Mapping[str, Sequence[Sequence[dict[str, float]]]], column: str, label: str, scale: float = 1
) -> Figure:
    """One column of metrics.csv by epoch, times `scale`: a colour per split, a line per run.

    Args:
        histories: split -> the rows of metrics.csv of each of its runs.
    """
    with mpl.rc_context(_INKED):
        figure = Figure(figsize=PANEL)
        axes = figure.add_subplot()
        for split, runs in histories.items():
            for i, history in enumerate(runs):
                epochs = [row["epoch"] + 1 for row in history]
                look: dict[str, Any] = {"color": SPLIT_COLOURS.get(split, INK), "marker": ".", "lw": 1.2}
                axes.plot(epochs, scale * _column(history, column), label=split if i == 0 else None, **look)
        axes.set_ylabel(label)
        _finish_epochs(axes)
        figure.tight_layout()
    return figure


def _column(history: Sequence[dict[str, float]], name: str) -> np.ndarray:
    return np.array([row.get(name, np.nan) for row in history])


def _finish_epochs(*panels: Axes) -> None:
    for axes in panels:
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)


LEAST_SPAN = 2.0
"""Percentage points that an accuracy axis spans at least: on a shorter one, chance would look like a difference."""


def cost_figure(
    points: Sequence[CostPoint],
    paper_points: Sequence[CostPoint],
    title: str,
    costs: Sequence[str] = tuple(COST_LABELS),
    measure: str = "validation accuracy (%)",
) -> Figure:
    """Accuracy against forward memory and against multiply-accumulates, with the Pareto front (section 5: "a matter
    of selecting the closest possible point to the network input, depending on the available resources").

    Args:
        points: a point per split, with error bars of one standard deviation.
        paper_points: the paper's, as rings; may be empty.
        costs: keys of COST_LABELS, a panel per key.
        measure: what the points' `accuracy` is.
    """
    with mpl.rc_context(_INKED):
        figure = Figure(figsize=(PANEL[0] * len(costs), PANEL[1]))
        panels = figure.subplots(1, len(costs), sharey=True, squeeze=False)[0]
        for axes, cost in zip(panels, costs, strict=True):
            for chosen, is_paper in ((paper_points, True), (points, False)):
                _draw_points(axes, [p for p in chosen if getattr(p, cost) is not None], cost, is_paper)
            axes.set_xlabel(COST_LABELS[cost])
            axes.set_xscale("log")
            axes.grid(alpha=0.3)
            axes.margins(x=0.2, y=0.18)
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        panels[0].set_ylabel(measure)
        low, high = panels[0].get_ylim()
        wider = max(0.0, LEAST_SPAN - (high - low)) / 2
        panels[0].set_ylim(low - wider, high + wider)
        figure.suptitle(title, fontsize=10)
        figure.tight_layout()
    return figure


def _draw_points(axes: Axes, points: Sequence[CostPoint], cost: str, is_paper: bool) -> None:
    costs = [getattr(point, cost) for point in points]
    front = pareto_front(costs, [point.accuracy for point in points])
    style, label = (":", "Pareto front of the paper") if is_paper else ("-", "Pareto front")
    if front:
        x, y = [costs[i] for i in front], [points[i].accuracy for i in front]
        axes.plot(x, y, style, color=INK, lw=1, alpha=0.6, drawstyle="steps-post", label=label, zorder=1)
    for point, x_value in zip(points, costs, strict=True):
        colour = SPLIT_COLOURS.get(point.split, INK)
        face = "none" if is_paper else colour
        if point.std is not None:
            axes.errorbar(x_value, point.accuracy, point.std, color=colour, capsize=3, lw=1, zorder=2)
        axes.plot(x_value, point.accuracy, "o", ms=8, mfc=face, mec=colour, zorder=3)
        if not is_paper:  # the front comes from below and leaves to the right
            look: dict[str, Any] = {"xytext": (7, -13), "textcoords": "offset points", "color": INK, "fontsize": 9}
            axes.annotate(point.split, (x_value, point.accuracy), **look)
    if axes.lines:
        axes.legend(frameon=False, fontsize=8)


def draw_class_distribution(path: Path, parts: Mapping[str, Mapping[str, int]], name: str, synthetic: bool) -> None:
    """Write the images of each class in each part of a data set, as bars (the paper's Figure 4)."""
    classes = list(next(iter(parts.values()), {}))
    few = len(classes) <= MANY_CLASSES
    figure = Figure(figsize=(1.5 + (1.1 * len(classes) if few else 0.2 * min(len(classes), MOST_NAMES)), 3.6))
    axes = figure.add_subplot()
    width = 0.8 / max(len(parts), 1)
    for place, (part, counts) in enumerate(parts.items()):
        centres = np.arange(len(classes)) + (place - (len(parts) - 1) / 2) * width
        look: dict[str, Any] = {"label": f"{part} ({sum(counts.values()):,})", "color": PART_COLOURS[part]}
        bars = axes.bar(centres, [counts[label] for label in classes], width, **look)
        if few:
            axes.bar_label(bars, fmt="{:,.0f}", fontsize=6)
    _name_classes(axes.xaxis, classes, 0 if few else 90)
    axes.set_ylabel("images")
    axes.set_title(f"{escape_mathtext(name)}: images of each class" + (" (synthetic faces)" if synthetic else ""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))  # clear of the bars
    save(figure, path)


def plot_run(run: Run, result: Mapping[str, Any]) -> None:
    """Write a run's curves.png, and a confusion matrix of every vote and part, into its folder."""
    note = " (synthetic faces)" if result["synthetic"] else ""
    draw_curves(run.dir / "curves.png", read_history(run.metrics_file), f"{run.name}{note}")
    confusion = ConfusionPlot(result["class_names"]) if result["class_names"] else None
    for vote, metrics in result["votes"].items():
        for part in ("val", "test"):
            title = f"{run.name}, {vote} vote, {part}{note}"
            if part in metrics and confusion:
                counts = np.array(metrics[part]["confusion_counts"])
                confusion.write(run.dir / f"confusion-{vote}-{part}.png", counts, title)
            if part in metrics and result["number_names"]:
                arrays = read_npz(run.predictions_file(vote, part), "number_scores", "number_labels")
                save(numbers_figure(arrays, result["number_names"], title), run.dir / f"numbers-{vote}-{part}.png")


def numbers_figure(arrays: Mapping[str, np.ndarray], names: Sequence[str], title: str) -> Figure:
    """Predicted against labelled values, a panel a number, a point an image.

    Args:
        arrays: `number_scores` and `number_labels` [N, n].
    """
    figure = Figure(figsize=(3.4 * len(names), 3.7))
    for place, (axes, name) in enumerate(zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True)):
        labels, scores = (arrays[key][:, place] for key in ("number_labels", "number_scores"))
        axes.plot(labels, scores, ".", ms=2.5, alpha=0.35, color=VOTE_COLOURS["soft"], rasterized=True)
        axes.plot([-1, 1], [-1, 1], "--", color=INK, lw=1)
        axes.set(xlim=(-1.05, 1.05), xlabel=f"labelled {name}", ylabel=f"predicted {name}")
        axes.set_ylim(min(-1.05, scores.min()), max(1.05, scores.max()))
        axes.grid(alpha=0.3)
    figure.suptitle(escape_mathtext(title), fontsize=10)
    figure.tight_layout()
    return figure


def plot_evaluation(
    out: Path, name: str, result: Mapping[str, Any], soft: Mapping[str, np.ndarray] | None = None
) -> None:
    """Write the soft vote's confusion matrix to `<out's stem>.png` and the votes' reliability to `…-reliability.png`.

    Where the network has an adaptive vote, also its accuracy against its arithmetic to `…-adaptive.png`; where it has
    numbers, the soft vote's against the labels to `…-numbers.png`.

    Args:
        name: of the network.
        result: content of the evaluation's JSON file.
        soft: of `targets.Target.to_arrays` for the soft vote, if the network has numbers.
    """
    place = f"{result['part']}{' (synthetic faces)' if result['synthetic'] else ''}"
    if soft is not None:
        title = f"{name} on {result['dataset']}, soft vote, {place}"
        save(numbers_figure(soft, result["number_names"], title), out.with_name(f"{out.stem}-numbers.png"))
    if not result["class_names"]:
        return
    counts = np.array(result["votes"]["soft"]["confusion_counts"])
    title = f"{name} on {result['dataset']}, soft vote, {place}"
    draw_confusion(out.with_suffix(".png"), counts, result["class_names"], title)
    title = f"{name} on {result['dataset']}, {place}"
    save(reliability_figure(result["votes"], title), out.with_name(f"{out.stem}-reliability.png"))
    if result["adaptive"] is not None:
        save(adaptive_figure(result["adaptive"], title), out.with_name(f"{out.stem}-adaptive.png"))


def reliability_figure(votes: Mapping[str, Mapping[str, Any]], title: str) -> Figure:
    """Reliability diagram, a panel a vote: accuracy by confidence as bars, with the images of each bin below.

    Bars of fewer than FEW_IMAGES images are pale.

    Args:
        votes: vote -> what `evaluation.evaluate_predictions` returns.
    """
    figure = Figure(figsize=(3.4 * len(votes), 4.2))
    rows = figure.subplots(
        2, len(votes), sharex=True, sharey="row", squeeze=False, gridspec_kw={"height_ratios": [3, 1]}
    )
    for panels, (vote, metrics) in zip(rows.T, votes.items(), strict=True):
        accuracies, images = panels
        bins = metrics["calibration"]
        bars: dict[str, Any] = {"width": 1 / len(bins["counts"]), "align": "edge", "edgecolor": "white", "lw": 0.5}
        colour = VOTE_COLOURS.get(vote, INK)
        bars["color"] = [to_rgba(colour, 1 if count >= FEW_IMAGES else 0.3) for count in bins["counts"]]
        left = np.linspace(0, 1, len(bins["counts"]), endpoint=False)
        accuracies.bar(left, 100 * np.array(bins["accuracies"], np.float64), **bars)
        accuracies.plot([0, 1], [0, 100], "--", color=INK, lw=1)
        accuracies.set_title(f"{vote} vote, calibration error {bins['error']:.1%}", fontsize=9)
        if recalibrated(metrics):
            after = metrics["calibrated"]
            confidences, shares = (np.array(after[key], np.float64) for key in ("confidences", "accuracies"))
            label = f"temperature {metrics['temperature']:.2f}: {after['error']:.1%}"
            accuracies.plot(confidences, 100 * shares, "o-", color=INK, ms=3, lw=1, label=label)
            accuracies.legend(frameon=False, fontsize=8, loc="upper left")
        images.bar(left, 100 * np.array(bins["counts"]) / sum(bins["counts"]), **bars)
        images.set_xlim(0, 1)
        images.set_xlabel("confidence")
        for axes in panels:
            axes.grid(alpha=0.3)
            axes.set_axisbelow(True)
    rows[0, 0].set_ylabel("accuracy (%)")
    rows[1, 0].set_ylabel("images (%)")
    figure.suptitle(escape_mathtext(title), fontsize=10)
    figure.tight_layout()
    return figure


def adaptive_figure(curve: Mapping[str, Any], title: str) -> Figure:
    """Accuracy against mean GMACs: the adaptive vote's curve, the soft vote of the crops, and the chosen threshold.

    Args:
        curve: what `votes.adaptive_curve` returns.
    """
    figure = Figure(figsize=(6, 3.8))
    axes = figure.add_subplot()
    whole, vote, chosen = curve["curve"][0], curve["vote"], curve["chosen"]
    gmacs, accuracies = ([point[key] for point in curve["curve"]] for key in ("gmacs", "accuracy"))
    axes.plot(gmacs, 100 * np.array(accuracies), ".-", color=VOTE_COLOURS["adaptive"], label="adaptive vote")
    axes.plot(whole["gmacs"], 100 * whole["accuracy"], "s", color=INK, label="whole map")
    axes.plot(vote["gmacs"], 100 * vote["accuracy"], "D", color=VOTE_COLOURS["soft"], label="soft vote of the crops")
    axes.axhline(100 * vote["accuracy"], color=VOTE_COLOURS["soft"], lw=0.8, ls=":")
    axes.axvline((whole["gmacs"] + vote["gmacs"]) / 2, color=INK, lw=0.8, ls="--", label="half of the extra arithmetic")
    if chosen is not None:
        look: dict[str, Any] = {
            "color": VOTE_COLOURS["hard"],
            "label": f"threshold {chosen['threshold']:.2f}, from validation",
        }
        axes.plot(chosen["gmacs"], 100 * chosen["accuracy"], "o", ms=9, mfc="none", **look)
    axes.set_xlabel("multiply-accumulates (billions an image, mean)")
    axes.set_ylabel("accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(escape_mathtext(title), fontsize=10)
    figure.tight_layout()
    return figure
