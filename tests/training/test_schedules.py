"""Learning rates against the formulas of their sources, and in a training that stops and goes on."""

import functools
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from fer_voting.training.schedules import cosine, depends_on_length, exponential, one_cycle

EPOCHS, STEPS = 3, 4
SCHEDULES = {
    "exponential": functools.partial(exponential, lr_gamma_per_epoch=0.5),
    "cosine": cosine,
    "one_cycle": functools.partial(one_cycle, warm_up_share=0.25),
}


class Recorder(L.LightningModule):
    """Records the learning rate of each step."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.schedule = functools.partial(SCHEDULES[name], steps=EPOCHS * STEPS)
        self.rates: list[float] = []

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        self.rates.append(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]
        return (self.weight - batch).square().sum()

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=0.8)
        return [optimizer], [self.schedule(optimizer)]


def train(name: str, epochs: int, save_to: Path | None = None, resume_from: Path | None = None) -> Recorder:
    module = Recorder(name)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = DataLoader(torch.arange(STEPS, dtype=torch.float32))
    trainer.fit(module, loader, ckpt_path=resume_from, weights_only=True)
    if save_to:
        trainer.save_checkpoint(save_to)
    return module


pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers")


def test_exponential_by_hand() -> None:
    assert train("exponential", EPOCHS).rates == [0.8] * STEPS + [0.4] * STEPS + [0.2] * STEPS


def test_cosine_is_the_formula_of_its_source() -> None:
    by_hand = [0.8 * (1 + math.cos(math.pi * step / 12)) / 2 for step in range(12)]
    assert train("cosine", EPOCHS).rates == pytest.approx(by_hand)


def test_one_cycle_rises_to_the_rate_and_falls_to_nearly_zero() -> None:
    rates = train("one_cycle", EPOCHS).rates
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.8)
    assert rates[0] == pytest.approx(0.8 / 25)  # torch's default
    assert peak == 0.25 * 12 - 1
    assert rates == sorted(rates[: peak + 1]) + sorted(rates[peak + 1 :], reverse=True)
    assert rates[-1] < 1e-4 * 0.8


def test_one_cycle_may_rise_in_its_first_step() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.8, momentum=0.9)
    one_cycle(optimizer, 10, warm_up_share=0.1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.8)
    assert depends_on_length(functools.partial(one_cycle, warm_up_share=0.01))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_training_that_stops_and_goes_on_has_the_same_rates_and_weights(name: str, tmp_path: Path) -> None:
    whole = train(name, EPOCHS)
    first = train(name, 1, save_to=tmp_path / "last.ckpt")  # like a refit, it stops before its schedule ends
    rest = train(name, EPOCHS, resume_from=tmp_path / "last.ckpt")
    assert first.rates + rest.rates == whole.rates
    assert rest.weight.item() == whole.weight.item()


@pytest.mark.parametrize("share", [0, 1, 1.5])
def test_one_cycle_refuses_a_warm_up_that_is_no_share(share: float) -> None:
    with pytest.raises(ValueError, match="warm_up_share"):
        one_cycle(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1), 1, warm_up_share=share)
