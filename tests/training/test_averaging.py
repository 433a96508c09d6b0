"""Averaged weights: the formula, what is validated and kept, and a training that stops and goes on."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.callbacks import StepWitness
from helpers.composed import composed
from helpers.train import TINY

from fer_voting.experiment import train
from fer_voting.runs.run import Run, read_history
from fer_voting.training.averaging import ema

DECAY = 0.7
STEPS_PER_EPOCH = 3


def run_words(output_dir: Path, *words: str) -> Run:
    """The run of a small training with averaged weights; an interruption ends it as a kill does."""
    words = (
        *TINY,
        *("dataset.size=24", "trainer.max_epochs=3", "split=m3", "callbacks=ema", "name=mine"),
        *(f"callbacks.average.multi_avg_fn.decay={DECAY}", "optimizer.lr=1e-2", f"output_dir={output_dir}"),
        *words,
    )
    with contextlib.suppress(KeyboardInterrupt):
        train(composed(words))
    return Run(output_dir, "mine")


def averages(states: list[dict[str, torch.Tensor]]) -> list[dict[str, torch.Tensor]]:
    """The average after each step: a_0 = w_0, a_t = d a_(t-1) + (1 - d) w_t, d = min(decay, (1 + t) / (10 + t))."""
    found = [{key: value.double() for key, value in states[0].items()}]
    for step, state in enumerate(states[1:], start=1):
        decay = min(DECAY, (1 + step) / (10 + step))
        found.append({key: decay * found[-1][key] + (1 - decay) * state[key].double() for key in state})
    return found


def weights(path: Path) -> dict[str, torch.Tensor]:
    state = torch.load(path, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("net.")}


def test_the_first_steps_forget_the_initial_weights() -> None:
    update = ema(0.999)
    average = [torch.tensor([1.0])]
    for step in range(1, 286):  # the average is 1 before the first, and the weights are 0 from then on
        update(average, [torch.tensor([0.0])], torch.tensor(step))
    assert average[0].item() < 1e-15
    assert pytest.approx(0.752, abs=0.001) == 0.999**285  # what a constant decay would keep


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range(decay: float) -> None:
    with pytest.raises(ValueError, match="`decay`"):
        ema(decay)


@pytest.mark.slow
def test_the_best_checkpoint_holds_the_average_that_was_validated(tmp_path: Path) -> None:
    run = run_words(tmp_path, "+callbacks.witness._target_=helpers.callbacks.StepWitness")
    states = StepWitness.latest.states
    assert len(states) == 3 * STEPS_PER_EPOCH
    history, result = read_history(run.metrics_file), run.result()
    assert result is not None
    for vote in ("soft", "hard"):
        best = result["votes"][vote]["best_epoch"]
        expected = averages(states)[(best + 1) * STEPS_PER_EPOCH - 1]
        kept = weights(run.best_checkpoint(vote))
        for key, value in kept.items():
            if value.is_floating_point():  # BatchNorm's running statistics among them
                torch.testing.assert_close(value.double(), expected[key], rtol=1e-4, atol=1e-6)
        assert not torch.equal(kept["net.fc.weight"], states[(best + 1) * STEPS_PER_EPOCH - 1]["net.fc.weight"])
        # The saved weights, evaluated once more, are as good as the weights that were validated in that epoch.
        assert result["votes"][vote]["val"]["accuracy"] == pytest.approx(history[best][f"val/{vote}/accuracy"])


@pytest.mark.slow
def test_a_training_that_stops_and_goes_on_ends_with_the_same_weights(tmp_path: Path) -> None:
    """With everything that has a state or random numbers of its own: the average, CutMix, one cycle, momentum."""
    more = ("mix=cutmix", "scheduler=one_cycle", "optimizer=sgd")
    stops = "+callbacks.witness={_target_:helpers.callbacks.StepWitness,stop_after:2}"
    goes_on = "+callbacks.witness={_target_:helpers.callbacks.StepWitness,stop_after:9}"
    whole = run_words(tmp_path / "whole", *more, goes_on)
    run = run_words(tmp_path / "stopped", *more, stops)
    assert run.status() == "interrupted"
    last = torch.load(run.last_checkpoint, weights_only=True)
    assert not torch.equal(last["state_dict"]["net.fc.weight"], last["current_model_state"]["net.fc.weight"])
    (run.dir / "config.yaml").write_text((whole.dir / "config.yaml").read_text())  # only the witness differs
    run = run_words(tmp_path / "stopped", *more, goes_on)
    assert run.status() == "finished"
    assert run.metrics_file.read_text() == whole.metrics_file.read_text()
    for vote in ("soft", "softprob", "hard"):
        ours, theirs = weights(run.best_checkpoint(vote)), weights(whole.best_checkpoint(vote))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.slow
def test_averages_work_with_a_refit_and_every_option(run_train: Callable[..., Path]) -> None:
    words = ("split=m3", "callbacks=ema", "dataset.size=24", "trainer.max_epochs=1")
    run_train(*words)
    output_dir = run_train(*words, "refit=true")
    (refit,) = (output_dir / "runs").glob("*refit*")
    assert {path.name for path in (refit / "checkpoints").iterdir()} == {"best-soft.ckpt", "last.ckpt"}
