"""Training of the last layer's bias from a finished network."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fer_voting.runs.run import Run

WORDS = ("split=m3", "dataset.size=24", "dataset.schedule.epochs=2")


def weights(run: Run) -> dict[str, Tensor]:
    state = torch.load(run.best_checkpoint("soft"), weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("net.")}


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_nothing_but_the_last_bias_changes(run_train: Callable[..., Path], optimizer: str) -> None:
    """Neither weights nor BatchNorm's statistics, which a training updates without a gradient."""
    output_dir = run_train(*WORDS, "name=first")
    run_train(*WORDS, "name=second", "init_from=first", "callbacks=last_bias", f"optimizer={optimizer}")
    before, after = (weights(Run(output_dir, name)) for name in ("first", "second"))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"net.fc.bias"}
