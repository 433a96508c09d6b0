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

An exported folder that has an ONNX file too, as the network that ships does, is computed by ONNX Runtime on a processor
(`runtime` of `load`). Only what needs PyTorch imports it.

Nothing that is loaded can name code to call; see `fer_voting.networks.network`.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fer_voting.networks.exported import CONFIG_FILE, INT8_FILE, ONNX_FILE, WEIGHTS_FILE, read_config
from fer_voting.networks.hub import download, is_hub_name
from fer_voting.networks.onnx import OnnxNetwork, open_onnx
from fer_voting.system.machine import has_gpu, passive_waiting
from fer_voting.system.packages import import_when_used, whole_package

if TYPE_CHECKING:  # torch takes seconds to import, and an installation for prediction lacks it
    from fer_voting.networks.classes import copy_weights, match_classes
    from fer_voting.networks.network import Network, weights_checksum
    from fer_voting.runs.run import Run

__all__ = [
    "Network", "OnnxNetwork", "Source", "copy_weights", "find", "load", "load_network", "match_classes",
    "weights_checksum",
]  # fmt: skip

# These modules import torch.
__getattr__ = import_when_used(
    __name__,
    {
        "Network": "fer_voting.networks.network",
        "weights_checksum": "fer_voting.networks.network",
        "copy_weights": "fer_voting.networks.classes",
        "match_classes": "fer_voting.networks.classes",
    },
)


SHIPPED = Path(__file__).resolve().parent.parent / "pretrained" / "fer_voting"
"""The network that ships with the package."""


@dataclass(frozen=True)
class Source:
    """Where a trained network lies."""

    kind: Literal["run", "checkpoint", "folder", "onnx"]
    path: Path
    """The file or folder."""
    run: "Run | None" = None
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

    def load_network(self) -> "Network":
        """The network with the weights of `weights_file`. Raises as `load_network`."""
        path = self.weights_file()
        with whole_package():
            from fer_voting.networks.network import Network
        return Network.from_folder(self.path) if self.kind == "folder" else Network.from_checkpoint(path, self.run)

    def onnx_file(self, runtime: str, device: str, precision: str, vote: str | None, split: str | None) -> Path | None:
        """The ONNX file that `load` opens for these arguments; None: PyTorch computes the network.

        Raises ValueError if the runtime cannot compute the network.
        """
        if runtime not in ("auto", "onnx", "openvino", "torch"):
            raise ValueError(f"`runtime` (={runtime!r}) must be auto, onnx, openvino or torch")
        in_torch = runtime == "auto" and self.kind in ("run", "checkpoint") and precision != "int8"
        if runtime == "torch" or in_torch:
            self.weights_file()  # refuses an ONNX file
            return None
        if self.kind == "onnx":
            return self.path
        file = self.path / (INT8_FILE if precision == "int8" else ONNX_FILE)
        if self.kind != "folder" or not file.is_file():
            if runtime == "auto" and precision != "int8":
                return None
            option = f"`precision` (={precision!r})" if precision == "int8" else f"`runtime` (={runtime!r})"
            raise ValueError(f"{option} needs an ONNX file: python -m fer_voting.export --to onnx")
        config = read_config(self.path / CONFIG_FILE)
        is_same = vote in (None, config.get("vote")) and split in (None, config.get("split"))
        on_processor = device == "cpu" or (device == "auto" and not has_gpu())
        is_here = (is_same and on_processor and precision == "float32") or precision == "int8"
        if runtime == "auto" and not is_here:
            return None
        return file


def find(source: str | Path | None = None, output_dir: str | Path = "outputs") -> Source:
    """Find out what names a trained network, without reading it.

    Args:
        source: as listed at the top of this module. A run is looked for before a folder, a folder before the Hub,
            which is asked only if neither `owner/model` nor a folder `owner` is here.
        output_dir: holds `runs/`.

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
    is_run = folder.parent.name == "runs" and folder.is_dir() and not is_exported
    run_dir = folder if is_run else Path(output_dir).absolute() / "runs" / source
    is_name = is_run or path.name == str(source)
    if is_name and run_dir.is_dir() and (run := _run_in(run_dir)) is not None:
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
        return Source("folder", download(source, (WEIGHTS_FILE, CONFIG_FILE)))
    if "://" in str(source) or re.match("https?:/", str(source)):
        raise FileNotFoundError(
            f"{source} is an address: give a name on the Hub as owner/model, or a file that is here"
        )
    missing = f"run {str(source)!r}: {run_dir} is missing, not finished" if is_name else f"{source} does not exist"
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
    runtime: str = "auto",
    precision: str = "float32",
    device: str = "auto",
    threads: int | None = None,
    form: str = "full",
) -> "Network | OnnxNetwork":
    """Load a trained network.

    Args:
        source, output_dir: as in `find`; None: the network that ships.
        vote: the vote by which the network decides. None: the one that a run was configured for or an export names,
            `soft` for a checkpoint. A run's weights are those of the vote's best epoch.
        split: to use the network under; None: the one it was trained with or exported for.
        runtime: what shall compute it: `torch`; `onnx` (ONNX Runtime) or `openvino`, which need an ONNX file, or a
            folder that has one; `auto`: ONNX Runtime for an ONNX file, or a folder's, if it has the vote and the split,
            the precision is float32 and the device is a processor; else `torch`.
        precision: `float32`; `bf16` for `torch` and `openvino`; `int8` for a file of int8, or a folder that has one.
        device: where it shall run, as in `Recognizer.load`.
        threads: of an ONNX file, as in `open_onnx`.
        form: of `fer_voting.votes.FORMS`, how much of the network a face is worth.

    Raises FileNotFoundError if there is no such network, ValueError if a file is damaged or an argument does not fit,
    ModuleNotFoundError if the network needs PyTorch, which an installation for prediction lacks.
    """
    place = find(source, output_dir)
    file = place.onnx_file(runtime, device, precision, vote, split)
    if file is not None:
        exported = open_onnx(file, "onnx" if runtime == "auto" else runtime, precision, threads, form, device)
        for name, wanted, stored in (("vote", vote, exported.info.vote), ("split", split, exported.split)):
            if wanted not in (None, stored):
                raise ValueError(f"`{name}` (={wanted!r}): {file} holds the {stored} {name}")
        if place.kind == "folder":
            _check_same(exported, read_config(place.path / CONFIG_FILE))
        return exported
    with whole_package(), passive_waiting():
        from fer_voting.networks.network import Network
    if place.kind == "run":
        assert place.run is not None
        network = Network.from_run(place.run, vote)
    elif place.kind == "checkpoint":
        network = Network.from_checkpoint(place.path, place.run).by_vote(vote)
    else:
        network = Network.from_folder(place.path).by_vote(vote)
    return (network if split is None else network.under(split)).in_form(form)


def _check_same(exported: OnnxNetwork, config: Mapping[str, Any]) -> None:
    """Raises ValueError if an ONNX file is not the network that the config.json beside it describes."""
    info = exported.info
    values = {
        "checksum": info.checksum,
        "class_names": list(info.class_names),
        **({"number_names": list(info.number_names)} if info.number_names else {}),
        "image_size": info.image_size,
        "split": info.split,
        "vote": info.vote,
        "faces": info.faces.to_values(),
        **info.fitted,
        **({"forms": dict(info.forms)} if info.forms else {}),  # a file may hold only the full form
    }
    if other := [name for name, value in values.items() if config.get(name) != value]:
        raise ValueError(
            f"{exported.path} has another {', '.join(other)} than {CONFIG_FILE}: export it again with --onnx"
        )


def load_network(source: str | Path | None = None, output_dir: str | Path = "outputs") -> "Network":
    """Load the network for an evaluation, for `init_from` or as a `teacher`: of a run, by the soft vote's best epoch.

    Raises as `load`, and ValueError for an ONNX file.
    """
    return find(source, output_dir).load_network()


def _run_in(folder: Path) -> "Run | None":
    """The run of a folder below `runs`; None under a name that no run can have."""
    with whole_package():
        from fer_voting.runs.run import Run
    with contextlib.suppress(ValueError):
        return Run(folder.parent.parent, folder.name)
    return None


def _run_around(checkpoint: Path) -> "Run | None":
    """The run in whose folder a checkpoint lies, or None."""
    folder = checkpoint.absolute().parent.parent
    return _run_in(folder) if checkpoint.parent.name == "checkpoints" and folder.parent.name == "runs" else None
