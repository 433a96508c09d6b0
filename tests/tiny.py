"""Where the checkout is, and the words of a training of a second."""

from pathlib import Path

REPO = Path(__file__).resolve().parent.parent

TINY = (
    "dataset=faces",
    "dataset.train_size=60",
    "dataset.val_size=20",
    "dataset.test_size=20",
    "dataset.batch_size=20",
    "dataset.schedule.epochs=2",
    "model.width=4",
    "logger=none",
)
"""A training of a second."""
