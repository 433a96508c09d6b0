"""Tests of what only a GPU shows. `python -m experiments.bench.gpu --root DIR` runs these tests first."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from fer_voting.config import compose, make
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.cost import forward_mib_per_image
from fer_voting.models.crops import CROPS, ten_crops
from fer_voting.runs.run import Run
from fer_voting.training.losses import CrossEntropy
from fer_voting.training.module import VotingModule

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

GPU = torch.device("cuda")


@pytest.fixture
def deterministic(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_crops_and_their_gradient_equal_the_cpus_bit_for_bit(
    dtype: torch.dtype, memory_format: torch.memory_format
) -> None:
    x = torch.randn(4, 16, 24, 18).to(dtype).contiguous(memory_format=memory_format)
    gradient = torch.randint(-4, 5, (4, CROPS, 16, 20, 15)).to(dtype)  # whole numbers: their sums round nowhere
    found = []
    for device in (torch.device("cpu"), GPU):
        map_ = x.to(device, copy=True).requires_grad_()
        crops = ten_crops(map_)
        crops.backward(gradient.to(device))
        assert map_.grad is not None
        found.append((crops.detach().cpu(), map_.grad.cpu()))
    (cpu_crops, cpu_gradient), (gpu_crops, gpu_gradient) = found
    assert torch.equal(gpu_crops, cpu_crops)
    assert torch.equal(gpu_gradient, cpu_gradient)


def network(split: str, width: int, memory: str = "paper") -> VotingResNet18:
    torch.manual_seed(0)
    return VotingResNet18(split, width=width, memory=memory).to(GPU, memory_format=torch.channels_last)


def autocast(precision: str) -> contextlib.AbstractContextManager[object]:
    return torch.autocast("cuda", torch.bfloat16) if precision == "bf16" else contextlib.nullcontext()


def gradients(net: VotingResNet18, images: Tensor, precision: str) -> list[Tensor]:
    with autocast(precision):
        loss = CrossEntropy()(net(images), torch.arange(len(images), device=GPU) % 7)
    return list(torch.autograd.grad(loss, list(net.parameters())))


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bf16", 1e-2)])
def test_lean_memory_gives_the_same_gradients(deterministic: None, precision: str, tolerance: float) -> None:
    images = torch.randn(8, 3, 24, 24, device=GPU).contiguous(memory_format=torch.channels_last)
    paper, lean = (gradients(network("m1", 16, memory), images, precision) for memory in ("paper", "lean"))
    for theirs, ours in zip(paper, lean, strict=True):
        assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize(("precision", "mib"), [("float32", 20), ("bf16", 10)])
def test_lean_memory_by_memory_allocated(precision: str, mib: float) -> None:
    images = torch.randn(64, 3, 48, 48, device=GPU).contiguous(memory_format=torch.channels_last)
    with autocast(precision):
        paper, lean = (forward_mib_per_image(network("m1", 64, memory), images) for memory in ("paper", "lean"))
    assert lean < mib
    assert lean < paper / 2


@pytest.mark.parametrize(
    ("split", "size", "mib"), [("baseline", 40, 7.00), ("m1", 48, 40.34), ("m2", 48, 23.34), ("m3", 48, 14.84)]
)
def test_forward_memory_by_memory_allocated_is_the_cpus_count_and_table_2s(split: str, size: int, mib: float) -> None:
    # The paper's batch: the allocator rounds each tensor up, by as much as a megabyte where it takes a larger block.
    net, images = VotingResNet18(split), torch.randn(135, 3, size, size)
    counted = forward_mib_per_image(net, images)
    measured = forward_mib_per_image(net.to(GPU), images.to(GPU))
    assert measured == pytest.approx(counted, rel=0.01)
    assert measured == pytest.approx(mib, rel=0.01)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_two_trainings_end_with_the_same_weights(run_train: Callable[..., Path], precision: str) -> None:
    words = ["split=m1", "model.width=16", "trainer.accelerator=gpu", f"trainer.precision={precision}"]
    runs = [Run(run_train(*words, f"name={name}"), name) for name in ("first", "second")]
    first, second = (torch.load(run.best_checkpoint("soft"), weights_only=True)["state_dict"] for run in runs)
    assert all(torch.equal(first[key], second[key]) for key in first if key.startswith("net."))
    assert runs[0].metrics_file.read_text() == runs[1].metrics_file.read_text()
    result = runs[0].result()
    assert result is not None
    assert result["device"] == torch.cuda.get_device_name(GPU)


class Batches(L.Callback):
    """Keeps every training batch, and the device's memory at the first one."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []
        self.bytes_at_start = 0

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        self.bytes_at_start = self.bytes_at_start or torch.cuda.memory_allocated(GPU)
        self.seen.append([tensor.cpu() for tensor in batch])


@pytest.mark.filterwarnings("ignore:.*no `validation_step`")
def test_batches_of_a_resident_pack_are_those_of_its_file(tmp_path: Path) -> None:
    found, images_bytes = [], 0
    for resident in (False, "auto"):
        sizes = {"train_size": 400, "val_size": 7, "test_size": 7, "batch_size": 100, "cache_dir": tmp_path}
        options = {**compose(["dataset=faces", "augment=none"]).dataset, **sizes, "num_workers": 0}
        data = make({**options, "resident": resident})
        data.setup()
        images_bytes = data.pack.images.nbytes
        module = VotingModule(
            network("m3", 16),
            CrossEntropy(),
            functools.partial(torch.optim.Adam, lr=1e-3),
            NetworkInfo("m3", {"width": 16}, data.class_names, data.size, data.name),
        )
        batches = Batches()
        trainer = L.Trainer(
            accelerator="gpu", devices=1, max_epochs=2, limit_val_batches=0, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, callbacks=[batches],
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        found.append(batches)
        del trainer, module, data
    read, kept = found
    assert kept.bytes_at_start - read.bytes_at_start > 0.9 * images_bytes
    assert len(kept.seen) == len(read.seen) == 8
    for ours, theirs in zip(kept.seen, read.seen, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
def test_steps_do_not_wait_for_the_gpu(run_train: Callable[..., Path]) -> None:
    """The steps of `train`: its loader, augmentation, loss, guard against losses that are not finite, and callbacks."""
    sizes = ["dataset.train_size=400", "trainer.accelerator=gpu", "augment=paper"]
    waits = "+callbacks.waits._target_=helpers.callbacks.NoWaiting"
    try:
        run = Run(run_train("split=m1", *sizes, "name=steps", waits), "steps")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.status() == "finished"
