"""Weights on disk: what a checkpoint says of itself, and how its weights come into another network by name."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer_voting.data.labels import canonical

__all__ = ["NetworkRecord", "initialise", "load_weights"]

log = logging.getLogger(__name__)

RECORD = "fer_voting"
"""Key of the record in a checkpoint."""


@dataclass(frozen=True)
class NetworkRecord:
    """What one must know to use the weights of a checkpoint."""

    split: str
    width: int
    class_names: tuple[str, ...]
    image_size: int
    dataset: str

    def write(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[RECORD] = {**asdict(self), "class_names": list(self.class_names)}

    @classmethod
    def read(cls, checkpoint: dict[str, Any], path: Path) -> "NetworkRecord":
        if RECORD not in checkpoint:
            raise ValueError(f"{path} is no checkpoint of fer_voting: it lacks the entry '{RECORD}'")
        record = dict(checkpoint[RECORD])
        return cls(**{**record, "class_names": tuple(record["class_names"])})


def load_weights(path: Path) -> tuple[dict[str, Tensor], NetworkRecord]:
    """The network's state_dict (torchvision's names, on the CPU) and its record.

    Raises FileNotFoundError, or ValueError if the file is not a checkpoint of this project.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a different type for each kind of damage
        raise ValueError(f"{path} cannot be read as a checkpoint: {error}") from error
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} is no checkpoint of fer_voting: it holds a {type(checkpoint).__name__}")
    record = NetworkRecord.read(checkpoint, path)
    prefix = "net."
    state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    return state, record


def initialise(
    net: nn.Module, class_names: Sequence[str], path: Path, missing_classes: str = "error"
) -> dict[str, str]:
    """Load the weights of `path` into `net`, the rows of the last layer by class name.

    Args:
        net: network whose last layer is called `fc`.
        class_names: names of its outputs, in order.
        path: checkpoint; its split may differ, its width may not.
        missing_classes: `error`, or `random`: classes that the checkpoint lacks keep `net`'s initial weights.

    Returns `{class of net: class of the checkpoint}` for the rows that were found.

    Raises ValueError that names the keys, shapes or classes that do not fit.
    """
    if missing_classes not in ("error", "random"):
        raise ValueError(f"`init_missing_classes` (={missing_classes!r}) must be error or random")
    state, record = load_weights(path)
    own = net.state_dict()
    head = ("fc.weight", "fc.bias")
    missing = sorted(own.keys() - state.keys())
    extra = sorted(state.keys() - own.keys())
    if missing or extra:
        raise ValueError(f"{path} does not fit the network: missing keys {_few(missing)}; unknown keys {_few(extra)}")
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key not in head and own[key].shape != state[key].shape
    ]
    if misshapen:
        raise ValueError(
            f"{path} (width {record.width}) does not fit the network: {_few(misshapen)}; set model.width={record.width}"
        )
    rows = {_key(name): row for row, name in enumerate(record.class_names)}
    unknown = [name for name in class_names if _key(name) not in rows]
    if unknown and missing_classes == "error":
        raise ValueError(
            f"{path} knows the classes {', '.join(record.class_names)}, not {', '.join(unknown)}; "
            "init_missing_classes=random starts these from scratch"
        )
    matched = {name: record.class_names[rows[_key(name)]] for name in class_names if name not in unknown}
    for key in head:
        merged = own[key].clone()
        for own_row, name in enumerate(class_names):
            if name in matched:
                merged[own_row] = state[key][rows[_key(name)]]
        state[key] = merged
    net.load_state_dict(state)
    log.info(
        "weights of %s (%s, split %s): classes matched by name: %s%s",
        path,
        record.dataset,
        record.split,
        ", ".join(matched) or "none",
        f"; from scratch: {', '.join(unknown)}" if unknown else "",
    )
    return matched


def _key(name: str) -> str:
    """What two names of a class have in common; classes of a user's own have no synonyms."""
    try:
        return canonical(name)
    except ValueError:
        return name


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4]) or "none"
    return f"{shown}, … ({len(names)} in all)" if len(names) > 4 else shown
