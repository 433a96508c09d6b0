"""A network's accuracy on worse images: a row a corruption and strength, as a table and a plot."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fer_voting.data.corruptions import CORRUPTIONS
from fer_voting.results.evaluation import accuracy_with_interval
from fer_voting.results.plots import INK, SPLIT_COLOURS, VOTE_COLOURS
from fer_voting.results.table import Table
from fer_voting.results.text import NOTHING
from fer_voting.system.text import escape_mathtext
from fer_voting.votes import CropOutputs, Vote

WHOLE_MAP = "whole map"
"""The decision of a network with crops by its whole map: the baseline with the same parameters."""

RobustnessRow = dict[str, Any]
"""`corruption` and `strength` (None for the images as they are), and `votes`: vote -> `accuracy` and `interval`."""


def robustness_row(
    corruption: str | None,
    strength: float | None,
    outputs: CropOutputs,
    labels: NDArray[np.int64],
    classes: int,
    votes: Mapping[str, Vote],
    groups: NDArray[np.str_] | None = None,
) -> RobustnessRow:
    """The accuracies by each vote, and of a network with crops by its whole map, with 95 % intervals.

    Args:
        outputs: of the N images.
        labels: int64 [N].
        groups: of the images, as `evaluation.evaluate_predictions` takes them.
    """
    decisions = {name: vote.scores(outputs).argmax(dim=1) for name, vote in votes.items()}
    if outputs.has_full_map:
        decisions[WHOLE_MAP] = outputs.full_map.argmax(dim=1)
    figures = {
        name: accuracy_with_interval(labels, of_vote.numpy(), classes, groups) for name, of_vote in decisions.items()
    }
    return {"corruption": corruption, "strength": strength, "votes": figures}


def robustness_table(rows: Sequence[RobustnessRow], noun: str = " vote") -> Table:
    """Accuracy in percent, a row a corruption and strength, a column a vote, whose name `noun` follows."""
    votes = list(rows[0]["votes"])
    header = ["corruption", "strength", *(vote if vote == WHOLE_MAP else f"{vote}{noun}" for vote in votes)]
    table = Table(header, [])
    for row in rows:
        name, strength = row["corruption"], row["strength"]
        about = [f"{name} ({CORRUPTIONS[name].unit})", f"{strength:g}"] if name else ["none", NOTHING]
        table.rows.append([*about, *(f"{100 * row['votes'][vote]['accuracy']:.2f}" for vote in votes)])
    return table


def robustness_figure(
    rows: Sequence[RobustnessRow], title: str, shown: Sequence[str] = ("soft", "hard", WHOLE_MAP)
) -> Figure:
    """Accuracy by strength, a panel a corruption, a line a vote or network; the bars are 95 % intervals.

    `NAME, whole map` has the colour of `NAME`, and a dashed line.
    """
    names = list(dict.fromkeys(row["corruption"] for row in rows if row["corruption"]))
    votes = [vote for vote in shown if vote in rows[0]["votes"]]
    networks = list(dict.fromkeys(vote.removesuffix(f", {WHOLE_MAP}") for vote in votes))
    colours = {network: f"C{number}" for number, network in enumerate(networks)}
    colours |= {**VOTE_COLOURS, WHOLE_MAP: SPLIT_COLOURS["baseline"]}
    columns = 3
    figure = Figure(figsize=(3.2 * columns, 2.6 * -(-len(names) // columns)))
    panels = figure.subplots(-(-len(names) // columns), columns, sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, names, strict=False):
        own = [row for row in rows if row["corruption"] in (None, name)]
        for number, vote in enumerate(votes):
            network = vote.removesuffix(f", {WHOLE_MAP}")
            places = np.arange(len(own)) + min(0.08, 0.4 / len(votes)) * (number - (len(votes) - 1) / 2)
            accuracies = np.array([row["votes"][vote]["accuracy"] for row in own])
            ends = np.array([row["votes"][vote]["interval"] for row in own]).T
            errors = 100 * np.abs(ends - accuracies)
            look = {"color": colours[network], "ls": "-" if vote == network else "--", "label": vote}
            axes.errorbar(places, 100 * accuracies, errors, marker="o", ms=3, lw=1.2, **look)
        axes.set_xticks(range(len(own)), ["none", *(f"{row['strength']:g}" for row in own[1:])], fontsize=8)
        axes.set_xlabel(CORRUPTIONS[name].unit, fontsize=8)
        axes.set_title(name, fontsize=9)
        axes.grid(alpha=0.3)
    for axes in panels[len(names) :]:
        axes.remove()
    for axes in panels[::columns]:
        axes.set_ylabel("accuracy (%)", color=INK)
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, frameon=False, fontsize=8, loc="lower center", ncols=min(4, len(votes)))
    figure.suptitle(escape_mathtext(title), fontsize=10)
    figure.tight_layout(rect=(0, 0.01 + 0.025 * -(-len(votes) // 4), 1, 1))
    return figure
