"""Two drawings: `python docs/draw_road.py` writes docs/images/road.png and docs/images/continuing.png.

The first is the way of a command to its result (docs/road.md), the second the files of a run in the order in which they
are written (docs/continuing.md).
"""

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

IMAGES = Path(__file__).parent / "images"
INK, MUTED, RULE = "#111112", "#55585e", "#d5d7db"
BLUE, GREEN, ORANGE, GREY = "#e3f0f8", "#e2f3ec", "#fbeedd", "#f3f4f5"


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A white figure whose coordinates are inches."""
    figure = Figure(figsize=(width, height), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes, left: float, bottom: float, width: float, height: float, title: str, detail: str, colour: str
) -> None:
    """A rounded box with a bold title and lines of detail."""
    shape = FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0,rounding_size=0.07")
    shape.set(facecolor=colour, edgecolor=MUTED, linewidth=0.8)
    axes.add_patch(shape)
    top = bottom + height - 0.09
    axes.text(left + 0.09, top, title, fontsize=9, fontweight="bold", color=INK, va="top")
    axes.text(left + 0.09, top - 0.2, detail, fontsize=8, color=INK, va="top", linespacing=1.3)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.1, "shrinkA": 0, "shrinkB": 0})


ROWS = [
    ("Command", "what is typed"),
    ("Configuration", "one DictConfig"),
    ("Objects", "each made once, by\na function of experiment.py"),
    ("Work", "objects travel, and the\nconfiguration does not"),
    ("Files", "in outputs/runs/<name>/"),
]
"""The rows of the road: name, explanation."""

BOXES = [
    (0, 0.0, 3.3, "python -m fer_voting.train", "split=m1 optimizer.lr=1e-3\nwith -m: a process for each job", GREY),
    (0, 3.5, 3.3, "Python", "from fer_voting import compose, train\ntrain(compose(['split=m1']))", GREY),
    (1, 0.0, 4.6, "Hydra composes", "conf/, your --config-dir, experiments, overrides\nconfig.py: compose", BLUE),
    (1, 4.9, 1.9, "settle", "name, variant, needed\nruns: runs/naming.py", BLUE),
    (1, 7.1, 1.9, "Run.open", "lock, and the same\nrun? runs/run.py", BLUE),
    (2, 0.0, 1.3, "data", "pack and parts:\nmake_data", GREEN),
    (2, 1.45, 2.1, "module", "network, loss, optimizer, …:\nmake_module", GREEN),
    (2, 3.7, 1.6, "trainer", "and its callbacks:\nmake_trainer", GREEN),
    (2, 5.45, 1.5, "sources", "weights, teacher:\nfind_sources", GREEN),
    (2, 7.1, 1.9, "vote, loggers", "voting=, logger=:\nmake_loggers", GREEN),
    (
        3,
        0.0,
        4.6,
        "trainer.fit(module, data)",
        "epochs of steps and validation; callbacks write the files\nexperiment.fit",
        ORANGE,
    ),
    (3, 4.9, 1.9, "trainer.predict", "each vote's best epoch:\npredict_part", ORANGE),
    (3, 7.1, 1.9, "Vote.fit, metrics", "of val and test:\nevaluate_votes", ORANGE),
    (4, 0.0, 4.6, "metrics.csv, checkpoints/", "a row an epoch; last.ckpt, best-<vote>.ckpt", GREY),
    (4, 4.9, 1.9, "predictions/", "crop logits and scores\nof every image", GREY),
    (4, 7.1, 1.9, "result.json", "status, metrics, cost,\nversions", GREY),
]
"""Row, left edge, width, title, detail and colour of each box."""

DOWN = [(0, 1.15), (0, 4.1), (1, 8.05), (2, 0.65), (2, 2.5), (2, 4.2), (2, 8.05), (3, 2.3), (3, 5.85), (3, 8.05)]
"""Row and place of each arrow to the row below."""
RIGHT = [(1, 4.6, 4.9), (1, 6.8, 7.1), (3, 4.6, 4.9), (3, 6.8, 7.1)]
"""Row, start and end of each arrow within a row."""


def draw_road() -> Figure:
    left, row, height = 2.05, 1.0, 0.7
    width = left + 9.1
    figure, axes = canvas(width, len(ROWS) * row + 0.05)
    bottoms = [row * (len(ROWS) - 1 - index) + 0.15 for index in range(len(ROWS))]
    for bottom, (title, detail) in zip(bottoms, ROWS, strict=True):
        axes.text(0.1, bottom + height - 0.05, title, fontsize=10, fontweight="bold", color=INK, va="top")
        axes.text(0.1, bottom + height - 0.27, detail, fontsize=8, color=MUTED, va="top", linespacing=1.3)
        if bottom != bottoms[0]:
            axes.plot([0.1, width - 0.1], [bottom + height + 0.15] * 2, color=RULE, lw=0.8, zorder=0)
    for index, start, length, title, detail, colour in BOXES:
        box(axes, left + start, bottoms[index], length, height, title, detail, colour)
    for index, x in DOWN:
        arrow(axes, (left + x, bottoms[index]), (left + x, bottoms[index + 1] + height))
    for index, start, end in RIGHT:
        arrow(axes, (left + start, bottoms[index] + height / 2), (left + end, bottoms[index] + height / 2))
    return figure


MOMENTS = [
    (".lock\nconfig.yaml", "trains from\nthe start"),
    ("inputs.json", "trains from\nthe start"),
    ("steps and\nvalidation\nof epoch e", "trains\nepoch e\nagain"),
    ("metrics.csv\nrow e", "trains epoch e\nagain, writes\nrow e anew"),
    ("best-<vote>\n.ckpt", "trains epoch e\nagain, to the\nsame weights"),
    ("last.ckpt\nof epoch e", "trains epoch\ne + 1, or\nevaluates"),
    ("predictions/", "evaluates\nagain"),
    ("result.json:\nfinished", "returns the\nresult"),
]
"""Files in the order of writing -> what the next start does if the process is killed right after it."""


def draw_continuing() -> Figure:
    step, left = 1.2, 0.62
    width = left + step * len(MOMENTS) - 0.02
    figure, axes = canvas(width, 2.8)
    first, last = left + 2 * step - 0.56, left + 5 * step + 0.5
    shape = FancyBboxPatch((first, 1.3), last - first, 1.12, boxstyle="round,pad=0,rounding_size=0.07")
    shape.set(facecolor=ORANGE, edgecolor="none")
    axes.add_patch(shape)
    axes.text((first + last) / 2, 2.47, "every epoch", fontsize=9, color=MUTED, ha="center", va="bottom")
    axes.annotate("", (width - 0.05, 1.5), (0.1, 1.5), arrowprops={"arrowstyle": "-|>", "color": INK, "lw": 1.2})
    axes.text(0.1, 2.5, "Written, in this order", fontsize=9, fontweight="bold", color=INK, va="bottom")
    axes.text(0.1, 0.98, "After a kill here, the same command", fontsize=9, fontweight="bold", color=INK, va="bottom")
    for index, (written, continues) in enumerate(MOMENTS):
        x = left + step * index
        axes.plot([x], [1.5], marker="o", color=INK, markersize=5)
        axes.text(x, 1.66, written, fontsize=8.5, color=INK, ha="center", va="bottom", linespacing=1.25)
        axes.text(x, 0.85, continues, fontsize=8.5, color=INK, ha="center", va="top", linespacing=1.25)
    return figure


def main() -> None:
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        draw_road().savefig(IMAGES / "road.png", dpi=150, metadata={"Software": None})
        draw_continuing().savefig(IMAGES / "continuing.png", dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
