"""Where the checkout is, and trainings of a second or two."""

import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]

TINY = (
    "dataset=faces",
    "dataset.train_size=60",
    "dataset.val_size=20",
    "dataset.test_size=20",
    "dataset.size=24",
    "dataset.batch_size=20",
    "trainer.max_epochs=2",
    "model.width=4",
    "logger=none",
    "plots=false",
)
"""Words of the command line for a training of a second."""


def train_here(output_dir: Path, *words: str) -> None:
    """`python -m fer_voting.train WORDS...` in this process; raises SystemExit as the command does.

    A single training's configuration is `composed`. Hydra's own entry, which sweeps take, composes it twice, to learn
    that it is no sweep.
    """
    from helpers.composed import composed

    from fer_voting.config import explain
    from fer_voting.experiment import train
    from fer_voting.train import main

    words = (f"output_dir={output_dir}", *words)
    if "-m" in words:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["fer_voting.train", "-m", *(word for word in words if word != "-m")])
            return main()
    try:
        train(composed(words))
    except Exception as error:
        sys.exit(f"error: {explain(error)}")
