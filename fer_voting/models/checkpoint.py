"""Checkpoints: a network's weights and the metadata needed to use them."""

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from torch import Tensor

from fer_voting.face_input import FaceInput
from fer_voting.models.registry import Options, build_network, check_options, read_node
from fer_voting.models.voting import VotingNetwork
from fer_voting.system.text import check_name, check_output_names

INFO_KEY = "fer_voting"
"""Key of the metadata in a checkpoint."""

MAX_IMAGE_SIZE = 4096
"""Far beyond what is of use: a file that anyone wrote may not ask for more memory than a network takes."""


@dataclass(frozen=True)
class NetworkInfo:
    """Metadata of a checkpoint's network: how to build it and what its outputs mean."""

    split: str
    options: Options
    """Values of the architecture: `{"width": 64}`."""
    class_names: tuple[str, ...]
    image_size: int
    dataset: str
    architecture: str = "resnet18"
    """An option of the group `model`."""
    faces: FaceInput = field(default_factory=FaceInput)
    """How prediction cuts out the faces for it."""
    number_names: tuple[str, ...] = ()
    """Names of the outputs that are numbers, such as valence; they follow those of the classes."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in order."""
        return (*self.class_names, *self.number_names)

    def write(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[INFO_KEY] = self.to_values()

    def to_values(self) -> dict[str, Any]:
        """Plain values by name; the inverse of `from_values`."""
        names = {"class_names": list(self.class_names), "number_names": list(self.number_names)}
        return {**asdict(self), "options": dict(self.options), **names}

    @classmethod
    def read(cls, checkpoint: dict[str, Any], path: Path) -> "NetworkInfo":
        """The metadata of a checkpoint that anyone may have written.

        Raises ValueError that names `path` if there is none, or a value has the wrong type or is out of range.
        """
        if INFO_KEY not in checkpoint:
            raise ValueError(f"{path} is not a checkpoint of fer_voting: it lacks the entry '{INFO_KEY}'")
        try:
            return cls.from_values(checkpoint[INFO_KEY])
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_values(cls, values: Any) -> "NetworkInfo":
        """Plain values by name (`class_names` and `number_names` lists), checked.

        Raises ValueError that names what is missing, unknown, of the wrong type or out of range.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping):
            raise ValueError(f"a network's metadata must be a mapping, not a {type(values).__name__}")
        values = {"faces": {}, "number_names": [], **values}
        if wrong := [
            *(f"lacks {n}" for n in names if n not in values),
            *(f"has {n!r}" for n in values if n not in names),
        ]:
            raise ValueError(f"a network's metadata must have {', '.join(names)}; it {', '.join(wrong[:4])}")
        class_names, number_names = values["class_names"], values["number_names"]
        check_output_names(class_names, number_names)
        for name in (values["dataset"], values["split"]):
            check_name(name)
        size = values["image_size"]
        if type(size) is not int or not 1 <= size <= MAX_IMAGE_SIZE:
            raise ValueError(f"`image_size` (={size!r}) must be a whole number from 1 to {MAX_IMAGE_SIZE}")
        check_options(values["architecture"], values["options"])
        faces = FaceInput.from_values(values["faces"])
        options = dict(values["options"])
        outputs = {"class_names": tuple(class_names), "number_names": tuple(number_names)}
        return cls(**{**values, **outputs, "options": options, "faces": faces})


def rebuild_network(info: NetworkInfo) -> VotingNetwork:
    """The network of a checkpoint's metadata, initialised: its weights are to be loaded.

    Raises ValueError, in one line, if the values do not make a network.
    """
    check_options(info.architecture, info.options)
    node = {**read_node(info.architecture), **info.options}
    try:
        return build_network(node, info.split, len(info.outputs), info.image_size)
    except InstantiationException as error:
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise ValueError(f"`options` (={dict(info.options)}) do not make a {info.architecture}: {reason}") from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], NetworkInfo]:
    """The network's state_dict (the backbone's own names, on the CPU) and its metadata.

    Raises FileNotFoundError, or ValueError if the file is not a checkpoint of this project.
    """
    checkpoint = read_checkpoint(path)
    info = NetworkInfo.read(checkpoint, path)
    prefix = "net."
    weights = checkpoint.get("state_dict")
    if not isinstance(weights, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) and _is_stored(v) for k, v in weights.items()
    ):
        raise ValueError(f"{path} is not a checkpoint of fer_voting: it lacks the entry 'state_dict'")
    state = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    return state, info


def _is_stored(tensor: Tensor) -> bool:
    """Whether each element has a place of its own in memory: strides of 0 make a huge tensor of one number."""
    return tensor.layout is torch.strided and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.itemsize


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a file that `torch.save` wrote, tensors on the CPU. Nothing in it is run as code.

    Raises FileNotFoundError, or ValueError that names the file if it holds anything but tensors and plain values, is
    damaged, or is compressed: torch.save stores, and a small file could unpack to more than the memory.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with zipfile.ZipFile(path) as archive:
            compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
        checkpoint = None if compressed else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's message advises to run what the file holds
        reason = "it holds other objects than tensors and plain values, and none is run as code"
        raise ValueError(f"{path} cannot be read as a checkpoint: {reason}") from error
    except Exception as error:  # torch raises a different type for each kind of damage
        reason = f"damaged, or a file of another kind ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
        raise ValueError(f"{path} cannot be read as a checkpoint: {reason}") from error
    if compressed:
        raise ValueError(f"{path} cannot be read as a checkpoint: it is compressed, which torch.save never does")
    if not isinstance(checkpoint, dict):
        raise ValueError(f"{path} is not a checkpoint of fer_voting: it holds a {type(checkpoint).__name__}")
    return checkpoint
