"""Checkpoints: a network's weights and the metadata needed to use them."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["NetworkInfo", "load_weights"]

INFO_KEY = "fer_voting"
"""Key of the metadata in a checkpoint."""


@dataclass(frozen=True)
class NetworkInfo:
    """Metadata of a checkpoint's network: how to build it and what its outputs mean."""

    split: str
    width: int
    class_names: tuple[str, ...]
    image_size: int
    dataset: str

    def write(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[INFO_KEY] = {**asdict(self), "class_names": list(self.class_names)}

    @classmethod
    def read(cls, checkpoint: dict[str, Any], path: Path) -> "NetworkInfo":
        if INFO_KEY not in checkpoint:
            raise ValueError(f"{path} is not a checkpoint of fer_voting: it lacks the entry '{INFO_KEY}'")
        info = dict(checkpoint[INFO_KEY])
        return cls(**{**info, "class_names": tuple(info["class_names"])})


def load_weights(path: Path) -> tuple[dict[str, Tensor], NetworkInfo]:
    """The network's state_dict (torchvision's names, on the CPU) and its metadata.

    Raises FileNotFoundError, or ValueError if the file is not a checkpoint of this project.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each kind of damage
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} is not a checkpoint of fer_voting: it holds a {type(checkpoint).__name__}")
    info = NetworkInfo.read(checkpoint, path)
    prefix = "net."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    return state, info
