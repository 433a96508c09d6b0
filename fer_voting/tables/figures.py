"""Pictures: confusion matrices and training curves."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["draw_confusion", "draw_curves", "normalise_confusion", "save"]

# Okabe and Ito's colours, told apart by colour-blind readers and in grey.
VOTE_COLOURS = {"soft": "#0072B2", "hard": "#D55E00", "softprob": "#009E73"}


def save(figure: Figure, path: Path) -> None:
    """Write a picture that takes its place at `path` only when complete; its format is the suffix's."""
    FigureCanvasAgg(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    figure.savefig(draft, dpi=150, format=path.suffix[1:], bbox_inches="tight")
    draft.replace(path)


def normalise_confusion(counts: np.ndarray) -> np.ndarray:
    """Confusion counts `[K, K]` (true class, decision) by the images of the true class (section 3.4); a class
    without images stays 0."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def draw_confusion(path: Path, counts: np.ndarray, class_names: Sequence[str], title: str) -> None:
    """Confusion matrix normalised per true class, in percent; the actual class along the columns' axis below, as
    in the paper's Figures 5 and 6."""
    share = normalise_confusion(counts).T  # the paper: a column for each actual class
    classes = len(class_names)
    figure = Figure(figsize=(0.75 * classes + 1.6, 0.75 * classes + 1.2))
    axes = figure.add_subplot()
    picture = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for decided in range(classes):
        for actual in range(classes):
            colour = "white" if share[decided, actual] > 0.55 else "black"
            text = f"{100 * share[decided, actual]:.1f}"
            axes.text(actual, decided, text, ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(classes), class_names, rotation=45, ha="right")
    axes.set_yticks(range(classes), class_names)
    axes.set_xlabel("actual class")
    axes.set_ylabel("decision")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{title}\naccuracy {accuracy:.2%} of {counts.sum():,} images", fontsize=10)
    figure.colorbar(picture, ax=axes, shrink=0.8, label="share of the actual class")
    save(figure, path)


def draw_curves(path: Path, history: Sequence[dict[str, float]], title: str) -> None:
    """Loss, and validation accuracy of each vote, by epoch."""
    figure = Figure(figsize=(9, 3.6))
    losses, accuracies = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    for name, style in (("train/loss", "-"), ("val/loss", "--")):
        if any(name in row for row in history):
            losses.plot(
                epochs,
                [row.get(name, np.nan) for row in history],
                style,
                marker=".",
                color="black",
                label=name,
            )
    for vote, colour in VOTE_COLOURS.items():
        name = f"val/{vote}/accuracy"
        if any(name in row for row in history):
            values = [100 * row.get(name, np.nan) for row in history]
            accuracies.plot(epochs, values, marker=".", color=colour, label=f"{vote} vote")
    losses.set_ylabel("cross-entropy")
    accuracies.set_ylabel("validation accuracy (%)")
    for axes in (losses, accuracies):
        axes.set_xlabel("epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout()
    save(figure, path)
