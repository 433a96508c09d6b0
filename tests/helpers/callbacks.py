"""Callbacks that tests name in a configuration, importable by every rank."""

import json
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import torch
from torch.utils._python_dispatch import TorchDispatchMode


class RankWitness(L.Callback):
    """Notes which images a rank sees in each epoch, and its weights at the end."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)
        self.seen: list[list[int]] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.seen.append([])
        self.seen[-1] += batch[2].tolist()

    def on_fit_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        torch.save(module.state_dict(), self.folder / f"rank{trainer.global_rank}.pt")
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(self.seen))


class EndsRankOne(L.Callback):
    def __init__(self, how: str) -> None:
        self.how = how

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch, batch_idx: int) -> None:
        if trainer.global_rank == 1 and self.how == "raise":
            raise ValueError("no good")
        if trainer.global_rank == 1 and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)


class StepWitness(L.Callback):
    """Keeps the trained weights and buffers after each step, and ends the training as Ctrl-C does after an epoch."""

    latest: ClassVar["StepWitness"]

    def __init__(self, stop_after: int | None = None) -> None:
        self.states: list[dict[str, torch.Tensor]] = []
        self.stop_after = stop_after
        type(self).latest = self

    def on_train_batch_end(self, trainer: L.Trainer, module: L.LightningModule, *_: Any) -> None:
        self.states.append({key: value.clone() for key, value in module.state_dict().items()})

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch == self.stop_after:
            raise KeyboardInterrupt


class SlowEpochs(L.Callback):
    """Makes each epoch last, and keeps the seconds that result.json has at its start."""

    SECONDS = 0.2
    latest: ClassVar["SlowEpochs"]

    def __init__(self) -> None:
        self.recorded: list[float] = []
        type(self).latest = self

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        result = json.loads((Path(trainer.default_root_dir) / "result.json").read_text())
        self.recorded.append(result["seconds"])
        time.sleep(self.SECONDS)


class InterruptsOnce(L.Callback):
    """Ends the training as Ctrl-C does, at its end or as an epoch begins; once, for which it leaves the file `flag`."""

    def __init__(self, flag: str, epoch: int | None = None) -> None:
        self.flag, self.epoch = Path(flag), epoch

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch == self.epoch:
            self._interrupt()

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.epoch is None:
            self._interrupt()

    def _interrupt(self) -> None:
        if not self.flag.exists():
            self.flag.touch()
            raise KeyboardInterrupt


class RateWitness(L.Callback):
    """Keeps the learning rate of each step of the optimizer."""

    rates: ClassVar[list[float]]

    def on_fit_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        type(self).rates = []

    def on_before_optimizer_step(self, trainer: L.Trainer, module: L.LightningModule, optimizer: Any) -> None:
        self.rates.append(optimizer.param_groups[0]["lr"])


class EmptiesFile(L.Callback):
    """Empties a file at the start of the second epoch."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if trainer.current_epoch == 1:
            self.path.write_bytes(b"")


class NoWaiting(L.Callback):
    """From the fourth step of an epoch to its last but one, nothing may make the host wait for the GPU."""

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        inside = 3 <= batch_idx < int(trainer.num_training_batches) - 1
        torch.cuda.set_sync_debug_mode("error" if inside else "default")


class Operations(TorchDispatchMode):
    """Counts torch's operations, but for those of the given names."""

    def __init__(self, left_out: Collection[str] = ()) -> None:
        super().__init__()
        self.left_out, self.count = left_out, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__ not in self.left_out
        return func(*args, **(kwargs or {}))


class StepOperations(L.Callback):
    """Counts the operations from the second step of the first epoch to the third, all callbacks and the next batch
    included."""

    counts: ClassVar[list[int]] = []

    def on_train_batch_start(self, trainer: L.Trainer, module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 0 and batch_idx == 1:
            self.operations = Operations()
            self.operations.__enter__()
        elif trainer.current_epoch == 0 and batch_idx == 2:
            self.operations.__exit__(None, None, None)
            self.counts.append(self.operations.count)
