"""A trained network as a folder to share, in the layout of the Hugging Face Hub:

    model.safetensors   the weights
    config.json         what builds the network and names its outputs: plain values, checked by type and range
    README.md           the model card

Nothing in such a folder is run as code: weights are read from safetensors alone, the network's class comes from this
installation's conf/model (`fer_voting.models.registry`), and keys that `config.json` should not have are refused.
"""

import hashlib
import importlib.util
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

import fer_voting
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.registry import rebuild_network
from fer_voting.models.voting import VotingNetwork
from fer_voting.system.atomic import write_atomically, write_json
from fer_voting.votes import UNFITTED, Fitted

SHIPPED = Path(fer_voting.__file__).parent / "pretrained" / "fer_voting"
"""The network that ships with the package, by the name `fer_voting`."""

CONFIG_FORMAT = 2
"""Format 1 had the key `width` instead of `options`."""
WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
MAX_CONFIG_BYTES = 1_000_000
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
_HUB_EXTRA = "the Hugging Face Hub needs one more package: pip install 'fer_voting[hub]'"


@dataclass(frozen=True, eq=False)
class PretrainedNetwork:
    """A network and what its users must know. Save it with `save_pretrained`, get it back with `from_pretrained`."""

    net: VotingNetwork
    """Maps normalised images `[B, 3, S, S]` to crop logits `[B, V, K]`; float32, on the CPU."""
    info: NetworkInfo
    vote: str = "soft"
    """The vote by which the weights were chosen."""
    fitted: Fitted = UNFITTED
    """What the vote took from validation images."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Share of right decisions by part (`val`, `test`), 0 to 1; informative."""

    def save_pretrained(self, folder: Path | str, card: str = "", precision: str = "float32") -> None:
        """Write the three files into `folder`.

        Args:
            card: the content of README.md.
            precision: of the weights in the file, float32 or float16.

        Raises ValueError if the precision is another, or a weight is not finite in it.
        """
        from safetensors.torch import save

        dtypes = {"float32": torch.float32, "float16": torch.float16}
        if precision not in dtypes:
            raise ValueError(f"`precision` (={precision!r}) must be {' or '.join(dtypes)}")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        dtype = dtypes[precision]
        state = {
            name: tensor.contiguous().to(dtype if tensor.is_floating_point() else tensor.dtype)
            for name, tensor in self.net.state_dict().items()
        }
        for name, tensor in state.items():
            if not torch.isfinite(tensor).all():
                raise ValueError(f"the weights of {name} are not finite in {precision}")
        draft = folder / f".{WEIGHTS_FILE}"
        draft.write_bytes(save(state, metadata={"format": "pt"}))
        draft.replace(folder / WEIGHTS_FILE)
        write_json(folder / CONFIG_FILE, self._config(state))
        with write_atomically(folder / CARD_FILE) as file:
            file.write(card)

    def _config(self, state: Mapping[str, Tensor]) -> dict[str, Any]:
        return {
            "fer_voting": CONFIG_FORMAT,
            **self.info.to_values(),
            "vote": self.vote,
            **self.fitted.to_values(),
            "accuracy": dict(self.accuracy),
            "checksum": weights_checksum({name: _widened(tensor) for name, tensor in state.items()}),
        }

    @classmethod
    def from_pretrained(cls, source: Path | str, revision: str | None = None) -> Self:
        """The network of a folder, or, where there is no such folder, of the name `owner/model` on the Hub.

        Args:
            source: folder or name; `fer_voting` is the network that ships with the package.
            revision: branch, tag or commit on the Hub.

        Raises FileNotFoundError if there is neither, ValueError if a file is damaged, holds something else, or does not
        fit the others: every weight must be there, of its shape, and no other.
        """
        folder = _find(source, revision)
        path = folder / CONFIG_FILE
        values = _read_config(path)
        try:
            vote, accuracy, checksum = (values.pop(key) for key in ("vote", "accuracy", "checksum"))
            fitted = Fitted.from_values({f.name: values.pop(f.name) for f in fields(Fitted) if f.name in values})
            fitted.check(vote)
            if not isinstance(accuracy, dict) or not all(type(share) in (int, float) for share in accuracy.values()):
                raise ValueError(f"`accuracy` (={accuracy!r}) must map names to numbers")
            info = NetworkInfo.from_values(values)
            with torch.device("meta"):
                expected = rebuild_network(info)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise ValueError(f"{path}: {reason}") from error
        net = _load_weights(folder / WEIGHTS_FILE, expected, info)
        if (found := weights_checksum(net.state_dict())) != checksum:
            raise ValueError(
                f"{folder / WEIGHTS_FILE} holds other weights than {CONFIG_FILE} says: checksum {found[:12]}…, not "
                f"{str(checksum)[:12]}…"
            )
        return cls(net.eval(), info, vote, fitted, accuracy)

    def push_to_hub(self, name: str, card: str = "", private: bool = True, precision: str = "float32") -> str:
        """Upload the three files to `owner/model` on the Hub, made if it is not there; returns its address.

        Needs a login (`hf auth login`, or `HF_TOKEN`). Raises ValueError with the Hub's reason if it refuses.
        """
        check_hub_name(name)
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, card, precision)
            api = HfApi()
            try:
                address = api.create_repo(name, private=private, exist_ok=True)
                api.upload_folder(repo_id=name, folder_path=folder, commit_message="Network exported by fer_voting")
            except (HfHubHTTPError, OSError) as error:
                raise ValueError(f"{name} was not uploaded: {_short(error)}") from error
        return str(address)


def check_hub_name(name: str) -> None:
    """Raises ValueError if `name` cannot be a network's on the Hub, or the Hub's package is not installed."""
    if not _HUB_NAME.fullmatch(name):
        raise ValueError(f"{name!r} must be a name on the Hub: owner/model")
    if importlib.util.find_spec("huggingface_hub") is None:
        raise ValueError(_HUB_EXTRA)


def load_pretrained(source: Path | str) -> tuple[VotingNetwork, NetworkInfo]:
    """The network of a folder or a name on the Hub, and its metadata; raises as `PretrainedNetwork.from_pretrained`."""
    found = PretrainedNetwork.from_pretrained(source)
    return found.net, found.info


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


def _find(source: Path | str, revision: str | None) -> Path:
    """The folder with the files, downloaded if it is a name on the Hub."""
    if source == SHIPPED.name:
        return SHIPPED
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, Path) or not _HUB_NAME.fullmatch(source):
        raise FileNotFoundError(f"{source} is not a folder")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise FileNotFoundError(f"{source} is not a folder here, and {_HUB_EXTRA}") from error
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FileNotFoundError(
            f"{source} is not a folder here, and the Hub does not give it: {_short(error)}"
        ) from error


def _short(error: Exception) -> str:
    """The Hub's answers have many lines, with hints about requests."""
    return " ".join(str(error).split())[:200]


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not a folder of a shared network: it lacks {path.name}")
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise ValueError(f"{path} is not the configuration of a network: it has more than {MAX_CONFIG_BYTES:,} bytes")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    if not isinstance(values, dict) or type(found := values.pop("fer_voting", None)) is not int:
        raise ValueError(f"{path} is not the configuration of a network of fer_voting")
    if not 1 <= found <= CONFIG_FORMAT:
        raise ValueError(f"{path} has format {found}; this version of fer_voting reads 1 to {CONFIG_FORMAT}")
    return values


def _load_weights(path: Path, expected: VotingNetwork, info: NetworkInfo) -> VotingNetwork:
    """The network with the file's weights. The file's header is compared first: a wrong one costs no memory.

    Args:
        expected: the network on the meta device.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} is not a folder of a shared network: it lacks {path.name}")
    own = expected.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            wrong = [
                *(f"{name} is missing" for name in own if name not in there),
                *(f"{name} is unknown" for name in there if name not in own),
                *(
                    f"{name} is {there[name]}, not {tuple(tensor.shape)}"
                    for name, tensor in own.items()
                    if name in there and there[name] != tuple(tensor.shape)
                ),
            ]
            if wrong:
                more = f" (and {len(wrong) - 3} more)" if len(wrong) > 3 else ""
                raise ValueError(f"{path} does not fit {CONFIG_FILE}: {'; '.join(wrong[:3])}{more}")
            state = {name: _widened(file.get_tensor(name)) for name in own}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from error
    for name, tensor in state.items():
        if tensor.dtype != own[name].dtype:
            raise ValueError(f"{path}: {name} is {tensor.dtype}, not {own[name].dtype}")
    net = rebuild_network(info)  # not the other with the tensors assigned: it may have more that is in no state_dict
    net.load_state_dict(state)
    return net
