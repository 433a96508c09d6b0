"""Reproducible experiments with the voting residual network for facial expressions in small images."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer_voting.inference.recognizer import Recognizer

__all__ = ["Recognizer"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Recognizer":  # on first use, for `import fer_voting` stays light
        from fer_voting.inference.recognizer import Recognizer

        return Recognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
