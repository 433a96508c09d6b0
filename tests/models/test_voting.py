"""The vote in any backbone, against torchvision's crops and the backbone's own parts run one after the other."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.transforms.v2.functional import ten_crop

from fer_voting.models import VotingNetwork, VotingResNet18
from fer_voting.models.images import InputNormalisation, normalise

SIDE = 24


class Small(nn.Module):
    """Three convolutions and a head, each a module."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).mean((2, 3)))


def small(crop_after: str | None = "first", image_size: int | None = None) -> VotingNetwork:
    torch.manual_seed(0)
    return VotingNetwork(Small(), crop_after, image_size).eval()


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("crop_after", ["input", "first", "second"])
def test_the_rest_sees_torchvisions_ten_crops(crop_after: str) -> None:
    net = small(crop_after)
    back, x = small(None).backbone, images()  # the same weights, without the hook
    before, behind = {
        "input": (nn.Identity(), back),
        "first": (back.first, lambda m: back.head(back.second(m).mean((2, 3)))),
        "second": (nn.Sequential(back.first, back.second), lambda m: back.head(m.mean((2, 3)))),
    }[crop_after]
    maps = before(x)
    side = maps.shape[-1] * 5 // 6
    expected = torch.stack([torch.cat([behind(crop) for crop in ten_crop(one[None], [side, side])]) for one in maps])
    assert net.votes == 10
    torch.testing.assert_close(net(x), expected)
    torch.testing.assert_close(net.trunk(x), maps)


def test_without_a_cut_it_is_the_backbone() -> None:
    net = small(None)
    assert torch.equal(net(images())[:, 0], net.backbone(images()))
    assert net.votes == 1
    for part in (net.trunk, net.head):
        with pytest.raises(ValueError, match="no cut"):
            part(images())


@pytest.mark.parametrize("split", ["input", "m1", "m2", "m3"])
@torch.no_grad()
def test_maps_and_rest_are_the_forward_pass_cut_in_two(split: str) -> None:
    torch.manual_seed(0)
    net = VotingResNet18(split, width=4).eval()
    maps = net.trunk(images())
    crops = net.head(net.crop(maps)).unflatten(0, (3, 10))
    torch.testing.assert_close(crops, net(images()), rtol=0, atol=0)
    whole = VotingResNet18("baseline", width=4).eval()
    whole.load_state_dict(net.state_dict())
    torch.testing.assert_close(net.head(maps), whole(images())[:, 0], rtol=0, atol=0)


def test_the_trunk_runs_once_for_the_whole_map_and_the_crops() -> None:
    net, seen = small("first"), []
    net.backbone.first[0].register_forward_hook(lambda module, args, output: seen.append(len(output)))
    net.backbone.second.register_forward_hook(lambda module, args, output: seen.append(-len(output)))
    maps = net.trunk(images())
    assert seen == [3]
    net.head(maps)
    net.head(net.crop(maps))
    assert seen == [3, 0, -3, 0, -30]  # of no images before the cut


def test_a_backbone_that_fails_without_images_gets_a_blank_one() -> None:
    class Picky(Small):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x * len(x) ** -1)  # ZeroDivisionError of an empty batch

    torch.manual_seed(0)
    net = VotingNetwork(Picky(), "first", SIDE).eval()
    net.head(net.trunk(images()))
    with pytest.raises(ZeroDivisionError):
        VotingNetwork(Picky(), "first").head(net.trunk(images()))


def test_a_copy_has_a_cut_of_its_own() -> None:
    net = small()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(images()), net(images()))
        nn.init.zeros_(other.backbone.head.weight)
        assert not torch.equal(other(images()), net(images()))
        assert torch.equal(other.trunk(images()), net.trunk(images()))


def test_weights_have_the_names_of_the_backbone_alone() -> None:
    theirs = resnet18(num_classes=7)
    net = VotingNetwork(copy.deepcopy(theirs), "layer2")
    assert list(net.state_dict()) == list(theirs.state_dict())
    for parameter in theirs.parameters():
        nn.init.normal_(parameter)
    net.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(net.state_dict())
    inside = nn.ModuleDict({"net": net})
    assert list(inside.state_dict()) == [f"net.{key}" for key in theirs.state_dict()]
    inside.load_state_dict(inside.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        net.load_state_dict({**theirs.state_dict(), "more": torch.zeros(1)})


def test_a_module_that_is_not_there_is_an_error() -> None:
    with pytest.raises(
        ValueError, match=r"`crop_after` \(='third'\) must name a module of the Small: first, second, head"
    ):
        small("third")


def test_a_backbone_that_passes_the_cut_by_is_an_error() -> None:
    class Direct(Small):
        def forward(self, x: Tensor) -> Tensor:
            for part in self.first:
                x = part(x)
            return self.head(self.second(x).mean((2, 3)))

    with pytest.raises(ValueError, match="does not run `first` once as a module"):
        VotingNetwork(Direct(), "first")(images())
    with pytest.raises(ValueError, match="does not run `first`"):
        VotingNetwork(Direct(), "first").trunk(images())


class FixedSize(Small):
    """Takes maps of 24 pixels alone after `first`, and any after `second`."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.head(self.second(x.unflatten(2, (SIDE, 1)).flatten(2, 3)).mean((2, 3)))


def test_the_probe_names_the_stages_that_work() -> None:
    stages = {"m1": "first", "m2": "second"}
    with pytest.raises(ValueError, match=r"FixedSize does not work on images of 24.*first.*work after m2 \(second\)$"):
        VotingNetwork(FixedSize(), "first", SIDE, stages)
    net = VotingNetwork(FixedSize(), "second", SIDE, stages).eval()
    assert net(images()).shape == (3, 10, 5)
    assert next(net.parameters()).device.type == "cpu"
    with pytest.raises(ValueError, match=r"a map of 1 pixels is too small.*crops work after m1"):
        VotingResNet18("m3", width=4, image_size=4)


def test_own_statistics_are_those_of_pixels_from_0_to_1() -> None:
    pixels = torch.arange(12, dtype=torch.uint8).view(1, 3, 2, 2) * 20
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
    expected = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    torch.testing.assert_close(InputNormalisation(mean, std)(normalise(pixels)), expected)
    net = VotingNetwork(nn.Flatten(), None, mean=mean, std=std)
    torch.testing.assert_close(net(normalise(pixels))[:, 0], expected.flatten(1))
    assert not net.state_dict()
    with pytest.raises(ValueError, match="three numbers"):
        InputNormalisation([0.5], [0.5])
