"""The cost of each split, and the points of the plot of accuracy against cost."""

from collections.abc import Sequence
from statistics import fmean

from fer_voting.results.compare import Accuracy
from fer_voting.results.load import RunGroup, RunRecord
from fer_voting.results.paper import paper_costs
from fer_voting.results.statistics import CostPoint


def mean_cost(runs: Sequence[RunRecord], key: str) -> float | None:
    """Mean of an entry of result.json over the runs that measured it; None if none did.

    Of runs with the same numbers, those of `model.memory=paper` give the memory where there are any.
    """
    measured = [run for run in runs if run.result[key] is not None]
    if key == "forward_mib_per_image":
        measured = [run for run in measured if run.config["model"].get("memory") != "lean"] or measured
    values = [run.result[key] for run in measured]
    return fmean(values) if values else None


def cost_points(group: RunGroup, accuracies: Sequence[Accuracy]) -> tuple[list[CostPoint], list[CostPoint]]:
    """Our and the paper's splits by the soft vote; the paper's only for runs of its own protocol."""
    points = []
    for one in accuracies:
        if one.method.vote == "soft" and one.mean is not None:
            runs = group.finished(one.method.split)
            std = None if one.std is None else 100 * one.std
            costs = mean_cost(runs, "forward_mib_per_image"), mean_cost(runs, "gmacs")
            points.append(CostPoint(one.method.split, 100 * one.mean, std, *costs))
    return points, [] if group.variant else paper_costs(group.dataset)
