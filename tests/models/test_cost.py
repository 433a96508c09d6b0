"""The cost of a network: the paper's Table 2, and a measurement that leaves no trace."""

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import nn

from fer_voting.models import VotingResNet18
from fer_voting.models.cost import MIB, count_gmacs, count_parameters, forward_mib_per_image

PAPER = json.loads((Path(__file__).parents[2] / "experiments" / "paper.json").read_text())
TABLE2 = [row for row in PAPER["table2"] if row["gflops"] is not None]


@pytest.mark.parametrize("row", TABLE2, ids=lambda row: f"{row['architecture']}-{row['input_size']}")
def test_gmacs_are_table_2s(row: dict) -> None:
    net = VotingResNet18(row["architecture"])
    assert round(count_gmacs(net, row["input_size"]), 2) == row["gflops"]


def test_gmacs_to_three_digits() -> None:
    assert round(count_gmacs(VotingResNet18("m1"), 48), 3) == 6.656
    # Ten crops of 40x40 cost ten images of 40x40.
    baseline = count_gmacs(VotingResNet18("baseline"), 40)
    assert count_gmacs(VotingResNet18("input"), 48) == pytest.approx(10 * baseline, rel=1e-12)


def test_gmacs_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5))
    # Convolution: 2x2 outputs x 8 channels x 3x3x3; BatchNorm: 4 x 32; linear: 32 x 5.
    assert count_gmacs(net, 2) * 1e9 == 32 * 27 + 4 * 32 + 32 * 5


def test_batchnorm_of_other_channels_is_refused() -> None:
    with pytest.raises(RuntimeError):
        count_gmacs(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(4)), 2)


def test_gmacs_do_not_depend_on_a_layers_class() -> None:
    """Lightning's `sync_batchnorm` leaves a class of its own, which is no BatchNorm2d."""
    net = VotingResNet18("m3", width=4)
    before = count_gmacs(net, 48)
    synchronised = TorchSyncBatchNorm()
    net = synchronised.revert(synchronised.apply(net))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert count_gmacs(net, 48) == before


def test_gmacs_of_grouped_convolutions_by_hand() -> None:
    assert count_gmacs(nn.Conv2d(3, 6, 3, groups=3), 4) * 1e9 == 6 * 4 * 9  # 2x2 outputs of 6 channels, a channel in


def test_counting_leaves_the_network_where_it_is() -> None:
    net = VotingResNet18("m1", width=4)
    count_gmacs(net, 48)
    assert net.training
    assert {p.device.type for p in net.parameters()} == {"cpu"}
    assert net(torch.zeros(1, 3, 24, 24)).device.type == "cpu"  # and nothing counts, or moves it, from now on


def test_count_parameters_counts_the_frozen_too() -> None:
    net = nn.Linear(3, 2)
    net.bias.requires_grad_(False)
    assert count_parameters(net) == 8


# The other rows, at the batch the table asks for, are `make table2`'s: one pass of them takes gigabytes.
@pytest.mark.parametrize(("split", "size", "mib"), [("baseline", 40, 7.00), ("m3", 48, 14.84)])
def test_forward_memory_is_table_2s(split: str, size: int, mib: float) -> None:
    # Memory that is needed once a batch (BatchNorm's statistics) is shared by two images here, by 135 in the table.
    images = torch.randn(2, 3, size, size)
    assert forward_mib_per_image(VotingResNet18(split), images) == pytest.approx(mib, abs=0.03)


def test_forward_memory_by_hand() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    images = torch.randn(4, 3, 16, 16)
    pixels = 4 * 16 * 16
    # Input, convolution's output, BatchNorm's output (ReLU in place), and BatchNorm's mean and deviation.
    expected = (3 * pixels + 8 * pixels + 8 * pixels + 2 * 8) * 4
    assert forward_mib_per_image(net, images) * MIB * 4 == expected


def test_forward_memory_is_halved_by_autocast() -> None:
    net = VotingResNet18("baseline", width=8)
    images = torch.randn(32, 3, 24, 24)  # enough of them that the weights' copies in half precision don't show
    in_float32 = forward_mib_per_image(net, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_bfloat16 = forward_mib_per_image(net, images)
    assert 0.5 < in_bfloat16 / in_float32 < 0.6


@pytest.mark.parametrize("training", [True, False])
def test_measuring_leaves_no_trace(training: bool) -> None:
    net = VotingResNet18("m1", width=4).train(training)
    images = torch.randn(2, 3, 12, 12)
    net(images).sum().backward()
    state = {key: value.clone() for key, value in net.state_dict().items()}
    gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    random_state = torch.get_rng_state()

    with torch.no_grad():  # as in a validation epoch
        assert forward_mib_per_image(net, images) > 0
        assert not torch.is_grad_enabled()

    assert net.training == training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not images.requires_grad
    torch.testing.assert_close(dict(net.state_dict()), state, rtol=0, atol=0)
    torch.testing.assert_close([p.grad for p in net.parameters()], gradients, rtol=0, atol=0)


def test_measuring_draws_under_a_fork_of_the_generator() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(12, 2))
    before = torch.get_rng_state()
    forward_mib_per_image(net, torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), before)
