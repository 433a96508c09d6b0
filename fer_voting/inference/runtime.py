"""The interface of a network that is ready to run on faces, and its implementation in PyTorch.

Shapes: B faces of S x S pixels, V crops a face (10, or 1 for the baseline), K classes.
"""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fer_voting.models.adaptive import AdaptiveNetwork
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.images import normalise
from fer_voting.votes import UNFITTED, Fitted, vote_probabilities

PRECISIONS = ("float32", "bf16")


class Runtime(Protocol):
    """Maps faces, uint8 `[B, S, S, 3]`, RGB, to (scores `[B, K]`, crop logits `[B, V, K]`), both float32.

    Scores are probabilities: 0 to 1, a row sums to 1, the largest is the vote's decision.
    """

    class_names: tuple[str, ...]
    image_size: int
    """S in pixels."""
    split: str
    vote: str
    fitted: Fitted
    """The vote's parameters that were fitted on validation images."""
    device: str
    """As PyTorch names it: cpu, cuda:0."""

    def __call__(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores `[B, K]` and crop logits `[B, V, K]` of B >= 1 faces."""


class FaceNetwork(nn.Module):
    """Maps uint8 faces `[B, S, S, 3]` (RGB) to scores `[B, K]` and crop logits `[B, V, K]`; what an export holds.

    Args:
        net: maps normalised images `[B, 3, S, S]` to crop logits; put into evaluation mode.
        vote: of `fer_voting.votes`; scores are its `vote_probabilities`. The crops that the adaptive vote does not
            compute have the logits of the whole map.
        fitted: the vote's parameters.

    Raises ValueError if `vote` is unknown, needs what `fitted` lacks, or is the adaptive one and there are no crops.
    """

    def __init__(self, net: nn.Module, vote: str = "soft", fitted: Fitted = UNFITTED) -> None:
        super().__init__()
        fitted.check(vote)
        self.net = (net if vote != "adaptive" else AdaptiveNetwork(net, fitted.threshold or 0.0)).eval()
        self.vote = vote
        self.fitted = fitted

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.net(normalise(faces.permute(0, 3, 1, 2))).float()
        return vote_probabilities(logits, self.vote, self.fitted), logits


class TorchRuntime:
    """PyTorch as a `Runtime`.

    Args:
        net: as `FaceNetwork` takes it; moved to `device`.
        info: names of the K classes, size of a face, split.
        vote, fitted: as in `FaceNetwork`.
        precision: `float32`; `bf16`, autocast: faster where the processor has it.
        device: `auto` (a GPU where there is one), or a device of torch's.

    Raises ValueError if an argument is unknown or the device is not there.
    """

    def __init__(
        self,
        net: nn.Module,
        info: NetworkInfo,
        vote: str = "soft",
        precision: str = "float32",
        device: str = "auto",
        fitted: Fitted = UNFITTED,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"`precision` (={precision!r}) must be one of {', '.join(PRECISIONS)}")
        self.class_names = info.class_names
        self.image_size = info.image_size
        self.split = info.split
        self.vote = vote
        self.fitted = fitted
        self.precision = precision
        self._device = _device(device)
        self.device = str(self._device)
        self.network = FaceNetwork(net, vote, fitted).requires_grad_(False)
        self.network.to(self._device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def __call__(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        batch = torch.from_numpy(np.require(faces, requirements=("C", "W"))).to(self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16"):
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
