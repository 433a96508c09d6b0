"""The adaptive vote's accuracy against its arithmetic: the curve over its threshold, as numbers, text and a picture.

Shapes: N images, V crops an image, K classes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from fer_voting.results.plots import INK, VOTE_COLOURS, save
from fer_voting.votes import AdaptiveCost, AdaptiveVote, CropOutputs, Vote, certainty, fit_threshold, soft_vote

SHARES = np.linspace(0, 1, 21)
"""Of images whose crops are computed: the curve's points."""


def adaptive_curve(
    outputs: CropOutputs, labels: Tensor, cost: AdaptiveCost, fitted: Vote | None = None
) -> dict[str, Any]:
    """The accuracy of the adaptive vote at each cost, as plain numbers for JSON.

    `gmacs` of the parts (`trunk`, `whole`, `crops`); `vote`: `accuracy` and `gmacs` of the crops' soft vote;
    `curve`: `share` of the images whose crops are computed, `threshold`, mean `gmacs` and `accuracy`, from the full
    map's decision to the soft vote, thresholds by these images; `chosen`: the same at the fitted threshold, or None.

    Args:
        outputs: of N images, with the full map.
        labels: class ids [N].
        cost: of the network's parts.
        fitted: the adaptive vote with a threshold chosen on validation, if there is one.
    """
    certainties = certainty(outputs.require_full_map())

    def accuracy(vote: Vote) -> float:
        return (vote.scores(outputs).argmax(dim=1) == labels).double().mean().item()

    def at(threshold: float) -> dict[str, float]:
        share = (certainties <= threshold).double().mean().item()
        return {
            "share": share,
            "threshold": threshold,
            "gmacs": cost.mean(share),
            "accuracy": accuracy(AdaptiveVote("adaptive", threshold=threshold)),
        }

    thresholds = dict.fromkeys(fit_threshold(certainties, share) for share in SHARES)  # equal certainties, one point
    return {
        "gmacs": {"trunk": cost.trunk, "whole": cost.full_map, "crops": cost.crops},
        "vote": {"accuracy": accuracy(soft_vote), "gmacs": cost.cost_vote},
        "curve": [at(each) for each in thresholds],
        "chosen": at(fitted.threshold) if isinstance(fitted, AdaptiveVote) and fitted.threshold is not None else None,
    }


def adaptive_text(found: Mapping[str, Any]) -> str:
    """The curve in a few lines: the whole map, the chosen threshold, and the full vote."""
    whole, vote, chosen = found["curve"][0], found["vote"], found["chosen"]
    lines = ["accuracy by arithmetic (GMACs an image):"]
    lines += [f"  whole map           {whole['accuracy']:.2%} at {whole['gmacs']:.3f}"]
    if chosen is not None:
        extra = (chosen["gmacs"] - whole["gmacs"]) / (vote["gmacs"] - whole["gmacs"])
        lines += [
            f"  adaptive vote       {chosen['accuracy']:.2%} at {chosen['gmacs']:.3f}, threshold "
            f"{chosen['threshold']:.3f}: the crops of {chosen['share']:.0%} of the images, {extra:.0%} of the vote's "
            "extra arithmetic"
        ]
    lines += [f"  soft vote of crops  {vote['accuracy']:.2%} at {vote['gmacs']:.3f}"]
    points = ", ".join(f"{point['gmacs']:.3f}: {point['accuracy']:.2%}" for point in found["curve"][::4])
    return "\n".join([*lines, f"  curve               {points}"])


def plot_adaptive(path: Path, found: Mapping[str, Any], title: str) -> None:
    """Accuracy against mean GMACs: the curve, the vote of the crops alone, and the chosen threshold."""
    figure = Figure(figsize=(6, 3.8))
    axes = figure.add_subplot()
    whole, vote, chosen = found["curve"][0], found["vote"], found["chosen"]
    gmacs, accuracies = ([point[key] for point in found["curve"]] for key in ("gmacs", "accuracy"))
    axes.plot(gmacs, 100 * np.array(accuracies), ".-", color=VOTE_COLOURS["adaptive"], label="adaptive vote")
    axes.plot(whole["gmacs"], 100 * whole["accuracy"], "s", color=INK, label="whole map")
    axes.plot(vote["gmacs"], 100 * vote["accuracy"], "D", color=VOTE_COLOURS["soft"], label="soft vote of the crops")
    axes.axhline(100 * vote["accuracy"], color=VOTE_COLOURS["soft"], lw=0.8, ls=":")
    axes.axvline((whole["gmacs"] + vote["gmacs"]) / 2, color=INK, lw=0.8, ls="--", label="half of the extra arithmetic")
    if chosen is not None:
        label = f"threshold {chosen['threshold']:.2f}, from validation"
        axes.plot(
            chosen["gmacs"], 100 * chosen["accuracy"], "o", ms=9, mfc="none", color=VOTE_COLOURS["hard"], label=label
        )
    axes.set_xlabel("multiply-accumulates (billions an image, mean)")
    axes.set_ylabel("accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    axes.set_title(title, fontsize=10)
    figure.tight_layout()
    save(figure, path)
