"""Accuracy beside what an image costs: the points of the picture with the Pareto front."""

from collections.abc import Sequence
from dataclasses import dataclass

from fer_voting.results.compare import Figure
from fer_voting.results.load import Section
from fer_voting.results.paper import paper
from fer_voting.results.statistics import mean_std

__all__ = ["CostPoint", "cost_points"]


@dataclass(frozen=True)
class CostPoint:
    """A split's accuracy (%), its standard deviation over seeds, and what an image costs: MiB that a forward pass in
    training keeps, and giga multiply-accumulates; None where nothing was measured."""

    split: str
    accuracy: float
    std: float | None
    forward_mib: float | None
    gmacs: float | None


def cost_points(section: Section, figures: Sequence[Figure]) -> tuple[list[CostPoint], list[CostPoint]]:
    """Ours and the paper's splits by the soft vote; the paper's only beside runs of its own protocol."""
    ours = []
    for figure in figures:
        records = section.finished(figure.judge.split)
        if figure.judge.vote == "soft" and figure.mean is not None:
            std = None if figure.std is None else 100 * figure.std
            mib = [m for record in records if (m := record.result["forward_mib_per_image"]) is not None]
            mean_mib, _ = mean_std(mib)
            gmacs = records[0].result["gmacs"]
            ours.append(CostPoint(figure.judge.split, 100 * figure.mean, std, mean_mib, gmacs))
    theirs = []
    costs = {row["architecture"]: row for row in paper()["table2"] if row["input_size"] == 48}
    for row in paper()["table3_validation_accuracy"]:
        split = row["architecture"]
        accuracy = row.get(section.dataset if split == "baseline" else f"{section.dataset}_soft")
        if accuracy is not None and not section.setting:
            theirs.append(CostPoint(split, accuracy, None, costs[split]["forward_pass_mb"], costs[split]["gflops"]))
    return ours, theirs
