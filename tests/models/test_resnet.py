"""The network against an independent one, built here from torchvision's resnet18 and its crops."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import resnet18
from torchvision.models.resnet import BasicBlock
from torchvision.transforms.v2.functional import five_crop, horizontal_flip, ten_crop

from fer_voting.models import SPLITS, VotingResNet18
from fer_voting.models.cost import count_parameters

IMAGE_SIZE = {"baseline": 12, "input": 12, "m1": 12, "m2": 12, "m3": 24}
"""The smallest whose maps divide by six where the split needs it."""


class Reference(nn.Module):
    """The paper's section 3.1 in torchvision's words; crops image by image, as Algorithm 1 does."""

    def __init__(self, crops_after: str | None, width: int = 64) -> None:
        super().__init__()
        self.net = resnet18(num_classes=7)
        self.net.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.net.maxpool = nn.Identity()
        if width != 64:
            self.net.bn1, self.net.fc = nn.BatchNorm2d(width), nn.Linear(8 * width, 7)
            self.net.layer1 = nn.Sequential(BasicBlock(width, width), BasicBlock(width, width))
            self.net.layer2, self.net.layer3, self.net.layer4 = (halved(width << stage) for stage in range(3))
        self.crops_after = crops_after

    def forward(self, images: Tensor) -> Tensor:
        votes = 1 if self.crops_after is None else 10
        x = self.crop(images) if self.crops_after == "input" else images
        for name, part in self.net.named_children():
            x = part(x.flatten(1)) if name == "fc" else part(x)
            if name == self.crops_after:
                x = self.crop(x)
        return x.reshape(len(images), votes, -1)

    @staticmethod
    def crop(x: Tensor) -> Tensor:
        size = [side * 5 // 6 for side in x.shape[-2:]]
        patches = []
        for image in x:
            whole = ten_crop(image, size)
            halves = (*five_crop(image, size), *five_crop(horizontal_flip(image), size))
            assert all(torch.equal(a, b) for a, b in zip(whole, halves, strict=True))
            patches += whole
        return torch.stack(patches)


def halved(channels: int) -> nn.Sequential:
    """Two blocks, the first of which halves the map's sides and doubles its channels."""
    skip = nn.Sequential(nn.Conv2d(channels, 2 * channels, 1, 2, bias=False), nn.BatchNorm2d(2 * channels))
    return nn.Sequential(
        BasicBlock(channels, 2 * channels, stride=2, downsample=skip), BasicBlock(2 * channels, 2 * channels)
    )


CROPS_AFTER = {"baseline": None, "input": "input", "m1": "layer1", "m2": "layer2", "m3": "layer3"}


def test_every_split_has_a_reference() -> None:
    assert tuple(CROPS_AFTER) == SPLITS


@pytest.mark.slow
@pytest.mark.parametrize(("split", "width"), [("m3", 64), *((split, 8) for split in SPLITS)])
def test_it_is_the_independent_network(split: str, width: int) -> None:
    """Torchvision's `resnet18` at the paper's width; narrow ones of its blocks."""
    torch.manual_seed(0)
    reference, net = Reference(CROPS_AFTER[split], width).double(), VotingResNet18(split, width=width).double()
    for buffer in reference.net.buffers():  # away from the initial 0 and 1
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    net.load_state_dict(reference.net.state_dict())
    images = torch.randn(2, 3, IMAGE_SIZE[split], IMAGE_SIZE[split], dtype=torch.float64)

    with torch.no_grad():
        torch.testing.assert_close(net.eval()(images), reference.eval()(images), rtol=1e-12, atol=1e-12)

    logits, expected = net.train()(images), reference.train()(images)
    assert logits.shape == (2, 1 if split == "baseline" else 10, 7)
    torch.testing.assert_close(logits, expected, rtol=1e-12, atol=1e-12)
    # The BatchNorm statistics, too, see every crop once.
    torch.testing.assert_close(net.state_dict(), reference.net.state_dict(), rtol=1e-12, atol=1e-12)
    logits.square().mean().backward()
    expected.square().mean().backward()
    for (name, parameter), other in zip(net.named_parameters(), reference.net.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("split", SPLITS)
def test_parameters_are_the_papers_and_torchvisions(split: str) -> None:
    net = VotingResNet18(split)
    assert count_parameters(net) == 11_172_423
    ours = {key: value.shape for key, value in net.state_dict().items()}
    theirs = {key: value.shape for key, value in resnet18(num_classes=7).state_dict().items()}
    assert list(ours) == list(theirs)
    assert [key for key in ours if ours[key] != theirs[key]] == ["conv1.weight"]


def test_one_checkpoint_loads_into_any_split() -> None:
    torch.manual_seed(0)
    weights = VotingResNet18("m1", width=4).state_dict()
    for split in SPLITS:
        net = VotingResNet18(split, width=4)
        net.load_state_dict(weights)
        torch.testing.assert_close(dict(net.state_dict()), dict(weights), rtol=0, atol=0)


def test_each_image_is_alone_in_eval_mode() -> None:
    """Crops of one image never land in another's row."""
    net = VotingResNet18("m2", width=4).eval()
    images = torch.randn(3, 3, 12, 12)
    one_by_one = torch.cat([net(image[None]) for image in images])
    torch.testing.assert_close(net(images), one_by_one)


def test_a_map_too_small_for_crops_is_an_error() -> None:
    with pytest.raises(ValueError, match="a map of 2 pixels is too small for crops of 5/6"):
        VotingResNet18("m3", width=4)(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "m4"}, r"`split` \(='m4'\) must be one of baseline, input, m1, m2, m3"),
        ({"num_classes": 0}, r"`num_classes` \(=0\) must be at least 1"),
        ({"width": -1}, r"`width` \(=-1\) must be at least 1"),
    ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VotingResNet18(**arguments)


def test_dropout_drops_inputs_of_the_last_layer_in_training_only() -> None:
    images = torch.randn(2, 3, 12, 12)
    plain, net = VotingResNet18("m1", width=4), VotingResNet18("m1", width=4, dropout=0.5)
    net.load_state_dict(plain.state_dict())
    assert torch.equal(net.eval()(images), plain.eval()(images))
    seen: list[Tensor] = []
    for one in (net.train(), plain.train()):
        one.backbone.fc.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        torch.manual_seed(0)
        one(images)
    dropped, features = seen
    kept = dropped != 0
    assert torch.allclose(dropped[kept], 2 * features[kept])
    assert 0.3 < 1 - kept.sum() / (features != 0).sum() < 0.7
    assert not torch.equal(kept[0], kept[1])  # each crop on its own


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_that_is_no_share_is_refused(dropout: float) -> None:
    with pytest.raises(ValueError, match=r"`dropout` \(=.*at least 0 and less than 1"):
        VotingResNet18(dropout=dropout)
