"""The interface of a network that is ready to run on faces, and its implementation in PyTorch.

Shapes: B faces of S x S pixels, V crops a face (10, or 1 for the baseline), K classes.
"""

import functools
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fer_voting.face_input import FaceInput, check_faces
from fer_voting.models.adaptive import deciding_crops_at, has_cut, outputs_for, require_cut
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.images import as_grey, normalise
from fer_voting.models.last_layer import find_last_layer
from fer_voting.system.environment import keep_to_usable_cores
from fer_voting.votes import CropOutputs, Forms, Vote, soft_vote, vote_of_form

PRECISIONS = ("float32", "bf16")


# After torch has run, a forked child hangs in the first loop that it shares out among threads, which the child lacks.
os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


class Runtime(Protocol):
    """Maps faces, uint8 `[B, S, S, 3]`, RGB, to (scores `[B, K]`, crop logits `[B, V, K]`), both float32.

    Scores are probabilities: 0 to 1, a row sums to 1, the largest is the vote's decision. A network that also predicts
    n numbers, such as valence, has them behind the K classes: `[B, K + n]` and `[B, V, K + n]`.
    """

    library: str
    """The name of the library that computes the network."""
    class_names: tuple[str, ...]
    number_names: tuple[str, ...]
    image_size: int
    """S in pixels."""
    split: str
    vote: str
    faces: FaceInput
    """How prediction cuts out the faces for the network, which turns them grey itself."""
    fitted: Mapping[str, Any]
    """The vote's parameters by name, as validation images gave them (`votes.Vote.to_values`)."""
    device: str
    """PyTorch's name of the device: cpu, cuda:0."""

    @property
    def threads(self) -> int:
        """The number of threads that one call has on a processor."""

    def __call__(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores `[B, K]` and crop logits `[B, V, K]` of B >= 1 faces."""

    def embed(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The input of the last layer, mean over the crops: `[B, D]` of B >= 1 faces."""


class FaceNetwork(nn.Module):
    """Maps uint8 faces `[B, S, S, 3]` (RGB) to scores `[B, K]` and crop logits `[B, V, K]`; what an export holds.

    Args:
        net: maps normalised images `[B, 3, S, S]` to crop logits; put into evaluation mode.
        vote: scores are its `probabilities`. The crops that it does not need have the logits of the full map.
        colour: `grey`: faces are turned grey first.
        embed_before: the number of outputs, to return also the embeddings `[B, D]` (`embed`), by the same pass.
        numbers: n of the outputs, the last ones, are numbers.

    Raises ValueError if `vote` lacks a parameter, or needs the full map and there are no crops of one.
    """

    def __init__(
        self,
        net: nn.Module,
        vote: Vote = soft_vote,
        colour: str = "rgb",
        embed_before: int | None = None,
        numbers: int = 0,
    ) -> None:
        super().__init__()
        self.colour, self.embed_before, self.numbers = colour, embed_before, numbers
        self.vote = vote.require_fitted()
        self.net = net.eval()
        self._check()

    def _check(self) -> None:
        if not self.vote.needs_full_map:
            return
        if self.embed_before:
            raise ValueError(
                f"the {self.vote.name} vote leaves crops out, so that there is no embedding: choose another"
            )
        require_cut(self.net)

    def forward(self, faces: Tensor) -> tuple[Tensor, ...]:
        if self.embed_before is None:
            outputs = outputs_for(self.vote, self.net, self._images(faces))
            return self._scores(outputs), outputs.crops
        logits, embeddings = self._logits_and_embeddings(faces, self.embed_before)
        outputs = CropOutputs(logits.float())
        return self._scores(outputs), outputs.crops, embeddings

    def _scores(self, outputs: CropOutputs) -> Tensor:
        if not self.numbers:
            return self.vote.probabilities(outputs)
        classes, crops = outputs.split(outputs.crops.shape[-1] - self.numbers)
        numbers = self.vote.numbers(crops)
        return torch.cat([self.vote.probabilities(classes), numbers], dim=1) if classes.crops.shape[-1] else numbers

    def in_form(self, form: str, forms: Forms) -> "FaceNetwork":
        """The same network in another form (`fer_voting.votes.forms`), without embeddings if crops are left out."""
        vote = vote_of_form(form, self.vote, forms, has_cut(self.net))
        embed_before = None if vote.needs_full_map else self.embed_before
        return FaceNetwork(self.net, vote, self.colour, embed_before, self.numbers)

    def embed(self, faces: Tensor, num_outputs: int) -> Tensor:
        """The input of the last layer, mean over the crops (and over places, before a convolution): `[B, D]`."""
        return self._logits_and_embeddings(faces, num_outputs)[1]

    def _logits_and_embeddings(self, faces: Tensor, num_outputs: int) -> tuple[Tensor, Tensor]:
        backbone = getattr(self.net, "backbone", self.net)
        last: list[Tensor] = []
        layer = backbone.get_submodule(find_last_layer(self.net, num_outputs))
        hook = layer.register_forward_pre_hook(lambda _, inputs: last.append(inputs[0]))
        try:
            logits = self.net(self._images(faces))
        finally:
            hook.remove()
        features = last[0].flatten(2).mean(2) if last[0].ndim > 2 else last[0]
        return logits, features.float().unflatten(0, (-1, logits.shape[1])).mean(1)

    def _images(self, faces: Tensor) -> Tensor:
        return normalise((as_grey(faces) if self.colour == "grey" else faces).permute(0, 3, 1, 2))


class FormsNetwork(FaceNetwork):
    """A network whose own vote is `soft`, in every form (`fer_voting.votes.forms`); what an export of all forms holds.

    Its second input, float32 `[2]`, is the form's threshold and temperature. Embeddings, if any, are those of the full
    map where it decides.

    Raises ValueError if the vote is another, there are no crops, or there are numbers.
    """

    def _check(self) -> None:
        if self.numbers:
            raise ValueError("a network with numbers has one form")
        if self.vote.name != "soft":
            raise ValueError(f"only the soft vote has other forms, not the {self.vote.name} vote")
        require_cut(self.net)

    @property
    def full(self) -> Tensor:
        """The second input for the form `full`."""
        return torch.tensor([1.0, self.vote.temperature])

    def forward(self, faces: Tensor, form: Tensor | None = None) -> tuple[Tensor, ...]:
        threshold, temperature = (self.full if form is None else form).split(1)
        net = require_cut(self.net)
        if self.embed_before is None:
            crops = deciding_crops_at(threshold, net, self._images(faces))
            return (crops.mean(dim=1) / temperature).softmax(dim=1), crops
        layer = net.backbone.get_submodule(find_last_layer(net, self.embed_before))
        classes = self.embed_before

        # The layer returns its inputs beside its logits: both are then chosen and joined in the same way.
        def with_features(layer: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> Tensor:
            features = inputs[0].flatten(2).mean(2) if inputs[0].ndim > 2 else inputs[0]
            return torch.cat([logits, features], dim=1)

        hook = layer.register_forward_hook(with_features)
        try:
            both = deciding_crops_at(threshold, net, self._images(faces), classes)
        finally:
            hook.remove()
        crops, features = both[..., :classes], both[..., classes:]
        return (crops.mean(dim=1) / temperature).softmax(dim=1), crops, features.mean(dim=1)


class TorchRuntime:
    """PyTorch as a `Runtime`. Threads may share one: they wait for each other.

    Args:
        net: as `FaceNetwork` takes it; moved to `device`.
        info: names of the K classes, size of a face, split.
        vote: as in `FaceNetwork`.
        precision: `float32`; `bf16`, autocast: faster where the processor has it.
        device: `auto` (a GPU where there is one), or a device of torch's.
        threads: of torch in this process; None: no more than usable cores.

    Raises ValueError if an argument is unknown or the device is not there.
    """

    library = "PyTorch"

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
        self.class_names, self.number_names = info.class_names, info.number_names
        self.image_size = info.image_size
        self.split = info.split
        self.faces = info.faces
        self.vote = vote.name
        self.fitted: Mapping[str, Any] = vote.to_values()
        self.precision = precision
        self._device = _device(device)
        self.device = str(self._device)
        self.lock = threading.RLock()  # a network that votes keeps values of the call that runs
        self.network = FaceNetwork(net, vote, info.faces.colour, numbers=len(info.number_names)).requires_grad_(False)
        self.network.to(self._device).to(memory_format=torch.channels_last)
        if threads is not None:
            torch.set_num_threads(threads)
        else:
            keep_to_usable_cores()

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, lock=threading.RLock())

    def __call__(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores, logits = self._run(self.network, faces)
        return scores.cpu().numpy(), logits.cpu().numpy()

    def embed(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        outputs = len(self.class_names) + len(self.number_names)
        embeddings = self._run(functools.partial(self.network.embed, num_outputs=outputs), faces)
        return embeddings.cpu().numpy()

    @torch.inference_mode()
    def _run(self, function: Callable[[Tensor], Any], faces: NDArray[np.uint8]) -> Any:
        faces = check_faces(faces, self.image_size)
        batch = torch.from_numpy(np.require(faces, requirements="W")).to(self._device)
        autocast = torch.autocast(self._device.type, torch.bfloat16, enabled=self.precision == "bf16")
        with self.lock, autocast:
            return function(batch)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # an unknown name; a device that torch was built without
        raise ValueError(f"`device` (={name!r}) is not here: {str(error).splitlines()[0]}") from error
    return device
