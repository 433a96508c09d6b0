"""The folded network in each precision against the trained one in float64, and int8 against its own definition."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fer_voting.inference import _Int8, _Map8, fold, prepare
from fer_voting.models import SPLITS, VotingResNet18

SIZE = 24


def trained(split: str = "m1", width: int = 16) -> VotingResNet18:
    """A network with BatchNorms that do something."""
    torch.manual_seed(0)
    net = VotingResNet18(split, width=width)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    with torch.no_grad():
        for seed in range(20):
            net(images(8, seed))
    return net.eval()


def images(count: int, seed: int = 100) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def error(ours: Tensor, reference: Tensor) -> float:
    return ((ours - reference).norm() / reference.norm()).item()


@pytest.mark.parametrize("split", SPLITS)
def test_folding_changes_nothing_in_float64(split: str) -> None:
    net = trained(split).double()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    folded = fold(net)
    x = images(3).double()
    torch.testing.assert_close(folded(x), net(x), rtol=1e-11, atol=1e-12)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    assert not folded.training
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize(("precision", "limit"), [("float32", 2e-6), ("bf16", 2e-2), ("int8", 0.1)])
def test_logits_are_the_networks(split: str, precision: str, limit: float) -> None:
    net = trained(split)
    run = prepare(net, precision, calibration=images(100))
    exact = net.double()
    for count in (4, 1, 7):  # the weights are laid out for the first
        logits = run(images(count))
        assert logits.dtype == torch.float32
        assert logits.shape == (count, 1 if split == "baseline" else 10, 7)
        assert error(logits, exact(images(count).double())) < limit


def test_images_stay_as_they_are() -> None:
    net = trained("baseline")
    x = images(2).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    for precision in ("float32", "bf16", "int8"):
        prepare(net, precision, calibration=x)(x)
        assert torch.equal(x, before)


def test_later_training_does_not_reach_it() -> None:
    net = trained()
    run = prepare(net)
    before = run(images(2))
    with torch.no_grad():
        net.fc.weight.zero_()
        net.conv1.weight.zero_()
    assert torch.equal(run(images(2)), before)


# int8 -------------------------------------------------------------------------------------------------------------


def as_map(numbers: Tensor, scale: float, zero: int) -> _Map8:
    levels = (numbers / scale + zero).round().clamp(0, 255).to(torch.uint8)
    return _Map8(levels.contiguous(memory_format=torch.channels_last), scale, zero)


def by_definition(
    convolution: nn.Conv2d, x: _Map8, then: Callable[[Tensor], Tensor], scale: float, zero: int
) -> Tensor:
    """Weights rounded to 255 levels a channel, everything else exact, the result rounded: levels."""
    steps = convolution.weight.detach().abs().amax((1, 2, 3), keepdim=True) / 127
    weight = (convolution.weight.detach() / steps).round() * steps
    y = F.conv2d(
        x.dequantised().double(), weight.double(), convolution.bias.double(), convolution.stride, convolution.padding
    )
    return (then(y) / scale + zero).round().clamp(0, 255)


@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (1, 2)])
@pytest.mark.parametrize("relu", [True, False])
def test_int8_convolution_is_its_definition(kernel: int, stride: int, relu: bool) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(16, 32, kernel, stride, padding=kernel // 2)
    x = as_map(torch.rand(2, 16, 12, 12) * 3, 3 / 255, 0)
    y = _Int8(convolution, peak=2.0)(x, relu)
    assert (y.scale, y.zero) == ((2 / 255, 0) if relu else (2 / 127, 128))
    then = torch.relu if relu else (lambda y: y)
    difference = y.levels - by_definition(convolution, x, then, y.scale, y.zero)
    assert difference.abs().max() <= 1  # where a sum lies between two levels
    assert (difference != 0).double().mean() < 0.01


@pytest.mark.parametrize("zero", [0, 128])
def test_int8_sum_with_the_shortcut_is_its_definition(zero: int) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(16, 16, 3, padding=1)
    x = as_map(torch.rand(2, 16, 12, 12) * 3, 3 / 255, 0)
    shortcut = as_map(torch.randn(2, 16, 12, 12), 2 / 127, zero)
    kept = shortcut.dequantised().double()
    y = _Int8(convolution, peak=4.0).add(x, shortcut)
    assert (y.scale, y.zero) == (4 / 255, 0)
    expected = by_definition(convolution, x, lambda y: torch.relu(y + kept), y.scale, 0)
    difference = y.levels - expected
    assert difference.abs().max() <= 1
    assert (difference != 0).double().mean() < 0.01


def test_int8_of_a_network_of_zeros() -> None:
    net = trained("baseline")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
        net.fc.bias.copy_(torch.arange(7))
    assert prepare(net, "int8", images(2))(images(2)).tolist() == [[list(range(7))]] * 2


def test_decisions_in_int8_are_mostly_the_networks() -> None:
    net = trained()
    x = images(100, seed=7)
    with torch.no_grad():
        expected = net(x).mean(1)
    clear = expected.topk(2).values.diff().abs()[:, 0] > 0.05 * expected.std()
    assert clear.sum() > 50
    decisions = prepare(net, "int8", images(100))(x).mean(1).argmax(1)
    assert (decisions == expected.argmax(1))[clear].double().mean() > 0.95


# Errors -----------------------------------------------------------------------------------------------------------


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"`precision` \(='int4'\) must be one of float32, bf16, int8"):
        prepare(trained("baseline"), "int4")
    with pytest.raises(ValueError, match="needs `calibration`"):
        prepare(trained("baseline"), "int8")
    with pytest.raises(ValueError, match="is for x86 processors, and the network is on meta"):
        prepare(VotingResNet18("baseline", width=4).to("meta"), "int8", images(1))
