"""`Network`: a trained network with what its source records, read from a run, a checkpoint or a shared folder.

Nothing in a checkpoint or a folder is run as code: weights are read from safetensors or with `weights_only=True`, the
network's class comes from the files of `conf/model` (`fer_voting.models.registry`), and unknown keys are refused.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from fer_voting.models.adaptive import adaptive_cost, has_cut, require_cut
from fer_voting.models.checkpoint import NetworkInfo, load_weights, rebuild_network
from fer_voting.models.voting import VotingNetwork
from fer_voting.networks import hub
from fer_voting.networks.exported import CARD_FILE, CONFIG_FILE, CONFIG_FORMAT, WEIGHTS_FILE, read_config
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.system.atomic import draft_of, write_atomically, write_json
from fer_voting.votes import CropOutputs, Forms, Vote, check_forms, find_vote, fit_forms, soft_vote, vote_of_form


@dataclass(frozen=True, eq=False)
class Network:
    """A trained network and what its users must know. `fer_voting.networks.load` returns one."""

    net: VotingNetwork
    """Maps normalised images `[B, 3, S, S]` to crop logits `[B, V, K]`, one for each of `info.outputs`; float32, on the
    CPU, evaluation mode."""
    info: NetworkInfo
    """With the split under which the network is to be used."""
    vote: Vote = soft_vote
    """The vote by which it decides, fitted where the source has its parameters. A run's weights are those of this
    vote's best epoch."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Share of right decisions by part (`val`, `test`), 0 to 1; informative. Empty where it is not known, and where
    there are no classes."""
    path: Path | None = None
    """The file that holds the weights."""
    forms: Forms = field(default_factory=dict)
    """Parameters of the forms that it has besides `full`, fitted on validation images."""
    run: Run | None = None
    """The run in whose folder the file lies."""

    def __post_init__(self) -> None:
        """Raises ValueError if its outputs are none that the vote decides by."""
        if not self.vote.takes(len(self.info.class_names), len(self.info.number_names)):
            raise ValueError(
                f"`vote` (={self.vote.name!r}) is not for a network of {', '.join(self.info.outputs)}: soft is the "
                "mean of the crops' numbers, hard their median"
            )

    @property
    def checksum(self) -> str:
        """SHA-256 of the weights (`weights_checksum`)."""
        return weights_checksum(self.net.state_dict())

    def under(self, split: str) -> "Network":
        """The same weights under another split: the parameters are the same for every split.

        Raises ValueError if the split is unknown or the vote's parameters were fitted under the split of before.
        """
        if split == self.info.split:
            return self
        info = replace(self.info, split=split)
        net = build(info)
        net.load_state_dict(self.net.state_dict())
        if self.vote.needs_full_map:
            require_cut(net)
        if self.vote.needs:
            raise ValueError(
                f"the {self.vote.name} vote of {self.run.name if self.run else self.path} was fitted under split "
                f"{self.info.split}: it has none under {split}"
            )
        return replace(self, net=net.eval(), info=info, vote=find_vote(self.vote.name), accuracy={}, forms={})

    def by_vote(self, vote: str | None) -> "Network":
        """The same weights with another vote, which has no fitted parameters. None: the vote stays."""
        if vote is None or vote == self.vote.name:
            return self
        return replace(self, vote=find_vote(vote), accuracy={}, forms={})

    def in_form(self, form: str) -> "Network":
        """The same weights in another form. Raises ValueError if the network does not have it."""
        return replace(self, vote=vote_of_form(form, self.vote, self.forms, self.net.votes > 1))

    def rounded(self, precision: str) -> "Network":
        """The network with the weights that a file of a precision, float32 or float16, holds.

        Raises ValueError if the precision is another, or a weight is not finite in it.
        """
        net = build(self.info)
        net.load_state_dict({name: _widened(tensor) for name, tensor in self._state(precision).items()})
        return replace(self, net=net.eval())

    def _state(self, precision: str) -> dict[str, Tensor]:
        """The weights by name in a precision. Raises as `rounded`."""
        dtypes = {"float32": torch.float32, "float16": torch.float16}
        if precision not in dtypes:
            raise ValueError(f"`precision` (={precision!r}) must be {' or '.join(dtypes)}")
        state = {
            name: tensor.contiguous().to(dtypes[precision] if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in self.net.state_dict().items()
        }
        for name, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"the weights of {name} are not finite in {precision}")
        return state

    def save_pretrained(self, folder: Path | str, card: str = "", precision: str = "float32") -> None:
        """Write the three files into `folder`.

        Args:
            card: the content of README.md.
            precision: of the weights in the file, float32 or float16.

        Raises ValueError if the precision is another, or a weight is not finite in it.
        """
        from safetensors.torch import save

        state = self._state(precision)
        folder = Path(folder)
        with draft_of(folder / WEIGHTS_FILE) as draft:
            draft.write_bytes(save(state, metadata={"format": "pt"}))
        config = {
            "fer_voting": CONFIG_FORMAT,
            **self.info.to_values(),
            "vote": self.vote.name,
            **self.vote.to_values(),
            "forms": dict(self.forms),
            "accuracy": dict(self.accuracy),
            "checksum": weights_checksum({name: _widened(tensor) for name, tensor in state.items()}),
        }
        write_json(folder / CONFIG_FILE, config)
        with write_atomically(folder / CARD_FILE) as file:
            file.write(card)

    def push_to_hub(self, name: str, card: str = "", private: bool = True, precision: str = "float32") -> str:
        """Upload the three files to `owner/model` on the Hub, which is created if it does not exist.

        Returns its address. Needs a login (`hf auth login`, or `HF_TOKEN`). Raises ValueError with the Hub's reason
        if it refuses.
        """
        hub.check_hub_name(name)
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card, precision)
            return hub.upload(Path(folder), name, private)

    @classmethod
    def from_checkpoint(cls, path: Path, run: Run | None = None) -> Self:
        """The network of a `.ckpt` file that training wrote, with the soft vote.

        Raises FileNotFoundError, or ValueError if it is not such a file or its weights do not fit its description.
        """
        state, info = load_weights(path)
        try:
            with torch.device("meta"):  # a description that does not fit the weights costs no memory
                _check_shapes(build(info), {name: tensor.shape for name, tensor in state.items()})
            net = build(info)
            net.load_state_dict(state)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"{path} does not fit its own description: {reason}") from error
        return cls(net.eval(), info, path=path, run=run)

    @classmethod
    def from_run(cls, run: Run, vote: str | None = None) -> Self:
        """The network of a finished run by one vote, with the vote's fitted parameters and accuracy.

        Args:
            vote: None: the one that the run was configured for.

        Raises FileNotFoundError or ValueError if the run is damaged, or lacks the vote or its parameters.
        """
        result, config = run.result() or {}, run.config()
        if missing := [
            f"config.yaml: {key}" for key in ("dataset", "voting") if not isinstance(config.get(key), dict)
        ] + [
            f"result.json: {key}"
            for key in ("votes", "split", "counts", "epochs", "seed", "data_fingerprint")
            if key not in result
        ]:
            raise ValueError(f"{run.dir} is not a run's folder as training writes it: it lacks {', '.join(missing)}")
        unfitted = find_vote(vote or str(config["voting"].get("name")))
        network = cls.from_checkpoint(run.best_checkpoint(unfitted.epoch_vote), run)
        if unfitted.needs_full_map:
            require_cut(network.net)
        metrics = result["votes"].get(unfitted.name, {})
        fitted = unfitted.from_values(metrics).require_fitted()
        of_parts = {part: metrics[part] for part in ("val", "test") if part in metrics}
        accuracy = {part: float(values["accuracy"]) for part, values in of_parts.items() if "accuracy" in values}
        forms: Forms = {}
        if fitted.name == "soft" and has_cut(network.net) and not network.info.number_names:
            with contextlib.suppress(FileNotFoundError):  # the run of a refit has no validation images
                arrays = read_npz(run.predictions_file("soft", "val"), "logits", "labels", "whole")
                logits, full_map, labels = (torch.from_numpy(arrays[name]) for name in ("logits", "whole", "labels"))
                cost = adaptive_cost(network.net, network.info.image_size)
                forms = fit_forms(CropOutputs(logits, full_map), labels, cost)
        return replace(network, vote=fitted, accuracy=accuracy, forms=forms)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """The network of a shared folder.

        Raises FileNotFoundError if a file is missing, ValueError if one is damaged, holds something else, or does not
        fit the other: every weight must be there, with its shape, and no other.
        """
        path = folder / CONFIG_FILE
        values = read_config(path)
        try:
            name, accuracy, checksum = (values.pop(key) for key in ("vote", "accuracy", "checksum"))
            vote = find_vote(name)
            vote = vote.from_values({key: values.pop(key) for key in vote.parameters if key in values}).require_fitted()
            forms = check_forms(values.pop("forms", {}))
            if not isinstance(accuracy, dict) or not all(type(share) in (int, float) for share in accuracy.values()):
                raise ValueError(f"`accuracy` (={accuracy!r}) must map names to numbers")
            info = NetworkInfo.from_values(values)
            with torch.device("meta"):
                expected = build(info)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path}: {reason}") from error
        weights = folder / WEIGHTS_FILE
        net = build(info)  # not `expected` with the tensors assigned: it may have buffers that are in no state_dict
        net.load_state_dict(_read_weights(weights, expected))
        if (stored := weights_checksum(net.state_dict())) != checksum:
            raise ValueError(
                f"{weights} holds other weights than {CONFIG_FILE} says: checksum {stored[:12]}…, not "
                f"{str(checksum)[:12]}…"
            )
        return cls(net.eval(), info, vote, accuracy, weights, forms)


def build(info: NetworkInfo) -> VotingNetwork:
    """The network of a file's metadata with initial weights; torch's random state stays as it is.

    Raises ValueError if the values do not make a network.
    """
    with torch.random.fork_rng(devices=[]):
        return rebuild_network(info)


def _check_shapes(net: VotingNetwork, shapes: Mapping[str, Sequence[int]]) -> None:
    """Raises ValueError that names the weights of a file that are missing, unknown or misshapen for `net`."""
    own = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    stored = {name: tuple(shape) for name, shape in shapes.items()}
    wrong = [
        *(f"{name} is missing" for name in own if name not in stored),
        *(f"{name} is unknown" for name in stored if name not in own),
        *(f"{name} is {stored[name]}, not {own[name]}" for name in own if stored.get(name, own[name]) != own[name]),
    ]
    if wrong:
        more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
        raise ValueError(f"{'; '.join(wrong[:3])}{more}")


def weights_checksum(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) of weights: names, dtypes, shapes and values, whatever file they come from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _widened(tensor: Tensor) -> Tensor:
    """A network is computed in float32, whatever its file holds."""
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def _read_weights(path: Path, expected: VotingNetwork) -> dict[str, Tensor]:
    """The state_dict in a file of safetensors. The header is compared first: a wrong one costs no memory.

    Args:
        expected: the network on the meta device.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not a folder of a shared network: it lacks {path.name}")
    own = expected.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            _check_shapes(expected, {name: file.get_slice(name).get_shape() for name in file.keys()})  # noqa: SIM118
            state = {name: _widened(file.get_tensor(name)) for name in own}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} does not fit {CONFIG_FILE}: {error}") from error
    for name, tensor in state.items():
        if tensor.dtype != own[name].dtype:
            raise ValueError(f"{path}: {name} is {tensor.dtype}, not {own[name].dtype}")
    return state
