"""The callbacks on a small real training."""

import csv
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.cost import forward_mib_per_image
from fer_voting.runs.run import read_history
from fer_voting.training.callbacks import ForwardMemory, MetricsCSV, Throughput
from fer_voting.training.losses import CrossEntropy
from fer_voting.training.module import VotingModule
from fer_voting.training.schedules import exponential


class RandomFaces(L.LightningDataModule):
    """60 random images in 4 batches of 15."""

    train_size = 60

    def train_dataloader(self) -> torch.utils.data.DataLoader:
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(60, 3, 24, 24, generator=generator)
        labels = torch.randint(0, 3, (60,), generator=generator)
        data = torch.utils.data.TensorDataset(images, labels, torch.arange(60))
        return torch.utils.data.DataLoader(data, batch_size=15)


def halved(optimizer: torch.optim.Optimizer, steps: int) -> Any:
    return exponential(optimizer, steps, lr_gamma_per_epoch=0.5)


def fit(*callbacks: L.Callback, epochs: int = 1, resume_from: Path | None = None) -> tuple[L.Trainer, VotingModule]:
    torch.manual_seed(0)
    record = NetworkInfo("m3", {"width": 4}, ("neutral", "happy", "sad"), 24, "random")
    net = VotingResNet18("m3", num_classes=3, width=4)
    module = VotingModule(net, CrossEntropy(), lambda parameters: torch.optim.SGD(parameters, 0.1), record, halved)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, RandomFaces(), ckpt_path=resume_from, weights_only=True)
    return trainer, module


pytestmark = pytest.mark.filterwarnings(
    "ignore:.*smaller than the logging interval", "ignore:.*val_dataloader", "ignore:.*validation_step"
)


def test_forward_memory_is_that_of_a_real_batch_and_says_how_it_was_measured():
    callback = ForwardMemory()
    trainer, module = fit(callback)
    images = torch.randn(15, 3, 24, 24)
    assert callback.mib_per_image == pytest.approx(forward_mib_per_image(module.net, images))
    assert "memory/forward_mib_per_image" not in trainer.callback_metrics  # CUDA's figure has that name
    logged = trainer.callback_metrics["memory/forward_mib_per_image_autograd"].item()
    assert logged == pytest.approx(callback.mib_per_image)


def test_forward_memory_leaves_no_trace():
    _, measured = fit(ForwardMemory(), epochs=2)
    _, bare = fit(epochs=2)
    ours, theirs = measured.net.state_dict(), bare.net.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)  # BatchNorm's statistics among them


def test_throughput_counts_every_epoch():
    callback = Throughput()
    fit(callback, epochs=3)
    assert len(callback.epochs) == 3
    assert min(callback.epochs) > 0
    assert min(callback.epochs) <= callback.images_per_second <= max(callback.epochs)


def test_history_has_a_row_an_epoch_with_that_epochs_learning_rate(tmp_path: Path):
    fit(MetricsCSV(tmp_path / "metrics.csv"), epochs=3)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [0, 1, 2]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx([0.1, 0.05, 0.025])
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])


def test_history_drops_the_epochs_that_are_trained_again(tmp_path: Path):
    path = tmp_path / "metrics.csv"
    trainer, _ = fit(MetricsCSV(path), epochs=1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    fit(MetricsCSV(path), epochs=3)  # a longer training that was killed before it saved
    assert len(read_history(path)) == 3
    fit(MetricsCSV(path), epochs=2, resume_from=tmp_path / "last.ckpt")
    assert [row["epoch"] for row in read_history(path)] == [0, 1]


def test_history_of_nothing(tmp_path: Path):
    assert read_history(tmp_path / "metrics.csv") == []
