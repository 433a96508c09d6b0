"""The one door to trained networks: every form of a network is loaded here, by the same words.

    load("fer2013-m3-seed0")   a finished run: its name below <output_dir>/runs, or its folder
    load("best-soft.ckpt")     a checkpoint that training wrote
    load("exports/mine")       an exported folder
    load("owner/model")        a name on the Hugging Face Hub
    load("mine.onnx")          an exported ONNX file
    load()                     the network that ships with the package; its name is `fer_voting`

`predict`, `export` and `Recognizer` use `load`. Evaluation, `init_from` and `teacher` use `load_network`, which always
returns a PyTorch network and takes a run's weights of the soft vote's best epoch; `find(source).weights_file()` is the
file that it reads, without reading it. `copy_weights` puts the weights into a network with other classes
(`init_from`); `match_classes` returns the network with the classes of a data set (evaluation, `teacher`).

Nothing that is loaded can name code to call; see `fer_voting.networks.network`.
"""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from torch import nn

from fer_voting.data.labels import canonical
from fer_voting.models.adaptive import require_cut
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.models.last_layer import find_last_layer
from fer_voting.networks.hub import download, is_hub_name
from fer_voting.networks.network import CONFIG_FILE, WEIGHTS_FILE, Network, build, weights_checksum
from fer_voting.networks.onnx import OnnxNetwork, open_onnx
from fer_voting.runs.run import Run
from fer_voting.votes import find_vote

__all__ = [
    "Network", "OnnxNetwork", "Source", "copy_weights", "find", "load", "load_network", "match_classes",
    "weights_checksum",
]  # fmt: skip

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).resolve().parent.parent / "pretrained" / "fer_voting"
"""The network that ships with the package."""


@dataclass(frozen=True)
class Source:
    """Where a trained network lies."""

    kind: Literal["run", "checkpoint", "folder", "onnx"]
    path: Path
    """The file or folder."""
    run: Run | None = None
    """The run, also of a checkpoint that lies in a run's folder."""

    def weights_file(self) -> Path:
        """The file whose weights `load_network` takes.

        A run's is the checkpoint of the soft vote's best epoch; a refit has only the checkpoint of one vote.

        Raises ValueError for an ONNX file, whose weights PyTorch cannot use.
        """
        if self.kind == "onnx":
            raise ValueError(f"{self.path} is an exported ONNX file: give the run, checkpoint or folder it came from")
        if self.kind == "run":
            assert self.run is not None
            votes = (self.run.result() or {}).get("votes") or {"soft": {}}
            return self.run.best_checkpoint("soft" if "soft" in votes else next(iter(votes)))
        return self.path / WEIGHTS_FILE if self.kind == "folder" else self.path

    def load_network(self) -> Network:
        """The network with the weights of `weights_file`. Raises as `load_network`."""
        path = self.weights_file()
        return Network.from_folder(self.path) if self.kind == "folder" else Network.from_checkpoint(path, self.run)


def find(source: str | Path | None = None, output_dir: str | Path = "outputs", revision: str | None = None) -> Source:
    """Find out what names a trained network, without reading it.

    Args:
        source: as listed at the top of this module. A run is looked for before a folder, a folder before the Hub,
            which is asked only if neither `owner/model` nor a folder `owner` is here.
        output_dir: holds `runs/`.
        revision: branch, tag or commit on the Hub.

    Raises FileNotFoundError if there is no such network or the run is not finished.
    """
    if source is None or source == SHIPPED.name:
        return Source("folder", SHIPPED)
    path = Path(source)
    if (suffix := path.suffix.lower()) in (".ckpt", ".onnx") or path.is_file():
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist")
        return Source("onnx", path) if suffix == ".onnx" else Source("checkpoint", path, _run_around(path))
    folder = path.absolute()
    is_exported = (folder / CONFIG_FILE).is_file()
    run = None
    with contextlib.suppress(ValueError):  # not a possible name of a run
        if folder.parent.name == "runs" and folder.is_dir() and not is_exported:
            run = Run(folder.parent.parent, folder.name)
        else:
            run = Run(Path(output_dir), str(source))
    if run is not None and run.dir.is_dir():
        if (status := run.status()) != "finished":
            state = "holds no run: it has no result.json" if status == "missing" else f"is {status}, not finished"
            raise FileNotFoundError(f"run {str(source)!r}: {run.dir} {state}")
        return Source("run", run.dir, run)
    if path.is_dir():
        if not is_exported:
            raise FileNotFoundError(
                f"{path} is neither a run's folder, which lies in a folder runs, nor an exported network: it lacks "
                f"{CONFIG_FILE}"
            )
        return Source("folder", path)
    if isinstance(source, str) and is_hub_name(source) and not path.parent.is_dir():  # else a path with a typing error
        return Source("folder", download(source, revision, (WEIGHTS_FILE, CONFIG_FILE)))
    missing = f"run {str(source)!r}: {run.dir} is missing, not finished" if run else f"{source} does not exist"
    raise FileNotFoundError(
        f"{missing}; a network is a run's name or folder, a .ckpt or .onnx file, an exported folder, or owner/model "
        "on the Hub (if there is no folder owner here)"
    )


def load(
    source: str | Path | None = None,
    output_dir: str | Path = "outputs",
    vote: str | None = None,
    split: str | None = None,
    *,
    revision: str | None = None,
    runtime: str = "onnx",
    precision: str = "float32",
) -> Network | OnnxNetwork:
    """Load a trained network.

    Args:
        source, output_dir, revision: as in `find`; None: the network that ships.
        vote: the vote by which the network decides. None: the one that a run was configured for or an export names,
            `soft` for a checkpoint. A run's weights are those of the vote's best epoch.
        split: to use the network under; None: the one it was trained with or exported for.
        runtime: of an ONNX file, `onnx` or `openvino`.
        precision: of an ONNX file, `float32`, or with `openvino` `bf16`.

    Raises FileNotFoundError if there is no such network, ValueError if a file is damaged or an argument does not fit.
    """
    place = find(source, output_dir, revision)
    if place.kind == "onnx":
        exported = open_onnx(place.path, runtime, precision)
        for name, wanted, stored in (("vote", vote, exported.vote), ("split", split, exported.split)):
            if wanted not in (None, stored):
                raise ValueError(f"`{name}` (={wanted!r}): {place.path} holds the {stored} {name}")
        return exported
    if place.kind == "run":
        assert place.run is not None
        network = _of_run(place.run, vote)
    elif place.kind == "checkpoint":
        network = Network.from_checkpoint(place.path, place.run).by_vote(vote)
    else:
        network = Network.from_folder(place.path).by_vote(vote)
    return network if split is None else network.under(split)


def load_network(source: str | Path | None = None, output_dir: str | Path = "outputs") -> Network:
    """Load the network for an evaluation, for `init_from` or as a `teacher`: of a run, by the soft vote's best epoch.

    Raises as `load`, and ValueError for an ONNX file.
    """
    return find(source, output_dir).load_network()


def _of_run(run: Run, vote: str | None) -> Network:
    """The network of a finished run by one vote, with the vote's fitted parameters and accuracy."""
    result, config = run.result() or {}, run.config()
    if missing := [f"config.yaml: {key}" for key in ("dataset", "voting") if not isinstance(config.get(key), dict)] + [
        f"result.json: {key}"
        for key in ("votes", "split", "counts", "epochs", "seed", "data_fingerprint")
        if key not in result
    ]:
        raise ValueError(f"{run.dir} is not a run's folder as training writes it: it lacks {', '.join(missing)}")
    unfitted = find_vote(vote or str(config["voting"].get("name")))
    network = Network.from_checkpoint(run.best_checkpoint(unfitted.epoch_vote), run)
    if unfitted.needs_full_map:
        require_cut(network.net)
    metrics = result["votes"].get(unfitted.name, {})
    fitted = unfitted.from_values(metrics).require_fitted()
    accuracy = {part: float(metrics[part]["accuracy"]) for part in ("val", "test") if part in metrics}
    return replace(network, vote=fitted, accuracy=accuracy)


def _run_around(checkpoint: Path) -> Run | None:
    """The run in whose folder a checkpoint lies, or None."""
    folder = checkpoint.absolute().parent.parent
    if checkpoint.parent.name == "checkpoints" and folder.parent.name == "runs":
        with contextlib.suppress(ValueError):  # a copy under a name that no run can have
            return Run(folder.parent.parent, folder.name)
    return None


# Classes by name ---------------------------------------------------------------------------------------------------


def copy_weights(
    network: Network, net: nn.Module, class_names: Sequence[str], missing_classes: str = "error"
) -> dict[str, str]:
    """Copy the weights of a trained network into `net`; the rows of the last layer are matched by class name.

    Args:
        network: its split may differ from that of `net`, the sizes of its layers may not.
        class_names: names of `net`'s outputs, in order.
        missing_classes: `error`, or `random`: classes that `network` lacks keep `net`'s initial weights.

    Returns `{class of net: class of network}` for the matched rows.

    Raises ValueError that names the keys, shapes or classes that do not fit.
    """
    if missing_classes not in ("error", "random"):
        raise ValueError(f"`init_missing_classes` (={missing_classes!r}) must be error or random")
    state, own = network.net.state_dict(), net.state_dict()
    last_layer = find_last_layer(net, len(class_names))
    head = [key for key in own if key.rpartition(".")[0] == last_layer]
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    if missing or unknown:
        raise ValueError(
            f"{network.path} does not fit the network: missing keys {_few(missing)}; unknown keys {_few(unknown)}"
        )
    misshapen = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key not in head and own[key].shape != state[key].shape
    ]
    if misshapen:
        described = _overrides(network.info)
        raise ValueError(f"{network.path} does not fit the network: {_few(misshapen)}; it is {described}")
    rows = {_key(name): row for row, name in enumerate(network.info.class_names)}
    new = [name for name in class_names if _key(name) not in rows]
    if new and missing_classes == "error":
        raise ValueError(
            f"{network.path} knows the classes {', '.join(network.info.class_names)}, not {', '.join(new)}; "
            "init_missing_classes=random starts these from scratch"
        )
    matched = {name: network.info.class_names[rows[_key(name)]] for name in class_names if name not in new}
    for key in head:
        merged = own[key].clone()
        for own_row, name in enumerate(class_names):
            if name in matched:
                merged[own_row] = state[key][rows[_key(name)]]
        state[key] = merged
    net.load_state_dict(state)
    log.info(
        "weights of %s (%s, split %s): classes matched by name: %s%s",
        network.path,
        network.info.dataset,
        network.info.split,
        ", ".join(matched) or "none",
        f"; from scratch: {', '.join(new)}" if new else "",
    )
    return matched


def match_classes(
    network: Network, class_names: Sequence[str], dataset: str, split: str | None = None
) -> tuple[Network, list[str]]:
    """The network with outputs for exactly these classes, and the names of its other classes.

    Classes are matched by name. The network has no output for its other classes, so it cannot decide for them.

    Args:
        class_names: of the data set `dataset`, in order.
        split: to use the network under; None: its own.

    Raises ValueError if the network lacks one of the classes.
    """
    info = replace(network.info, split=split or network.info.split, class_names=tuple(class_names), dataset=dataset)
    net = build(info)
    try:
        matched = copy_weights(network, net, class_names)
    except ValueError as error:
        reason = str(error).partition("; init_missing_classes")[0]
        raise ValueError(f"{reason}: it cannot be evaluated on {dataset}") from error
    left_out = [name for name in network.info.class_names if name not in matched.values()]
    return replace(network, net=net.eval(), info=info), left_out


def _key(name: str) -> str:
    """The canonical name of a class; a user's own classes have no synonyms."""
    try:
        return canonical(name)
    except ValueError:
        return name


def _overrides(info: NetworkInfo) -> str:
    """The overrides of the command line that make such a network."""
    options = [f"model.{key}={value}" for key, value in info.options.items() if value is not None]
    return " ".join([f"model={info.architecture}", *options])


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(names[:4]) or "none"
    return f"{shown}, … ({len(names)} in all)" if len(names) > 4 else shown
