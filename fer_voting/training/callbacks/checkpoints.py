"""Checkpoints of the last epoch and of each vote's best."""

from collections.abc import Iterable
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from fer_voting.runs.run import Run
from fer_voting.training.averaging import averaged_weights
from fer_voting.training.callbacks.history import History
from fer_voting.votes import VOTES


class Checkpoints(Checkpoint):
    """Saves last.ckpt after every epoch, and each vote's best-<vote>.ckpt after an epoch better than all before.

    The rows of metrics.csv decide which epoch is best, so that a run that continues in a moved folder keeps its best.
    Of equally good epochs the first counts. Where a callback averages weights, the best are the averages that were
    validated, and last.ckpt holds both.

    Args:
        run: its folder.
        history: the callback that writes metrics.csv; must come before this one.
        refit_vote: of a refit, which validates nothing: the vote whose best is the last epoch.
        votes: names of the votes that select epochs.
    """

    def __init__(self, run: Run, history: History, refit_vote: str | None, votes: Iterable[str] = VOTES) -> None:
        self.run, self.history, self.refit_vote, self.votes = run, history, refit_vote, tuple(votes)

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        with averaged_weights(trainer, module):  # those that were validated
            for vote in self._best_votes(trainer):
                _save(trainer, self.run.best_checkpoint(vote), weights_only=True)
        _save(trainer, self.run.last_checkpoint, weights_only=False)

    def _best_votes(self, trainer: L.Trainer) -> list[str]:
        """The votes whose best epoch this one is so far."""
        if self.refit_vote is not None:
            return [self.refit_vote] if trainer.current_epoch + 1 == trainer.max_epochs else []
        *earlier, latest = self.history.rows
        metrics = {vote: f"val/{vote}/accuracy" for vote in self.votes}
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
