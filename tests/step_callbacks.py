"""A callback that tests name in a configuration: the weights of each step, and an end after an epoch."""

from typing import Any, ClassVar

import lightning as L
import torch


class Witness(L.Callback):
    """Keeps the trained weights and buffers after each step, and ends the training as Ctrl-C does after an epoch."""

    latest: ClassVar["Witness"]

    def __init__(self, stop_after: int | None = None) -> None:
        self.states: list[dict[str, torch.Tensor]] = []
        self.stop_after = stop_after
        type(self).latest = self

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        self.states.append({key: value.clone() for key, value in module.state_dict().items()})

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch == self.stop_after:
            raise KeyboardInterrupt
