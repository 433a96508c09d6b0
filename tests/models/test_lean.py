"""`memory=lean` against `memory=paper`: equal bit for bit, in less memory, with nothing left when the graph is gone."""

import contextlib
import gc

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fer_voting.models import SPLITS, VotingResNet18
from fer_voting.models.cost import MIB, forward_mib_per_image
from fer_voting.models.lean import Recomputations
from fer_voting.training.losses import CrossEntropy

pytestmark = pytest.mark.slow

SIZE = 24


def networks(split: str, width: int = 16) -> tuple[VotingResNet18, VotingResNet18]:
    torch.manual_seed(0)
    paper = VotingResNet18(split, width=width).to(memory_format=torch.channels_last)
    lean = VotingResNet18(split, width=width, memory="lean").to(memory_format=torch.channels_last)
    lean.load_state_dict(paper.state_dict())
    return paper, lean


def autocast(precision: str) -> contextlib.AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def step(net: nn.Module, images: Tensor, targets: Tensor, precision: str = "float32") -> Tensor:
    with autocast(precision):
        loss = CrossEntropy()(net(images), targets)
    loss.backward()
    return loss.detach()


def batch(images: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(images, 3, SIZE, SIZE, generator=generator), torch.arange(images) % 7


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_same_losses_gradients_and_statistics(split: str, precision: str) -> None:
    paper, lean = networks(split)
    optimizers = [torch.optim.Adam(net.parameters(), 1e-3) for net in (paper, lean)]
    for _ in range(3):
        losses = [step(net, *batch(), precision) for net in (paper, lean)]
        assert losses[0] == losses[1]
        for (name, ours), theirs in zip(lean.named_parameters(), paper.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=0, msg=name)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    # Running means, variances and the number of batches: each batch counted once.
    torch.testing.assert_close(lean.state_dict(), paper.state_dict(), rtol=0, atol=0)
    assert lean.backbone.bn1.num_batches_tracked == 3


def test_same_gradients_with_frozen_statistics() -> None:
    paper, lean = networks("m2")
    for net in (paper, lean):
        net.eval()
        step(net, *batch())
    for ours, theirs in zip(lean.parameters(), paper.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_a_graph_can_be_used_twice() -> None:
    paper, lean = networks("m1")
    images, targets = batch()
    for net in (paper, lean):
        loss = CrossEntropy()(net(images), targets)
        loss.backward(retain_graph=True)
        loss.backward()
    for ours, theirs in zip(lean.parameters(), paper.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize(("precision", "mib"), [("float32", 20), ("bf16", 10)])
def test_memory_of_m1(precision: str, mib: float) -> None:
    paper, lean = networks("m1", width=64)
    images = torch.randn(2, 3, 48, 48)
    with autocast(precision):
        ours, papers = forward_mib_per_image(lean, images), forward_mib_per_image(paper, images)
    if precision == "bf16":  # autocast's copies of the weights, once a batch; not much over 135 images
        copies = sum(m.weight.numel() for m in lean.modules() if isinstance(m, nn.Conv2d | nn.Linear))
        ours, papers = (total - copies * 2 / MIB / len(images) for total in (ours, papers))
    assert ours < mib
    assert ours < papers / 2


def test_nothing_is_left_when_the_graph_is_gone() -> None:
    """Without the help of the garbage collector, which may come a gigabyte too late."""
    _, lean = networks("m1")
    images, targets = batch()
    gc.collect()
    gc.disable()
    try:
        before = count_tensors()
        loss = CrossEntropy()(lean(images), targets)
        during = count_tensors()
        del loss
        assert count_tensors() == before < during
    finally:
        gc.enable()


def count_tensors() -> int:
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


@pytest.mark.parametrize("split", ["baseline", "m1"])
def test_without_gradients_nothing_is_discarded(split: str) -> None:
    paper, lean = networks(split)
    images, _ = batch()
    with torch.no_grad():
        assert torch.equal(lean.eval()(images), paper.eval()(images))
    assert lean.recomputations is not None
    x = torch.ones(3)
    assert lean.recomputations.getter(x)().data_ptr() == x.data_ptr()


def test_an_address_that_is_used_again_is_another_tensor() -> None:
    """The allocator reuses a freed tensor's memory, and the new tensor must not be recomputed as the old one."""
    memory = np.ones(3, dtype=np.float32)
    weight = torch.ones(3, requires_grad=True)
    with Recomputations() as recomputations:
        first = torch.from_numpy(memory)
        recomputations.discard(first, lambda: torch.full((3,), 3.0))  # another value, to tell it from the tensor
        kept = weight * first
        del first
        second = torch.from_numpy(memory)
        other = weight * second
    assert torch.autograd.grad(kept.sum(), weight)[0].tolist() == [3, 3, 3]
    assert torch.autograd.grad(other.sum(), weight)[0].tolist() == [1, 1, 1]


def test_an_error_in_the_forward_pass_leaves_no_hooks() -> None:
    _, lean = networks("m3")
    with pytest.raises(RuntimeError, match="channels"):
        lean(torch.zeros(1, 4, SIZE, SIZE))
    x = torch.ones(2, requires_grad=True)
    y = x * x
    with torch.no_grad():
        x.add_(1)
    with pytest.raises(RuntimeError, match="inplace"):  # autograd checks this only for what it saves without hooks
        y.sum().backward()


def test_unknown_memory() -> None:
    with pytest.raises(ValueError, match=r"`memory`.*'tiny'.*paper.*lean"):
        VotingResNet18(memory="tiny")


def test_synchronised_batch_norm_is_refused() -> None:
    """Recomputed with the statistics of one process, not with those of all, the gradients would be wrong."""
    paper, lean = (torch.nn.SyncBatchNorm.convert_sync_batchnorm(net) for net in networks("m3"))
    with pytest.raises(ValueError, match=r"memory=lean.*sync_batchnorm"):
        step(lean, *batch())
    step(paper, *batch())
    with torch.no_grad():
        assert lean.eval()(batch()[0]).isfinite().all()


def test_compiles_into_one_graph() -> None:
    """Under `torch.compile`, which has a budget of its own, a lean network is like any other."""
    torch.manual_seed(0)
    net = VotingResNet18("m3", width=4, memory="lean")
    images, targets = batch()
    loss = step(net, images, targets)
    expected = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    one_graph = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)  # before, in several
    compiled = torch.compile(net, fullgraph=one_graph, backend="aot_eager")  # needs no C++ compiler
    assert step(compiled, images, targets) == loss
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], msg=name)
