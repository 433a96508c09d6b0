"""Training of the last layer's bias from a finished network."""

from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from torch import Tensor

from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.runs.run import Run
from fer_voting.training.callbacks import TrainLastBiasOnly
from fer_voting.training.losses import CrossEntropy
from fer_voting.training.module import VotingModule

WORDS = ("split=m3", "dataset.size=24", "trainer.max_epochs=2")


def weights(run: Run) -> dict[str, Tensor]:
    state = torch.load(run.best_checkpoint("soft"), weights_only=True)["state_dict"]
    return {name: value for name, value in state.items() if name.startswith("net.")}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_nothing_but_the_last_bias_changes(run_train: Callable[..., Path], optimizer: str) -> None:
    """Neither weights nor BatchNorm's statistics, which a training updates without a gradient."""
    output_dir = run_train(*WORDS, "name=first")
    run_train(*WORDS, "name=second", "init_from=first", "callbacks=last_bias", f"optimizer={optimizer}")
    before, after = (weights(Run(output_dir, name)) for name in ("first", "second"))
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"net.fc.bias"}


def test_random_weights_are_refused_before_anything_is_packed(run_train: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: callbacks=last_bias .*init_from"):
        run_train(*WORDS, "name=mine", "callbacks=last_bias")
    assert Run(tmp_path / "outputs", "mine").status() == "failed"
    assert not (tmp_path / "outputs" / "packs").exists()


def test_a_last_layer_without_a_bias() -> None:
    net = VotingResNet18("m3", width=4)
    net.backbone.fc.bias = None
    info = NetworkInfo("m3", {"width": 4}, ("a", "b", "c", "d", "e", "f", "g"), 48, "faces")
    module = VotingModule(net, CrossEntropy(), torch.optim.Adam, info)
    with pytest.raises(ValueError, match=r"the network's `fc` has none"):
        TrainLastBiasOnly().setup(L.Trainer(logger=False), module, "fit")
