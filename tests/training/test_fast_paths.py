"""Each fast path trains to the same losses as the plain one, which is the benchmark's reference."""

import functools
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from experiments.bench import Reference
from fer_voting.config import compose_config
from fer_voting.data.module import FERDataModule, make_datamodule, normalise
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.training.module import VotingModule, crop_cross_entropy

EPOCHS, STEPS = 5, 20
WIDTH = 16  # from here on in channels_last
SIDE = 24  # pixels; the smallest that divides for every split


def faces(folder: Path, **arguments: Any) -> FERDataModule:
    sizes = {"train_size": 64, "val_size": 7, "test_size": 7, "batch_size": 16, "size": SIDE, "cache_dir": folder}
    datamodule = make_datamodule(compose_config(["dataset=faces", "augment=none"]).dataset, **sizes, **arguments)
    datamodule.setup()
    return datamodule


def network(kind: Any, split: str, **arguments: Any) -> VotingResNet18:
    torch.manual_seed(0)
    return kind(split, width=WIDTH, **arguments)


def plain_losses(split: str, folder: Path, dtype: torch.dtype, lr: float) -> list[float]:
    """A loop of one's own: Algorithm 1, contiguous maps, Adam as torch has it by default."""
    net = network(Reference, split).to(dtype)
    optimizer = torch.optim.Adam(net.parameters(), lr)
    losses = []
    loader = faces(folder).train_dataloader()
    for _ in range(EPOCHS):
        for images, targets, _ in loader:
            optimizer.zero_grad()
            loss = crop_cross_entropy(net(normalise(images.contiguous()).to(dtype)), targets)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


class Losses(L.Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any) -> None:
        self.seen.append(outputs["loss"].item())


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec")
@pytest.mark.filterwarnings("ignore:.*ModelCheckpoint", "ignore:.*no `validation_step`")
@pytest.mark.parametrize(
    ("split", "precision", "lr", "tolerance"),
    [
        ("m3", "64-true", 1e-3, 1e-9),  # m1 would take a minute: there is no fast float64 convolution
        # Adam's first steps are the gradient's sign, so that rounding alone, whatever the path, grows with the rate:
        # at 1e-3, float32 sums in another order drift apart by percents within 20 steps.
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
        record = NetworkInfo(split, WIDTH, data.class_names, SIDE, "faces")
        trainer = L.Trainer(
            accelerator="cpu", precision=precision, max_epochs=EPOCHS, limit_val_batches=0, logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[losses],
            log_every_n_steps=1, use_distributed_sampler=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(VotingModule(network(VotingResNet18, split, **how), optimizer, 1.0, record), datamodule=data)
        assert losses.seen == pytest.approx(expected, rel=tolerance), (how, resident)


def test_bfloat16_is_as_accurate_within_the_noise_of_three_seeds(run_train: Callable[..., Path]) -> None:
    sizes = [
        "dataset.size=24",
        "dataset.train_size=700",
        "dataset.val_size=200",
        "dataset.test_size=7",
        "dataset.schedule.epochs=6",
    ]
    words = ["split=baseline", "model.width=16", "optimizer.lr=2e-3", "augment=none", *sizes]
    accuracies: dict[str, list[float]] = {}
    for precision in ("32-true", "bf16-mixed"):
        for seed in range(3):
            name = f"{precision}-{seed}"
            output_dir = run_train(*words, f"trainer.precision={precision}", f"seed={seed}", f"name={name}")
            result = json.loads((output_dir / "runs" / name / "result.json").read_text())
            accuracies.setdefault(precision, []).append(result["votes"]["soft"]["val"]["accuracy"])
    ours, plain = accuracies["bf16-mixed"], accuracies["32-true"]
    p = statistics.mean(plain)
    # Of three seeds' training, and of judging by 200 images.
    noise = ((statistics.variance(ours) + statistics.variance(plain) + 2 * p * (1 - p) / 200) / 3) ** 0.5
    assert abs(statistics.mean(ours) - p) <= 2 * noise, accuracies
    majority = max(result["counts"]["val"].values()) / 200
    assert min(ours) > majority, accuracies  # a network that learned nothing could not differ
