"""Logits in float32, against the same layer computed by hand in float64."""

import copy
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fer_voting.models import VotingResNet18
from fer_voting.models.last_layer import compute_logits_in_float32, find_last_layer
from fer_voting.models.timm_network import timm_network
from fer_voting.models.voting import VotingNetwork, vote_in


class Small(nn.Module):
    """A network that ends with a convolution of K outputs."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3)
        self.head = nn.Conv2d(8, num_classes, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x).mean(dim=(2, 3), keepdim=True)).flatten(1)


NETWORKS = {
    "the paper's": partial(VotingResNet18, "m3", 7, 4),
    "a convolution": partial(vote_in, Small, "m1", 7, None, {"m1": "first"}),
    "timm, torch's linear layer": partial(timm_network, "m1", 7, 48, "resnet18"),
    "timm, its own linear layer": partial(timm_network, "m1", 7, 64, "mobilenetv3_small_050"),
}


@pytest.mark.filterwarnings("ignore:.*lazily.*")
@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_logits_are_float32_where_the_rest_is_bfloat16(make: partial[VotingNetwork]) -> None:
    torch.manual_seed(0)
    net = make().eval()
    last = net.backbone.get_submodule(find_last_layer(net, 7))
    seen = {}
    last.register_forward_hook(lambda module, inputs, output: seen.update(inputs=inputs[0], output=output))
    side = 64 if "mobilenet" in str(make) else 48
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = net(torch.randn(2, 3, side, side))
    assert (seen["inputs"].dtype, logits.dtype) == (torch.bfloat16, torch.float32)
    weight, bias = (None if each is None else each.double() for each in (last.weight, last.bias))
    inputs = seen["inputs"].double()
    exact = F.linear(inputs.flatten(1), weight.flatten(1), bias)
    torch.testing.assert_close(seen["output"].flatten(1).double(), exact, rtol=1e-5, atol=1e-6)
    assert logits.bfloat16().float().ne(logits).any()


def test_logits_of_weights_in_half_precision_are_float32_and_those_of_float64_stay() -> None:
    images = torch.randn(2, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    for dtype, logits in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        net = VotingResNet18("m3", width=4).eval().to(dtype)
        assert net(images.to(dtype)).dtype == logits


def test_in_float32_nothing_changes() -> None:
    """The same parameters under the same names, the same logits and gradients bit for bit, no random number drawn."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(12, 7))
    net = copy.deepcopy(plain)
    state = torch.get_rng_state()
    compute_logits_in_float32(net, 7)
    assert torch.equal(torch.get_rng_state(), state)
    assert type(net[1]) is not nn.Linear
    images = torch.randn(4, 3, 2, 2)
    for each in (plain, net):
        each(images).square().sum().backward()
    assert torch.equal(plain(images), net(images))
    for (name, of_plain), (same, of_net) in zip(plain.named_parameters(), net.named_parameters(), strict=True):
        assert (name, of_plain.tolist(), of_plain.grad.tolist()) == (same, of_net.tolist(), of_net.grad.tolist())


class Cosine(nn.Linear):
    """A layer of somebody's own, which is more than a product."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(F.normalize(x), F.normalize(self.weight))


def test_a_layer_that_computes_something_else_stays() -> None:
    net = nn.Sequential(nn.Flatten(), Cosine(12, 7))
    compute_logits_in_float32(net, 7)
    assert type(net[1]) is Cosine
