"""One progress bar for a whole run, with rate and time left."""

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from torch import Tensor
from tqdm import tqdm

from fer_voting.system.messages import progress_bar
from fer_voting.system.text import shortened


class RunProgress(ProgressBar):
    """A progress bar over the images of all epochs, so that the time left is the run's."""

    def __init__(self, title: str, vote: str) -> None:
        super().__init__()
        self.title = shortened(title)  # a terminal of 80 columns also has room for the progress
        self.vote = vote
        self.bar: tqdm | None = None

    def disable(self) -> None:
        """Lightning asks this of a progress bar on every rank but the first."""
        self._silent = True

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        assert trainer.max_epochs is not None
        images = trainer.datamodule.train_size  # type: ignore[attr-defined]
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
            accuracy = trainer.callback_metrics.get(f"val/{self.vote}/accuracy")
            figures = {"loss": f"{trainer.callback_metrics['train/loss'].item():.3f}"}
            if accuracy is not None:
                figures[f"val {self.vote}"] = f"{accuracy.item():.2%}"
            self.bar.set_postfix(epoch=f"{trainer.current_epoch + 1}/{trainer.max_epochs}", **figures)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None
