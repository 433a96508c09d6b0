"""Lightning callbacks. `StopOnNaN`, `MetricsCSV` and `BestPerVote` are part of every training, in this order
(docs/continuing.md says why); the others are options of `conf/callbacks/`, where a user's own stand beside them.
"""

import csv
import math
import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from torch import Tensor
from tqdm import tqdm

from fer_voting.models.cost import forward_mib_per_image
from fer_voting.models.last_layer import find_last_layer
from fer_voting.models.voting import VotingNetwork
from fer_voting.runs.run import Run, read_history
from fer_voting.system.atomic import write_atomically
from fer_voting.system.environment import now
from fer_voting.system.messages import progress_bar
from fer_voting.system.text import counted, shortened
from fer_voting.training.averaging import averaged_weights


class MetricsCSV(L.Callback):
    """Writes every figure of an epoch to `path`.

    Lightning's CSVLogger starts its file anew when a run goes on; this one keeps the epochs that count. An epoch
    without validation has empty cells.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self.validated = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.rows = [row for row in read_history(self.path) if row["epoch"] < trainer.current_epoch]

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        rate = trainer.optimizers[0].param_groups[0]["lr"]  # at the epoch's end it is the next one's
        self.rows.append({"epoch": trainer.current_epoch, "learning_rate": rate})
        self.validated = False

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        metrics = sorted(trainer.callback_metrics.items())  # those of the last validation, too, whenever that was
        self.rows[-1] |= {
            name: value.item() for name, value in metrics if self.validated or not name.startswith("val/")
        }
        if trainer.is_global_zero:
            names = list(dict.fromkeys(name for row in self.rows for name in row))
            with write_atomically(self.path) as file:
                writer = csv.DictWriter(file, names)
                writer.writeheader()
                writer.writerows(self.rows)


class BestPerVote(Checkpoint):
    """Saves last.ckpt after every epoch, and each vote's best-<vote>.ckpt after an epoch better than all before.

    The rows of metrics.csv decide which epoch is best, so that a run that continues in a moved folder keeps its best.
    Of equally good epochs the first counts. Where a callback averages weights, the best are the averages that were
    validated, and last.ckpt holds both.

    Args:
        run: its folder.
        history: the callback that writes metrics.csv; must come before this one.
        votes: those that select an epoch, by name.
        metric: the one that decides, the more the better.
        refit: nothing is validated, and the last epoch is the best.
    """

    def __init__(self, run: Run, history: MetricsCSV, votes: Sequence[str], metric: str, refit: bool) -> None:
        self.run, self.history, self.votes, self.metric, self.refit = run, history, votes, metric, refit
        self.ended = False

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.ended

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        with averaged_weights(trainer, module):  # those that were validated
            for vote in self._best_votes():
                _save(trainer, self.run.best_checkpoint(vote), weights_only=True)
        self.ended = trainer.should_stop
        _save(trainer, self.run.last_checkpoint, weights_only=False)

    def state_dict(self) -> dict[str, bool]:
        """Whether something ended the training early: a run that was killed afterwards must not train further."""
        return {"ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        self.ended = state_dict["ended"]

    def _best_votes(self) -> Sequence[str]:
        """The votes whose best epoch this one is so far."""
        if self.refit:
            return self.votes
        *earlier, latest = self.history.rows
        metrics = {vote: f"val/{vote}/{self.metric}" for vote in self.votes}
        return [
            vote
            for vote, metric in metrics.items()
            if metric in latest and all(latest[metric] > row[metric] for row in earlier if metric in row)
        ]


def _save(trainer: L.Trainer, path: Path, weights_only: bool) -> None:
    """Replace `path` when the new checkpoint is complete. Lightning writes in place: a full disk would leave half."""
    draft = path.with_name(f".{path.name}")
    try:
        trainer.save_checkpoint(draft, weights_only)
        if trainer.is_global_zero:
            draft.replace(path)
    finally:
        if trainer.is_global_zero:
            draft.unlink(missing_ok=True)


FEW_IMAGES = 5


@dataclass
class _Step:
    """A step whose loss may not be known yet.

    Attributes:
        loss: of a GPU, a copy under way.
        copied: tells whether the copy is complete; None on a processor.
    """

    loss: Tensor
    copied: torch.cuda.Event | None
    positions: Tensor
    number: int


class StopOnNaN(L.Callback):
    """Stops at a loss that is not finite, and when the pack's images were changed while they are in use.

    Must come before the callback that saves checkpoints, so that the last checkpoint is a good one. A GPU never waits:
    a loss is copied behind its step and looked at when it has arrived, at the end of the epoch at the latest.

    Args:
        run: its folder, for the message.

    Raises FloatingPointError that names the step, images of the batch and the last checkpoint; OSError for the pack.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self._steps: deque[_Step] = deque()

    def on_train_batch_end(
        self, trainer: L.Trainer, module: L.LightningModule, outputs: Any, batch: tuple[Tensor, ...], batch_idx: int
    ) -> None:
        loss, copied = outputs["loss"].detach().to("cpu", non_blocking=True), None
        if outputs["loss"].is_cuda:
            copied = torch.cuda.Event()
            copied.record()
        self._steps.append(_Step(loss, copied, batch[2], trainer.global_step))
        while self._steps and ((copied := self._steps[0].copied) is None or copied.query()):
            self._check(self._steps.popleft(), trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        while self._steps:
            step = self._steps.popleft()
            if step.copied is not None:
                step.copied.synchronize()
            self._check(step, trainer)
        if trainer.datamodule.pack.was_changed_in_place():  # type: ignore[attr-defined]
            raise OSError(
                f"{trainer.datamodule.pack.folder} was changed while it was in use, so that this epoch may have seen "  # type: ignore[attr-defined]
                "other images: remove the folder and start again; the run goes on from its last checkpoint"
            )

    def _check(self, step: _Step, trainer: L.Trainer) -> None:
        loss = step.loss.item()
        if math.isfinite(loss):
            return
        names = trainer.datamodule.pack.names(step.positions[:FEW_IMAGES].cpu().numpy())  # type: ignore[attr-defined]
        more = "" if len(step.positions) <= FEW_IMAGES else f", … ({counted(len(step.positions), 'image')})"
        last = self.run.last_checkpoint
        kept = f"the last checkpoint, {last}, is of an epoch before" if last.exists() else "there is no checkpoint yet"
        raise FloatingPointError(
            f"the loss is {loss} at step {step.number} (epoch {trainer.current_epoch}), of {', '.join(names)}{more}; "
            f"{kept}; lower optimizer.lr, or set trainer.precision=32-true"
        )


class TrainLastBiasOnly(L.Callback):
    """Trains only the bias of the last layer. All other parameters and the BatchNorm statistics stay fixed.

    Retraining only the last layer adapts a network to other class frequencies (Kang et al. 2020, arXiv:1910.09217,
    section 4). This trains less of it.
    """

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Before the optimizer is made. Raises ValueError if the last layer has no bias."""
        net = module.get_submodule("net")
        assert isinstance(net, VotingNetwork)
        head = find_last_layer(net, len(module.info.outputs))  # type: ignore[arg-type, union-attr]
        bias = net.backbone.get_submodule(head).bias
        if bias is None:
            raise ValueError(f"callbacks=last_bias trains the last layer's bias, but the network's `{head}` has none")
        net.requires_grad_(False)
        bias.requires_grad_()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        module.get_submodule("net").eval()


class ForwardMemory(L.Callback):
    """Logs the memory that a training-mode forward pass of the first batch leaves allocated, in MiB an image.

    On CUDA by `torch.cuda.memory_allocated`, as `memory/forward_mib_per_image`; elsewhere by the tensors that live
    after the pass, as `memory/forward_mib_per_image_autograd` (see `cost.py`). The measurement works on a copy
    of the network, so that BatchNorm statistics, gradients and random numbers of the training stay as they are.
    """

    def __init__(self) -> None:
        self.mib_per_image: float | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: tuple[Tensor, ...], batch_idx: int
    ) -> None:
        if batch_idx > 0:
            return
        images = module.lay_out(batch[0])  # type: ignore[operator]
        name = "memory/forward_mib_per_image" + ("" if images.is_cuda else "_autograd")
        if self.mib_per_image is None:
            with trainer.precision_plugin.forward_context():
                self.mib_per_image = forward_mib_per_image(module.get_submodule("net"), images)
            for logger in trainer.loggers:
                logger.log_metrics({name: self.mib_per_image}, step=trainer.global_step)
        # In every epoch: a resumed run reports the value that its checkpoint holds.
        trainer.callback_metrics[name] = torch.tensor(self.mib_per_image)

    def state_dict(self) -> dict[str, float | None]:
        return {"mib_per_image": self.mib_per_image}

    def load_state_dict(self, state_dict: dict[str, float | None]) -> None:
        self.mib_per_image = state_dict["mib_per_image"]


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


class RunProgressBar(ProgressBar):
    """A progress bar over the images of all epochs, so that the time left is the run's."""

    def __init__(self, title: str, metric: str) -> None:
        super().__init__()
        self.title = shortened(title)  # leave room for the bar in 80 columns
        self.metric = metric
        self.bar: tqdm | None = None

        self._enabled = True

    def disable(self) -> None:
        """Lightning asks this of a progress bar on every rank but the first, and while a tuner tries values."""
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not self._enabled:
            return
        assert trainer.max_epochs is not None
        data = trainer.datamodule  # type: ignore[attr-defined]
        images = min(data.train_size, data.batch_size * int(trainer.num_training_batches))
        done = images * trainer.current_epoch
        total = images * trainer.max_epochs
        self.bar = progress_bar(total=total, initial=done, desc=self.title, unit="img", unit_scale=total > 10_000)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        module: L.LightningModule,
        outputs: object,
        batch: tuple[Tensor, ...],
        batch_idx: int,
    ) -> None:
        if self.bar is not None:
            self.bar.update(len(batch[0]) * trainer.world_size)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if self.bar is not None:
            validated = trainer.callback_metrics.get(self.metric)
            figures = {"loss": f"{trainer.callback_metrics['train/loss'].item():.3f}"}
            if validated is not None:
                part, vote, metric = self.metric.split("/")
                value = validated.item()
                figures[f"{part} {vote}"] = f"{value:.2%}" if metric == "accuracy" else f"{metric} {value:.3f}"
            self.bar.set_postfix(epoch=f"{trainer.current_epoch + 1}/{trainer.max_epochs}", **figures)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
