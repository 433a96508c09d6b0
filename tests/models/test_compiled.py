"""A compiled network trains like a plain one, and keeps its keys."""

import copy
import logging
import shutil
from pathlib import Path

import pytest
import torch
from helpers.networks import without_blocks

from fer_voting.models import VotingResNet18
from fer_voting.models.compiled import compile_network, find_compiler
from fer_voting.training.losses import CrossEntropy


def losses(net: VotingResNet18) -> list[float]:
    torch.manual_seed(1)
    images, targets = torch.randn(2, 3, 24, 24), torch.tensor([1, 4])
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    found = []
    for _ in range(2):
        optimizer.zero_grad()
        loss = CrossEntropy()(net(images), targets)
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler on this machine")
def test_same_losses_and_same_keys() -> None:
    torch.manual_seed(0)
    plain = without_blocks(VotingResNet18("m1", width=4))  # compiling all eight takes a minute
    compiled = copy.deepcopy(plain)
    assert compile_network(compiled)
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-5)
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_without_a_compiler_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert shutil.which("g++") is None
    net = VotingResNet18("baseline", width=4)
    with caplog.at_level(logging.WARNING):
        assert not compile_network(net)
    assert "compile=true" in caplog.text
    assert net(torch.zeros(1, 3, 24, 24)).shape == (1, 1, 7)
