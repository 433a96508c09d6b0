"""Which epoch's checkpoint is kept as the best, also where the run continues in another folder."""

from pathlib import Path

import lightning as L
import pytest
import torch
from helpers.callbacks import StepWitness
from lightning.pytorch.callbacks import WeightAveraging
from torch.utils.data import DataLoader

from fer_voting.runs.run import Run, read_history
from fer_voting.training.callbacks import BestPerVote, MetricsCSV
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


def train(
    run: Run,
    accuracies: list[float],
    *callbacks: L.Callback,
    refit: bool = False,
    resume: bool = False,
    epochs_a_validation: int = 1,
) -> None:
    history, votes = MetricsCSV(run.metrics_file), ["soft"] if refit else list(VOTES)
    trainer = L.Trainer(
        max_epochs=len(accuracies),
        check_val_every_n_epoch=epochs_a_validation,
        callbacks=[
            *callbacks,
            history,
            BestPerVote(run, history, votes, "accuracy", refit),
        ],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0 if refit else 1.0,
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


@pytest.mark.parametrize(("second", "fourth", "best"), [(0.4, 0.6, 3), (0.6, 0.4, 1), (0.0, 0.0, 1)])
def test_epochs_without_validation_are_not_compared(tmp_path: Path, second: float, fourth: float, best: int) -> None:
    run = Run(tmp_path, "run")
    train(run, [0.9, second, 0.9, fourth, 0.9], epochs_a_validation=2)
    assert best_epoch(run) == best
    recorded = [row.get("val/soft/accuracy") for row in read_history(run.metrics_file)]
    assert recorded == pytest.approx([None, second, None, fourth, None])


def test_the_best_is_the_average_alone_and_the_last_is_all_that_a_training_goes_on_from(tmp_path: Path) -> None:
    """`WeightAveraging` takes the mean of the weights after each step; a step goes a fifth of the way to 1."""
    run = Run(tmp_path, "run")
    train(run, [0.1, 0.9, 0.2], WeightAveraging())
    after_step = [1 - 0.8**step for step in range(1, 7)]  # two steps an epoch
    best = torch.load(run.best_checkpoint("soft"), weights_only=True)
    assert best["state_dict"]["weight"].item() == pytest.approx(sum(after_step[:4]) / 4)
    assert "optimizer_states" not in best
    last = torch.load(run.last_checkpoint, weights_only=True)
    assert last["state_dict"]["weight"].item() == pytest.approx(sum(after_step) / 6)
    assert last["current_model_state"]["weight"].item() == pytest.approx(after_step[-1])
    assert len(last["optimizer_states"]) == 1


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
    train(run, [0.0, 0.0, 0.0], refit=True)
    assert best_epoch(run) == 2


def test_the_best_epoch_of_a_refit_is_its_last_so_far(tmp_path: Path) -> None:
    run = Run(tmp_path, "run")
    with pytest.raises(SystemExit):  # Lightning's answer to Ctrl-C
        train(run, [0.0, 0.0, 0.0], StepWitness(stop_after=2), refit=True)
    assert best_epoch(run) == 1
