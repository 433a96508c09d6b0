"""Each fast path trains to the same losses as the plain one, which is the benchmark's reference."""

import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.callbacks import Operations, StepOperations
from helpers.composed import composed
from helpers.train import TINY
from hydra.utils import instantiate
from torch.utils.data import DataLoader, TensorDataset

from experiments.bench.network import Reference
from fer_voting.config import make
from fer_voting.data.module import FERDataModule, normalise
from fer_voting.experiment import make_data, make_network
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.training.losses import CrossEntropy
from fer_voting.training.module import VotingModule

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*ModelCheckpoint",
    "ignore:.*no `validation_step`",
)

EPOCHS, STEPS = 2, 8
WIDTH = 16  # from here on in channels_last
SIDE = 24  # pixels; the smallest that divides for every split
PATTERN_SIDE = 12  # of the baseline's images


def faces(folder: Path, **arguments: Any) -> FERDataModule:
    sizes = {"train_size": 16, "val_size": 7, "test_size": 7, "batch_size": 4, "size": SIDE, "cache_dir": folder}
    datamodule = make(composed(["dataset=faces", "augment=none"]).dataset, **sizes, **arguments)
    datamodule.setup()
    return datamodule


def network(kind: Any, split: str, **arguments: Any) -> VotingResNet18:
    torch.manual_seed(0)
    return kind(split, width=WIDTH, **arguments)


def plain_losses(split: str, folder: Path, dtype: torch.dtype, lr: float) -> list[float]:
    """A plain training loop: Algorithm 1, contiguous maps, torch's default Adam."""
    net = network(Reference, split).to(dtype)
    optimizer = torch.optim.Adam(net.parameters(), lr)
    losses = []
    loader = faces(folder).train_dataloader()
    for _ in range(EPOCHS):
        for images, targets, _ in loader:
            optimizer.zero_grad()
            loss = CrossEntropy()(net(normalise(images.contiguous()).to(dtype)), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def quiet_trainer(**arguments: Any) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, log_every_n_steps=1,
        enable_model_summary=False, use_distributed_sampler=False, **arguments,
    )  # fmt: skip


class Losses(L.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.seen.append(outputs["loss"].item())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("split", "precision", "lr", "tolerance"),
    [
        ("m3", "64-true", 1e-3, 1e-9),  # m1 would take a minute: there is no fast float64 convolution
        # Adam's first steps follow the gradient's sign, so that a rounding difference grows with the rate: at 1e-3,
        # float32 sums in another order differ by percents after some steps.
        ("m1", "32-true", 2e-5, 1e-4),
        ("m3", "32-true", 2e-5, 1e-4),
    ],
)
def test_same_loss_curve(split: str, precision: Any, lr: float, tolerance: float, tmp_path: Path) -> None:
    expected = plain_losses(split, tmp_path, torch.float64 if precision == "64-true" else torch.float32, lr)
    assert len(expected) == STEPS
    assert expected[-1] < expected[0]
    for how, resident in (({}, False), ({"memory": "lean"}, False), ({}, True)):
        data = faces(tmp_path, resident=resident)
        losses = Losses()
        optimizer = functools.partial(torch.optim.Adam, lr=lr, fused=True)
        record = NetworkInfo(split, {"width": WIDTH}, data.class_names, SIDE, "faces")
        trainer = quiet_trainer(precision=precision, max_epochs=EPOCHS, limit_val_batches=0, callbacks=[losses])
        net = network(VotingResNet18, split, **how)
        trainer.fit(VotingModule(net, CrossEntropy(), optimizer, record), datamodule=data)
        assert losses.seen == pytest.approx(expected, rel=tolerance), (how, resident)


CLASSES = 7


def patterns(images: int, seed: int) -> TensorDataset:
    """`images` of noise over one of seven fixed patterns, their classes and their positions."""
    pattern_KCHW = torch.randn(CLASSES, 3, PATTERN_SIDE, PATTERN_SIDE, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(images) % CLASSES
    noise = torch.randn(images, 3, PATTERN_SIDE, PATTERN_SIDE, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(pattern_KCHW[labels] + 2 * noise, labels, torch.arange(images))


def trained_accuracy(precision: Any, seed: int, validation: TensorDataset) -> float:
    torch.manual_seed(seed)
    info = NetworkInfo("baseline", {"width": WIDTH}, tuple("abcdefg"), PATTERN_SIDE, "patterns")
    optimizer = functools.partial(torch.optim.Adam, lr=3e-3, fused=True)
    module = VotingModule(VotingResNet18("baseline", width=WIDTH), CrossEntropy(), optimizer, info)
    trainer = quiet_trainer(precision=precision, max_epochs=4, check_val_every_n_epoch=4, num_sanity_val_steps=0)
    trainer.fit(module, DataLoader(patterns(112, seed + 1), 16), DataLoader(validation, 50))
    return trainer.callback_metrics["val/soft/accuracy"].item()


@pytest.mark.slow
def test_bfloat16_is_as_accurate_within_the_noise_of_three_seeds() -> None:
    validation = patterns(200, seed=99)
    plain, ours = (
        [trained_accuracy(precision, seed, validation) for seed in range(3)] for precision in ("32-true", "bf16-mixed")
    )
    p = statistics.mean(plain)
    # The variance over three seeds' trainings, and the variance of an accuracy measured on 200 images.
    noise = ((statistics.variance(ours) + statistics.variance(plain) + 2 * p * (1 - p) / 200) / 3) ** 0.5
    assert abs(statistics.mean(ours) - p) <= 2 * noise, (ours, plain)
    assert 0.5 < min(ours) <= max(ours) < 1, ours  # learnt, and not so easy that every precision gets all of them right


def test_a_step_of_a_training_is_hardly_more_than_one_of_a_bare_loop(run_train: Callable[..., Path], tmp_path: Path):
    """Operations of a step with its next batch; `make bench` measures the processor time of both (part `host`)."""
    words = ("split=baseline", "augment=paper", "trainer.max_epochs=1", "trainer.accelerator=cpu")
    StepOperations.counts.clear()
    run_train(*words, "+callbacks.counter._target_=helpers.callbacks.StepOperations")
    config = composed([*TINY, *words, f"output_dir={tmp_path / 'outputs'}"])
    data = make_data(config)
    data.setup()
    net, loss_of = make_network(config, len(data.class_names)), instantiate(config.loss)
    optimizer = make(config.optimizer)([*net.parameters()])
    for batch, (images, targets, positions) in enumerate(data.train_dataloader()):
        with Operations() as bare:
            loss = loss_of(net(normalise(data.augment(images, 0, positions, 0))), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if batch == 1:
            break
    (count,) = StepOperations.counts
    assert bare.count < count <= 1.15 * bare.count
