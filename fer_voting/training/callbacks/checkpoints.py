"""Checkpoints of the last epoch and of each vote's best."""

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fer_voting.runs.run import Run
from fer_voting.training.callbacks.history import History
from fer_voting.votes import VOTES

__all__ = ["Checkpoints"]


class Checkpoints(Checkpoint):
    """Saves last.ckpt after every epoch, and each vote's best-<vote>.ckpt after an epoch better than all before.

    The rows of metrics.csv decide which epoch is best, so that a run that continues in a moved folder keeps its best.
    Of equally good epochs the first counts.

    Args:
        run: its folder.
        history: the callback that writes metrics.csv; must come before this one.
        refit_vote: of a refit, which validates nothing: the vote whose best is the last epoch.
    """

    def __init__(self, run: Run, history: History, refit_vote: str | None) -> None:
        self.run, self.history, self.refit_vote = run, history, refit_vote

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        assert trainer.max_epochs is not None
        if self.refit_vote is None:
            *earlier, latest = self.history.rows
            for vote in VOTES:
                metric = f"val/{vote}/accuracy"
                if metric in latest and all(latest[metric] > row.get(metric, 0.0) for row in earlier):
                    trainer.save_checkpoint(self.run.best_checkpoint(vote), weights_only=True)
        elif trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.save_checkpoint(self.run.best_checkpoint(self.refit_vote), weights_only=True)
        trainer.save_checkpoint(self.run.last_checkpoint)
