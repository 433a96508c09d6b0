"""Stops a training whose result would be worthless."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from fer_voting.runs.run import Run

FEW_IMAGES = 5


class Guard(L.Callback):
    """Stops at a loss that is not finite, and when the pack's images were changed while they are in use.

    Must come before the callback that saves checkpoints, so that the last checkpoint is a good one.

    Args:
        run: its folder, for the message.

    Raises FloatingPointError that names the step, images of the batch and the last checkpoint; OSError for the pack.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._previous: tuple[Tensor, Tensor, int] | None = None

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: tuple[Tensor, ...], batch_idx: int
    ) -> None:
        # The loss of the step before: reading this one's would make a GPU wait for its queue at every step.
        self._check_previous(trainer)
        self._previous = outputs["loss"].detach(), batch[2], trainer.global_step

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._check_previous(trainer)
        self._previous = None
        if trainer.datamodule.pack.was_changed_in_place():  # type: ignore[attr-defined]
            raise OSError(
                f"{trainer.datamodule.pack.folder} was changed while it was in use, so that this epoch may have seen "  # type: ignore[attr-defined]
                "other images: remove the folder and start again; the run goes on from its last checkpoint"
            )

    def _check_previous(self, trainer: L.Trainer) -> None:
        if self._previous is None:
            return
        loss, positions, step = self._previous
        if torch.isfinite(loss):
            return
        names = trainer.datamodule.pack.names(positions[:FEW_IMAGES].cpu().numpy())  # type: ignore[attr-defined]
        more = "" if len(positions) <= FEW_IMAGES else f", … ({len(positions)} images)"
        last = self.run.last_checkpoint
        kept = f"the last checkpoint, {last}, is of an epoch before" if last.exists() else "there is no checkpoint yet"
        raise FloatingPointError(
            f"the loss is {loss.item()} at step {step} (epoch {trainer.current_epoch}), of {', '.join(names)}{more}; "
            f"{kept}; lower optimizer.lr, or set trainer.precision=32-true"
        )
