"""The interface of a network that is ready to run on faces, and its implementation in PyTorch.

Shapes: B faces of S x S pixels, V crops a face (10, or 1 for the baseline), K classes.
"""

import os
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fer_voting.face_input import FaceInput
from fer_voting.models.adaptive import outputs_for, require_cut
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.images import as_grey, normalise
from fer_voting.votes import Vote, soft_vote

PRECISIONS = ("float32", "bf16")


# After torch has run, a forked child hangs in the first loop that it shares out among threads, which the child lacks.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class Runtime(Protocol):
    """Maps faces, uint8 `[B, S, S, 3]`, RGB, to (scores `[B, K]`, crop logits `[B, V, K]`), both float32.

    Scores are probabilities: 0 to 1, a row sums to 1, the largest is the vote's decision.
    """

    class_names: tuple[str, ...]
    image_size: int
    """S in pixels."""
    split: str
    vote: str
    faces: FaceInput
    """The faces that the network wants; it turns them grey itself."""
    fitted: Mapping[str, Any]
    """The vote's parameters by name, as validation images gave them (`votes.Vote.to_values`)."""
    device: str
    """PyTorch's name of the device: cpu, cuda:0."""

    @property
    def threads(self) -> int:
        """Of the processor for one call."""

    def __call__(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores `[B, K]` and crop logits `[B, V, K]` of B >= 1 faces."""


class FaceNetwork(nn.Module):
    """Maps uint8 faces `[B, S, S, 3]` (RGB) to scores `[B, K]` and crop logits `[B, V, K]`; what an export holds.

    Args:
        net: maps normalised images `[B, 3, S, S]` to crop logits; put into evaluation mode.
        vote: scores are its `probabilities`. The crops that it does not need have the logits of the full map.
        colour: `grey`: faces are turned grey first.

    Raises ValueError if `vote` lacks a parameter, or needs the full map and there are no crops of one.
    """

    def __init__(self, net: nn.Module, vote: Vote = soft_vote, colour: str = "rgb") -> None:
        super().__init__()
        self.colour = colour
        self.vote = vote.require_fitted()
        self.net = (require_cut(net) if vote.needs_full_map else net).eval()

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        if self.colour == "grey":
            faces = as_grey(faces)
        outputs = outputs_for(self.vote, self.net, normalise(faces.permute(0, 3, 1, 2)))
        return self.vote.probabilities(outputs), outputs.crops


class TorchRuntime:
    """PyTorch as a `Runtime`. Threads may share one: they wait for each other.

    Args:
        net: as `FaceNetwork` takes it; moved to `device`.
        info: names of the K classes, size of a face, split.
        vote: as in `FaceNetwork`.
        precision: `float32`; `bf16`, autocast: faster where the processor has it.
        device: `auto` (a GPU where there is one), or a device of torch's.
        threads: of torch in this process; None: as they are.

    Raises ValueError if an argument is unknown or the device is not there.
    """

    def __init__(
        self,
        net: nn.Module,
        info: NetworkInfo,
        vote: Vote = soft_vote,
        precision: str = "float32",
        device: str = "auto",
        threads: int | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"`precision` (={precision!r}) must be one of {', '.join(PRECISIONS)}")
        self.class_names = info.class_names
        self.image_size = info.image_size
        self.split = info.split
        self.faces = info.faces
        self.vote = vote.name
        self.fitted: Mapping[str, Any] = vote.to_values()
        self.precision = precision
        self._device = _device(device)
        self.device = str(self._device)
        self.lock = threading.RLock()  # a network that votes keeps values of the call that runs
        self.network = FaceNetwork(net, vote, info.faces.colour).requires_grad_(False)
        self.network.to(self._device).to(memory_format=torch.channels_last)
        if threads is not None:
            torch.set_num_threads(threads)

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.RLock())

    @torch.inference_mode()
    def __call__(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        batch = torch.from_numpy(np.require(faces, requirements=("C", "W"))).to(self._device)
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with self.lock, autocast:
            scores, logits = self.network(batch)
        return scores.cpu().numpy(), logits.cpu().numpy()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an unknown name; a device that torch was built without
        raise ValueError(f"`device` (={name!r}) is not here: {str(error).splitlines()[0]}") from error
    return device
