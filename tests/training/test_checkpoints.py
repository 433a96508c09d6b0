"""Which epoch's checkpoint is kept as the best, also where the run continues in another folder."""

from pathlib import Path

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from fer_voting.runs.run import Run
from fer_voting.training.callbacks import Checkpoints, History
from fer_voting.votes import VOTES


class Scripted(L.LightningModule):
    """Logs the given accuracy of every vote in each epoch."""

    def __init__(self, accuracies: list[float]) -> None:
        super().__init__()
        self.accuracies = accuracies
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        return (self.weight - batch).square().sum()

    def on_validation_epoch_end(self) -> None:
        for vote in VOTES:
            self.log(f"val/{vote}/accuracy", self.accuracies[self.current_epoch])

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train(run: Run, accuracies: list[float], refit_vote: str | None = None, resume: bool = False) -> None:
    history = History(run.metrics_file)
    trainer = L.Trainer(
        max_epochs=len(accuracies),
        callbacks=[history, Checkpoints(run, history, refit_vote)],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0 if refit_vote else 1.0,
    )
    loader = DataLoader(torch.ones(2, 1))
    checkpoint = run.last_checkpoint if resume else None
    trainer.fit(Scripted(accuracies), loader, loader, ckpt_path=checkpoint, weights_only=True)


def best_epoch(run: Run) -> int:
    return torch.load(run.best_checkpoint("soft"), weights_only=True)["epoch"]


# Loading in the training's own process is meant, and Lightning names no other class for this warning.
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*LeafSpec.* is deprecated")


@pytest.mark.parametrize(("accuracies", "best"), [([0.5, 0.9, 0.4], 1), ([0.7, 0.7], 0), ([0.1, 0.2, 0.3], 2)])
def test_the_first_of_the_best_epochs_is_kept(tmp_path: Path, accuracies: list[float], best: int) -> None:
    run = Run(tmp_path, "run")
    train(run, accuracies)
    assert best_epoch(run) == best


def test_a_moved_run_keeps_its_best_epoch(tmp_path: Path) -> None:
    train(Run(tmp_path / "first", "run"), [0.5, 0.9])
    (tmp_path / "first").rename(tmp_path / "second")
    moved = Run(tmp_path / "second", "run")
    train(moved, [0.5, 0.9, 0.4], resume=True)
    assert best_epoch(moved) == 1
    train(moved, [0.5, 0.9, 0.4, 0.95], resume=True)
    assert best_epoch(moved) == 3


def test_metrics_of_a_continued_run_are_the_same_bytes(tmp_path: Path) -> None:
    whole, continued = Run(tmp_path, "whole"), Run(tmp_path, "continued")
    train(whole, [0.5, 1 / 3, 0.1])
    train(continued, [0.5, 1 / 3])
    train(continued, [0.5, 1 / 3, 0.1], resume=True)
    assert continued.metrics_file.read_bytes() == whole.metrics_file.read_bytes()


def test_a_refit_keeps_its_last_epoch_and_numbers_it_from_0(tmp_path: Path) -> None:
    run = Run(tmp_path, "run")
    train(run, [0.0, 0.0, 0.0], refit_vote="soft")
    assert best_epoch(run) == 2
