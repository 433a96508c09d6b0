"""The adaptive vote: the whole map is classified first, and only where that is not certain do its ten crops vote.

The cut's map is computed once for both, and the network behind the cut has one set of weights for both. The idea is
that of early exits (Teerapittayanon et al. 2016, arXiv:1709.01686): the more certain an image, the less arithmetic.

Shapes: B batch, V crops an image, K classes, N images of a data set; images `[B, 3, H, W]`.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fer_voting.models.cost import count_gmacs
from fer_voting.models.voting import VotingNetwork
from fer_voting.votes import Fitted, adaptive_logits, certainty, fit_threshold, fit_vote


@dataclass(frozen=True)
class AdaptiveCost:
    """GMACs of one image, by what is computed (`models.cost.count_gmacs`)."""

    trunk: float
    """Up to the cut."""
    whole: float
    """Behind the cut, of the whole map."""
    crops: float
    """Behind the cut, of all its crops."""

    def mean(self, share: float) -> float:
        """Mean over images of which a share (0 to 1) has its crops computed."""
        return self.trunk + self.whole + share * self.crops

    @property
    def of_whole(self) -> float:
        """Of an image that is decided by its whole map: the network without the vote."""
        return self.trunk + self.whole

    @property
    def of_vote(self) -> float:
        """Of the vote of the crops alone: the network with it."""
        return self.trunk + self.crops

    @property
    def half(self) -> float:
        """Halfway between the two: half of the vote's extra arithmetic."""
        return (self.of_whole + self.of_vote) / 2

    def share(self, mean_gmacs: float) -> float:
        """The share of images whose crops a mean of `mean_gmacs` pays for, at most 1.

        Raises ValueError if that is less than the whole map costs.
        """
        if not mean_gmacs >= self.of_whole - 1e-12:
            raise ValueError(
                f"`mean_gmacs` (={mean_gmacs:g}) must be at least {self.of_whole:.4g}, what the whole map costs; "
                f"{self.mean(1):.4g} computes the crops of every image"
            )
        return min(1.0, max(0.0, (mean_gmacs - self.of_whole) / self.crops))


def has_cut(net: nn.Module) -> bool:
    """Whether the adaptive vote can cut `net`: it takes crops of one of its maps."""
    return isinstance(net, VotingNetwork) and net.votes > 1


def require_cut(net: nn.Module) -> VotingNetwork:
    """`net`. Raises ValueError if the adaptive vote cannot cut it."""
    if not isinstance(net, VotingNetwork) or not has_cut(net):
        raise ValueError("the adaptive vote needs a network that takes crops of a map: a baseline has nothing to adapt")
    return net


def whole_and_crops(net: VotingNetwork, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the whole map `[B, K]` and crop logits `[B, V, K]`, by one pass up to the cut."""
    maps, whole = net.maps_and_logits(images)
    return whole, net.rest(net.crop(maps)).unflatten(0, (len(images), net.votes))


class AdaptiveNetwork(nn.Module):
    """Images `[B, 3, H, W]` -> the logits by which the adaptive vote decides, `[B, V, K]` (`votes.adaptive_logits`).

    Args:
        net: with a cut; shared, not copied.
        threshold: 0 to 1: the crops are computed of the images whose whole map is not more certain than that.

    Raises ValueError if `net` has no cut.
    """

    def __init__(self, net: nn.Module, threshold: float) -> None:
        super().__init__()
        self.net = require_cut(net)
        self.threshold = threshold

    def forward(self, images: Tensor) -> Tensor:
        maps, whole = self.net.maps_and_logits(images)
        whole = whole.float()
        unsure = (certainty(whole) <= self.threshold).nonzero()[:, 0]
        logits = whole[:, None].repeat(1, self.net.votes, 1)
        if torch.compiler.is_exporting():
            torch._check(unsure.shape[0] > 0)  # for the tracer alone: the file also takes none
        elif not len(unsure):
            return logits
        crops = self.net.rest(self.net.crop(maps[unsure])).float()
        return logits.index_copy(0, unsure, crops.unflatten(0, (-1, self.net.votes)))


def adaptive_cost(net: nn.Module, image_size: int) -> AdaptiveCost:
    """What the parts of a network cost, counted on the meta device.

    Raises ValueError if `net` has no cut.
    """
    net = require_cut(net)
    trunk = count_gmacs(_Part(net, whole=False), image_size)
    whole = count_gmacs(_Part(net, whole=True), image_size) - trunk
    return AdaptiveCost(trunk, whole, count_gmacs(net, image_size) - trunk)


class _Part(nn.Module):
    """A network up to the cut, or also behind it, of the whole map."""

    def __init__(self, net: VotingNetwork, whole: bool) -> None:
        super().__init__()
        self.net, self.whole = net, whole

    def forward(self, images: Tensor) -> Tensor:
        return self.net.maps_and_logits(images)[1] if self.whole else self.net.maps(images)


def fit_adaptive(
    whole: Tensor | NDArray[np.floating],
    crops: Tensor | NDArray[np.floating],
    labels: Tensor | NDArray[np.int64],
    cost: AdaptiveCost,
    mean_gmacs: float | None = None,
) -> Fitted:
    """What the adaptive vote takes from validation images: threshold, temperature, and the mean cost there.

    Args:
        whole: logits of the whole map, [N, K].
        crops: crop logits [N, V, K].
        labels: class ids [N].
        mean_gmacs: wished, at most; None: half of the vote's extra arithmetic (`AdaptiveCost.half`).

    Raises ValueError if there are no images or `mean_gmacs` is less than the whole map costs.
    """
    whole, crops = torch.as_tensor(whole), torch.as_tensor(crops)
    certainties = certainty(whole)
    threshold = fit_threshold(certainties, cost.share(cost.half if mean_gmacs is None else mean_gmacs))
    fitted = fit_vote(adaptive_logits(whole, crops, threshold), labels, "adaptive")
    share = (certainties <= threshold).double().mean().item()
    return replace(fitted, threshold=threshold, mean_gmacs=cost.mean(share))
