"""Where the checkout is, and trainings of a second or two."""

import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent

TINY = (
    "dataset=faces",
    "dataset.train_size=60",
    "dataset.val_size=20",
    "dataset.test_size=20",
    "dataset.size=24",
    "dataset.batch_size=20",
    "dataset.schedule.epochs=2",
    "model.width=4",
    "logger=none",
    "plots=false",
)
"""Words of the command line for a training of a second."""


def train_here(output_dir: Path, *words: str) -> None:
    """`python -m fer_voting.train WORDS...` in this process; raises SystemExit as the command does."""
    from fer_voting.train import main

    flags = [word for word in words if word == "-m"]
    words = tuple(word for word in words if word != "-m")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fer_voting.train", *flags, f"output_dir={output_dir}", *words])
        main()
