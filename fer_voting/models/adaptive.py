"""The parts of the adaptive vote that need a network: its outputs, with crops only where a vote needs them, and costs.

Shapes: B images, V crops an image, K classes; images `[B, 3, H, W]`.
"""

import torch
from torch import Tensor, nn

from fer_voting.models.cost import count_gmacs
from fer_voting.models.voting import VotingNetwork
from fer_voting.votes import AdaptiveCost, CropOutputs, Vote, certainty


def has_cut(net: nn.Module) -> bool:
    """Whether the adaptive vote can cut `net`: it takes crops of one of its maps."""
    return isinstance(net, VotingNetwork) and net.votes > 1


def require_cut(net: nn.Module) -> VotingNetwork:
    """`net`. Raises ValueError if the adaptive vote cannot cut it."""
    if not isinstance(net, VotingNetwork) or not has_cut(net):
        raise ValueError("the adaptive vote needs a network that takes crops of a map: a baseline has nothing to adapt")
    return net


def full_map_and_crops(net: VotingNetwork, images: Tensor) -> CropOutputs:
    """The logits of the full map and of all crops, by one pass up to the cut."""
    maps, full_map = net.trunk_and_full_map(images)
    return CropOutputs(net.head(net.crop(maps)).unflatten(0, (len(images), net.votes)), full_map)


def outputs_for(vote: Vote, net: nn.Module, images: Tensor) -> CropOutputs:
    """The outputs that `vote` needs of the images, float32. Crops that it does not need get the logits of the full map.

    Raises ValueError if the vote needs the full map, and `net` has no cut.
    """
    if not vote.needs_full_map:
        return CropOutputs(net(images).float())
    net = require_cut(net)
    maps, full_map = net.trunk_and_full_map(images)
    full_map = full_map.float()
    undecided = _rows(vote.undecided(full_map))
    crops = full_map[:, None].repeat(1, net.votes, 1)
    if not torch.compiler.is_exporting() and not len(undecided):
        return CropOutputs(crops, full_map)
    computed = net.head(net.crop(maps[undecided])).float().unflatten(0, (-1, net.votes))
    return CropOutputs(crops.index_copy(0, undecided, computed), full_map)


def deciding_crops_at(threshold: Tensor, net: VotingNetwork, images: Tensor, classes: int | None = None) -> Tensor:
    """`AdaptiveVote.deciding_crops` at a threshold that is an input, `[1]`: `[B, V, K]`, float32.

    At 1 no full map is classified, because all crops count whatever it says. Written for the exporter of ONNX: in the
    graph it writes, what no image needs has an empty batch.

    Args:
        classes: K, if the network returns more numbers behind the K logits; they are chosen with them.
    """
    rows = _rows(images.new_ones(images.shape[0]) * (threshold < 1))
    maps, full_map = net.trunk_and_full_map(images, rows)
    full_map = _put_back(full_map, rows, images.shape[0])
    undecided = certainty(full_map[:, :classes]) <= threshold
    rows = _rows(undecided)
    crops = net.head(net.crop(maps[rows])).unflatten(0, (-1, net.votes))
    return _put_back(crops, rows, images.shape[0]).where(undecided[:, None, None], full_map[:, None])


def _rows(chosen: Tensor) -> Tensor:
    """Positions of what is not zero in `[B]`."""
    rows = chosen.nonzero()[:, 0]
    if torch.compiler.is_exporting():
        torch._check(rows.shape[0] > 0)  # only for the tracer: the exported file also takes none
    return rows


def _put_back(computed: Tensor, rows: Tensor, images: int) -> Tensor:
    """Float32, one row an image: what was computed of some, 0 for the others."""
    computed = computed.float()
    return computed.new_zeros(images, *computed.shape[1:]).index_copy(0, rows, computed)


def adaptive_cost(net: nn.Module, image_size: int, limit: float | None = None) -> AdaptiveCost:
    """The costs of a network's parts, counted on the meta device.

    Args:
        limit: of the mean cost that the adaptive vote may have, in GMACs an image; None: half of the extra arithmetic.

    Raises ValueError if `net` has no cut.
    """
    net = require_cut(net)
    trunk = count_gmacs(_Part(net, full_map=False), image_size)
    full_map = count_gmacs(_Part(net, full_map=True), image_size) - trunk
    return AdaptiveCost(trunk, full_map, count_gmacs(net, image_size) - trunk, limit)


class _Part(nn.Module):
    """A network up to the cut, or also behind it, on the full map."""

    def __init__(self, net: VotingNetwork, full_map: bool) -> None:
        super().__init__()
        self.net, self.full_map = net, full_map

    def forward(self, images: Tensor) -> Tensor:
        return self.net.trunk_and_full_map(images)[1] if self.full_map else self.net.trunk(images)
