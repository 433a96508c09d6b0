"""Reproducible experiments with the voting residual network for facial expressions in small images."""

from typing import TYPE_CHECKING

from fer_voting.system.packages import import_when_used

if TYPE_CHECKING:
    from fer_voting.config import compose
    from fer_voting.experiment import train
    from fer_voting.inference.recognizer import Recognizer

__all__ = ["Recognizer", "compose", "train"]

__version__ = "0.1.0"

__getattr__ = import_when_used(
    __name__,
    {
        "Recognizer": "fer_voting.inference.recognizer",
        "compose": "fer_voting.config",
        "train": "fer_voting.experiment",
    },
)
