"""The adaptive vote: the full map is classified first, and only where that is not certain do its ten crops vote.

The map at the cut is computed once for both, and the network behind the cut has one set of weights for both. The idea
comes from early exits (Teerapittayanon et al. 2016, arXiv:1709.01686): the more certain an image, the less arithmetic.
`models.adaptive` has the parts that need a network.

Shapes: B or N images, V crops an image, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from fer_voting.votes.simple import certainty, soft_vote
from fer_voting.votes.vote import CropOutputs, Vote, check_number, fit_temperature

if TYPE_CHECKING:  # commands that only need the votes' names start without torch
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

CURVE_POINTS = 21
"""Points of `adaptive_curve`, at equal steps of the share of images whose crops are computed."""


@dataclass(frozen=True)
class AdaptiveCost:
    """GMACs of one image, by what is computed (`models.adaptive.adaptive_cost`)."""

    trunk: float
    """The network up to the cut."""
    full_map: float
    """The network behind the cut, on the full map."""
    crops: float
    """The network behind the cut, on all crops of the map."""
    limit: float | None = None
    """The mean that the adaptive vote may cost; None: `half`."""

    def mean(self, share: float) -> float:
        """Mean over images of which a share (0 to 1) has its crops computed."""
        return self.trunk + self.full_map + share * self.crops

    @property
    def cost_full_map(self) -> float:
        """Cost of an image that is decided by its full map: the network without the vote."""
        return self.trunk + self.full_map

    @property
    def cost_vote(self) -> float:
        """Cost of an image that is decided only by its crops: the network with the vote."""
        return self.trunk + self.crops

    @property
    def half(self) -> float:
        """Halfway between the two: half of the vote's extra arithmetic."""
        return (self.cost_full_map + self.cost_vote) / 2

    def share(self, mean_gmacs: float) -> float:
        """The share of images whose crops a mean of `mean_gmacs` pays for, at most 1.

        Raises ValueError if the full map costs more than that.
        """
        if not mean_gmacs >= self.cost_full_map - 1e-12:
            raise ValueError(
                f"`mean_gmacs` (={mean_gmacs:g}) must be at least {self.cost_full_map:.4g}, what the whole map costs; "
                f"{self.mean(1):.4g} computes the crops of every image"
            )
        return min(1.0, max(0.0, (mean_gmacs - self.cost_full_map) / self.crops))


@dataclass(frozen=True)
class AdaptiveVote(Vote):
    """The full map's decision where its certainty is above a threshold, elsewhere the soft vote of the crops.

    At threshold 0 that is the decision of the full map, at 1 the soft vote.
    """

    threshold: float | None = None
    """0 to 1: the crops of an image count if the full map's certainty is not above it."""
    mean_gmacs: float | None = None
    """GMACs an image, mean over the validation images."""

    needs_full_map: ClassVar[bool] = True
    needs: ClassVar[tuple[str, ...]] = ("threshold",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.threshold is not None:
            check_number("threshold", self.threshold, "from 0 to 1", lambda value: 0 <= value <= 1)
        if self.mean_gmacs is not None:
            check_number("mean_gmacs", self.mean_gmacs, "a number from 0", lambda value: 0 <= value < math.inf)

    def scores(self, outputs: CropOutputs) -> Tensor:
        return self.deciding_crops(outputs).mean(dim=1)

    def deciding_crops(self, outputs: CropOutputs) -> Tensor:
        """The full map's logits, V times, where it is certain; elsewhere the crops': `[B, V, K]`."""
        full_map = outputs.full_map
        return outputs.crops.where(self.undecided(full_map)[:, None, None], full_map[:, None])

    def undecided(self, full_map: Tensor) -> Tensor:
        """Where the full map is not certain: logits `[B, K]` -> bool `[B]`."""
        return certainty(full_map) <= self._fitted_threshold

    @property
    def _fitted_threshold(self) -> float:
        threshold = self.require_fitted().threshold
        assert threshold is not None
        return threshold

    def fit(self, outputs: CropOutputs, labels: Tensor | NDArray[np.int64], cost: AdaptiveCost | None = None) -> Self:
        """This vote with the threshold, the temperature and the mean cost that validation images give; see `Vote.fit`.

        Raises ValueError if there are no images, `cost` is None, or its limit is less than the full map costs.
        """
        if cost is None:
            raise ValueError("the adaptive vote is fitted with the costs of a network's parts: give `cost`")
        certainties = certainty(outputs.full_map)
        threshold = fit_threshold(certainties, cost.share(cost.half if cost.limit is None else cost.limit))
        share = (certainties <= threshold).double().mean().item()
        vote = replace(self, threshold=threshold, mean_gmacs=cost.mean(share))
        return replace(vote, temperature=fit_temperature(vote.deciding_crops(outputs).double().mean(dim=1), labels))


def fit_threshold(certainties: Tensor | NDArray[np.floating], share: float) -> float:
    """The threshold of the adaptive vote at which the crops of at most a share of the images are computed.

    Args:
        certainties: of the full map, [N], N >= 1.
        share: wished, 0 to 1; as much of it is used as equal certainties allow.

    Raises ValueError if there are no images or `share` is not from 0 to 1.

    >>> import numpy as np
    >>> fit_threshold(np.array([0.25, 0.5, 0.75, 1.0]), 0.5)
    0.625
    """
    import numpy as np

    if not len(certainties):
        raise ValueError("a vote needs at least one image to be fitted on")
    if not 0 <= share <= 1:
        raise ValueError(f"`share` (={share}) must be from 0 to 1")
    levels, counts = np.unique(np.asarray(certainties, np.float64), return_counts=True)
    unsure = np.cumsum(counts) <= share * len(certainties) + 1e-9
    if unsure.all():
        return 1.0
    if not unsure.any():
        return 0.0
    last = int(np.flatnonzero(unsure)[-1])
    below, above = levels[last : last + 2]
    halfway = (below + above) / 2  # so that rounding moves no image over it
    return float(halfway if np.float32(halfway) < above else below)  # of neighbours in float32, there is none between


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
    certainties = certainty(outputs.full_map)

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

    shares = [i / (CURVE_POINTS - 1) for i in range(CURVE_POINTS)]
    thresholds = dict.fromkeys(fit_threshold(certainties, share) for share in shares)  # equal certainties, one point
    return {
        "gmacs": {"trunk": cost.trunk, "whole": cost.full_map, "crops": cost.crops},
        "vote": {"accuracy": accuracy(soft_vote), "gmacs": cost.cost_vote},
        "curve": [at(each) for each in thresholds],
        "chosen": at(fitted.threshold) if isinstance(fitted, AdaptiveVote) and fitted.threshold is not None else None,
    }
