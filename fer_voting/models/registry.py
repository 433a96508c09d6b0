"""The networks there are: the options of `model`, each a file of conf/model.

A checkpoint or a shared folder names one of them and gives plain values for its keys. Only the files of this
installation say what is called.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fer_voting.config import options_of_group
from fer_voting.models.voting import VotingNetwork

Options = Mapping[str, str | int | float | bool | None]
"""Values of an architecture's keys, by name."""

# Values that a training has use for, and a trained network has not.
OF_TRAINING = ("dropout", "memory", "pretrained")

MAX_NUMBER = 1024
"""Limit of a number in a stranger's file, such as channels of a layer: more would take more memory than a network."""

_WORD = re.compile(r"[\w./-]{1,200}", re.ASCII)  # no `${...}`, which OmegaConf would resolve


def architectures() -> tuple[str, ...]:
    """Names of the networks."""
    return tuple(sorted(options_of_group("model")))


def build_network(model: Mapping[str, Any], split: str, num_classes: int, image_size: int) -> VotingNetwork:
    """The network of a configuration's `model` node, initialised.

    Raises ValueError if the node's values do not fit, or if the network cannot take images, or crops, of this size.
    """
    try:
        return instantiate(model, split=split, num_classes=num_classes, image_size=image_size)
    except InstantiationException as error:
        if isinstance(error.__cause__, ValueError):
            raise error.__cause__ from None
        raise


def digest_of_fetched(model: Mapping[str, Any], split: str, image_size: int) -> str:
    """SHA-256 of the weights that `model.pretrained=true` gives a network: of all that the number of classes leaves."""
    first, second = (build_network(model, split, classes, image_size).state_dict() for classes in (2, 3))
    digest = hashlib.sha256()
    for key, tensor in sorted(first.items()):
        if tensor.shape == second[key].shape:
            digest.update(key.encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def options_of(architecture: str, model: Mapping[str, Any]) -> Options:
    """The plain values of a resolved `model` node, which a trained network must know.

    Raises ValueError if the file lacks a key: what builds the network from a checkpoint knows the file's. Also if
    another value, such as what is called, is not the file's: a checkpoint would not have it; or as `check_options`.
    """
    in_file = read_node(architecture)
    if unknown := sorted(model.keys() - in_file.keys()):
        known = ", ".join(key for key in in_file if not key.startswith("_"))
        raise ValueError(
            f"conf/model/{architecture}.yaml has no {', '.join(unknown)}, but {known}: "
            "write a file of its own for a network with further values"
        )
    for key in sorted(model.keys() | in_file.keys()):
        value = model.get(key)
        if not _is_option(key, value) and value != in_file.get(key):
            raise ValueError(
                f"model.{key} (={str(value)[:80]}) is not that of conf/model/{architecture}.yaml, and checkpoints keep "
                "plain values alone: write a file of its own for this network"
            )
    options = _plain(model)
    check_options(architecture, options)
    return options


def _plain(model: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in model.items() if key not in OF_TRAINING and _is_option(key, value)}


def check_options(architecture: Any, options: Any) -> None:
    """Raises ValueError if a file that anyone wrote names a network that is not here, or values of it that are neither
    the network's own file's nor plain and within limits."""
    if not isinstance(architecture, str) or architecture not in architectures():
        raise ValueError(
            f"`architecture` (={str(architecture)[:40]!r}) must be one of {', '.join(architectures())}: a network of "
            "one's own needs its file in conf/model"
        )
    if not isinstance(options, Mapping):
        raise ValueError(f"`options` must be a mapping, not a {type(options).__name__}")
    known = _plain(read_node(architecture))
    for key, value in options.items():
        if key not in known:
            raise ValueError(f"`options` has {str(key)[:40]!r}; {architecture} has {', '.join(known)}")
        if not _is_option(key, value):
            raise ValueError(f"`{key}` must be a plain value, not a {type(value).__name__}")
        if type(value) is type(known[key]) and value == known[key]:
            continue
        if known[key] is not None and type(value) is not type(known[key]):
            raise ValueError(f"`{key}` (={str(value)[:40]!r}) must be a value like {known[key]!r}")
        if isinstance(value, str) and not _WORD.fullmatch(value):
            raise ValueError(f"`{key}` (={value[:40]!r}) must be a word")
        if type(value) in (int, float) and not abs(value) <= MAX_NUMBER:
            raise ValueError(f"`{key}` (={value!r}) must be a number from {-MAX_NUMBER} to {MAX_NUMBER}")


def read_node(architecture: str) -> dict[str, Any]:
    """The content of an architecture's file. Raises ValueError if it is no mapping."""
    path = options_of_group("model")[architecture]
    node = OmegaConf.to_container(OmegaConf.load(path))
    if not isinstance(node, dict):
        raise ValueError(f"{path} must be a mapping: a _target_ and its values")
    return {str(key): value for key, value in node.items()}


def _is_option(key: str, value: Any) -> bool:
    return not key.startswith("_") and (value is None or isinstance(value, str | int | float | bool))
