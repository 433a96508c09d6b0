"""Reproducible experiments with the voting residual network for facial expressions in small images."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_voting.config import compose
    from fer_voting.experiment import train
    from fer_voting.inference.recognizer import Recognizer

__all__ = ["Recognizer", "compose", "train"]

__version__ = "0.1.0"

_MODULES = {
    "Recognizer": "fer_voting.inference.recognizer",
    "compose": "fer_voting.config",
    "train": "fer_voting.experiment",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import fer_voting` stays light."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fer_voting.system.packages import whole_package

    with whole_package():
        module = importlib.import_module(_MODULES[name])
    return getattr(module, name)
