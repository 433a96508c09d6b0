"""The outputs that a vote needs of a network and their costs, against loops over single images and counts by hand."""

import pytest
import torch
from helpers.networks import noise, settled
from torch import Tensor

from fer_voting.models import VotingResNet18
from fer_voting.models.adaptive import adaptive_cost, full_map_and_crops, has_cut, outputs_for
from fer_voting.models.cost import count_gmacs
from fer_voting.models.images import normalise
from fer_voting.votes import AdaptiveVote, certainty, soft_vote


def decide_at(threshold: float, net: torch.nn.Module, images: Tensor) -> Tensor:
    """The crop logits by which the adaptive vote decides."""
    vote = AdaptiveVote("adaptive", threshold=threshold)
    return vote.deciding_crops(outputs_for(vote, net, images))


def images(count: int = 12) -> Tensor:
    return normalise(torch.from_numpy(noise(count)).permute(0, 3, 1, 2))


@pytest.mark.parametrize("split", ["input", "m1", "m3"])
def test_the_whole_map_is_the_baselines_and_the_crops_are_the_splits(split: str) -> None:
    net, baseline = settled(split), VotingResNet18("baseline", width=4).eval()
    baseline.load_state_dict(net.state_dict())
    with torch.no_grad():
        maps, logits = net.trunk_and_full_map(images())
        outputs = full_map_and_crops(net, images())
        whole, crops = outputs.full_map, outputs.crops
        assert torch.equal(maps, net.trunk(images()))
        assert torch.equal(logits, whole)
        torch.testing.assert_close(net.head(maps), whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(whole, baseline(images())[:, 0], rtol=0, atol=1e-5)
        torch.testing.assert_close(crops, net(images()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("split", ["m1", "m3"])
def test_each_image_is_decided_by_itself(split: str) -> None:
    net = settled(split)
    with torch.no_grad():
        outputs = full_map_and_crops(net, images())
        whole, crops = outputs.full_map, outputs.crops
        threshold = certainty(whole).median().item() + 1e-4
        sure = (certainty(whole) > threshold).tolist()
        assert 3 < sum(sure) < 9
        together = decide_at(threshold, net, images())
        for i, image in enumerate(images()):
            alone = decide_at(threshold, net, image[None])[0]
            torch.testing.assert_close(together[i], alone, rtol=0, atol=1e-5)
            torch.testing.assert_close(alone, whole[i].expand(10, -1) if sure[i] else crops[i], rtol=0, atol=1e-5)
        whole_only, full = (decide_at(t, net, images()) for t in (0.0, 1.0))
        torch.testing.assert_close(soft_vote(whole_only), whole, rtol=0, atol=1e-5)
        torch.testing.assert_close(full, net(images()), rtol=0, atol=1e-5)


def test_crops_are_computed_of_the_unsure_images_alone_and_the_trunk_once() -> None:
    net = settled("m2")
    seen: dict[str, list[int]] = {"conv1": [], "layer2.1.conv2": [], "layer3": []}
    for name, batches in seen.items():
        net.backbone.get_submodule(name).register_forward_hook(
            lambda module, inputs, output, batches=batches: batches.append(len(inputs[0]))
        )
    with torch.no_grad():
        threshold = certainty(full_map_and_crops(net, images()).full_map).sort().values[4].item() + 1e-6
        for batches in seen.values():
            batches.clear()
        decide_at(threshold, net, images())
    assert [size for size in seen["conv1"] if size] == [12]  # and none for the rest
    assert [size for size in seen["layer2.1.conv2"] if size] == [12]
    assert [size for size in seen["layer3"] if size] == [12, 50]  # whole maps, ten crops of five images


def test_a_network_without_crops_is_refused() -> None:
    assert not has_cut(settled("baseline"))
    assert has_cut(settled("input"))
    for net in (settled("baseline"), torch.nn.Identity()):
        with pytest.raises(ValueError, match="a baseline has nothing to adapt"):
            decide_at(0.5, net, images())
        with pytest.raises(ValueError, match="a baseline has nothing to adapt"):
            adaptive_cost(net, 24)


@pytest.mark.parametrize(("split", "of_vote"), [("m1", 6.656), ("m2", 4.852), ("m3", 3.053)])
def test_costs_of_the_papers_networks(split: str, of_vote: float) -> None:
    """The parts add up to Table 2's figures: 1.255 without the vote, `of_vote` with it."""
    cost = adaptive_cost(VotingResNet18(split), 48)
    assert cost.cost_full_map == pytest.approx(count_gmacs(VotingResNet18("baseline"), 48), rel=1e-12)
    assert cost.cost_full_map == pytest.approx(1.255, abs=1e-3)
    assert cost.cost_vote == pytest.approx(of_vote, abs=1e-3)
    assert cost.mean(0.0) == cost.cost_full_map
    assert cost.mean(1.0) == pytest.approx(cost.cost_vote + cost.full_map)
    assert cost.half == pytest.approx((1.255 + of_vote) / 2, abs=1e-3)
    # A crop is (5/6)^2 of the map, and there are ten; rounding of odd maps' sides aside.
    assert cost.crops / cost.full_map == pytest.approx(10 * 25 / 36, rel=0.03)


def test_the_cost_of_the_crops_by_hand() -> None:
    """Behind the cut of width 4 at 48 pixels: ten crops of 10x10 through layer4 (16 to 32 channels, 5x5) and the last
    layer; four operations an element of BatchNorm."""
    found = adaptive_cost(VotingResNet18("m3", 7, 4), 48)
    convolutions = 25 * 32 * (16 * 9 + 32 * 9 + 16 + 2 * 32 * 9)
    assert found.crops == pytest.approx(10 * (convolutions + 5 * 25 * 32 * 4 + 32 * 7) / 1e9)
    assert found.mean(0) == pytest.approx(count_gmacs(VotingResNet18("baseline", 7, 4), 48))
    assert found.cost_vote == pytest.approx(count_gmacs(VotingResNet18("m3", 7, 4), 48))
    assert found.mean(0.5) == pytest.approx((found.mean(0) + found.mean(1)) / 2)
