"""Images a second of a training."""

import statistics

import lightning as L
from torch import Tensor

from fer_voting.system.environment import now

WARM_UP_STEPS = 2


class Throughput(L.Callback):
    """Median over the epochs of trained images a second: loading and augmentation included, validation not."""

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self._images = 0
        self._started = 0.0

    @property
    def images_per_second(self) -> float | None:
        return statistics.median(self.epochs) if self.epochs else None

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: object,
        batch: tuple[Tensor, ...],
        batch_idx: int,
    ) -> None:
        if batch_idx + 1 == WARM_UP_STEPS:
            self._started, self._images = now(trainer.strategy.root_device), 0
        elif batch_idx + 1 > WARM_UP_STEPS:
            self._images += len(batch[0]) * trainer.world_size
            if trainer.is_last_batch:
                self.epochs.append(self._images / (now(trainer.strategy.root_device) - self._started))

    def state_dict(self) -> dict[str, list[float]]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state_dict: dict[str, list[float]]) -> None:
        self.epochs = state_dict["epochs"]
