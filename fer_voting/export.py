"""Export a trained network: as one ONNX file, as a folder to share, or as a page for the browser.

    python -m fer_voting.export --run fer2013-m3-seed0 --to onnx
    python -m fer_voting.export --run fer2013-m3-seed0 --to onnx --precision int8 dataset.root=DIR
    python -m fer_voting.export --run fer2013-m3-seed0 --to folder
    python -m fer_voting.export --run fer2013-m3-seed0 --to folder --precision float16 --onnx float32
    python -m fer_voting.export --run fer2013-m3-seed0 --to page
    python -m fer_voting.export --to page

Without --run it is the network that ships with the package. onnx: uint8 RGB faces [B, S, S, 3] in, scores [B, K] and
crop logits [B, V, K] out; normalisation, vote and temperature inside; compared with PyTorch before it is kept. int8
is calibrated on faces of the run's own training part, and its loss of accuracy measured. folder: model.safetensors,
config.json and a model card, in the layout of the Hugging Face Hub; with --onnx also the files that prediction computes
on a processor; --push uploads it without them. page: a static page that finds and recognises the faces of a photo or
the camera on the device that shows it; built with npm.
"""

import argparse
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_voting.system.conf_folders import add_config_dir
from fer_voting.system.messages import set_up_messages
from fer_voting.system.text import counted, escape
from fer_voting.votes import FORMS

if TYPE_CHECKING:  # `--help` answers before torch is imported
    from fer_voting.data.module import FERDataModule
    from fer_voting.networks import Network

CALIBRATION_FACES = 512


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m fer_voting.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument(
        "--run",
        help="a finished training: its name below OUTPUT_DIR/runs, or its folder (default: the network that ships)",
    )
    command.add_argument("--to", required=True, choices=("onnx", "folder", "page"), help="what to write")
    command.add_argument(
        "--out", type=Path, help="the file or folder (default: below OUTPUT_DIR/exports; OUTPUT_DIR/page)"
    )
    command.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    command.add_argument("--vote", help="by whose best epoch, and in the file (default: the run's)")
    command.add_argument("--split", help="where to take the crops: baseline, input, m1, m2, m3 (default: as trained)")
    command.add_argument(
        "--form",
        choices=(*FORMS, "all"),
        help="only this form of the network, or all in one file, selectable as predict --form (default: full)",
    )
    command.add_argument(
        "--mean-gmacs",
        type=float,
        metavar="G",
        help="of the adaptive vote: mean cost an image, by validation (default: half of the vote's extra arithmetic)",
    )
    command.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "float16", "int8"),
        help="of the weights; float16 for folders, int8 for files and pages (default: float32)",
    )
    command.add_argument(
        "--onnx",
        choices=("float32", "int8"),
        help="with --to folder: also model.onnx, of every form and with embeddings; int8: and model-int8.onnx",
    )
    command.add_argument(
        "--embedding", action="store_true", help="the file also gives what the last layer sees, embeddings [B, D]"
    )
    command.add_argument(
        "--margin", type=float, help="in prediction a face is a square of 1 + MARGIN times its box (default: 0.05)"
    )
    command.add_argument(
        "--align",
        action=argparse.BooleanOptionalAction,
        help="in prediction faces are turned upright by their eyes and mouth (default: they are)",
    )
    command.add_argument(
        "--push", metavar="OWNER/MODEL", help="with --to folder: also upload it to the Hub, as private"
    )
    command.add_argument(
        "dataset", nargs="*", metavar="dataset.KEY=VALUE", help="int8: of the run's data set, e.g. dataset.root=DIR"
    )
    add_config_dir(command)
    return command


def export(options: argparse.Namespace) -> Path:
    """Write what the options ask for; returns the file or folder.

    Raises ValueError or OSError for options that do not fit and files that are not there.
    """
    if options.push is not None and options.to != "folder":
        raise ValueError("--push uploads a folder: give --to folder")
    if options.precision == "int8" and options.to == "folder":
        raise ValueError("--precision int8 is for --to onnx and --to page")
    if options.precision == "float16" and options.to != "folder":
        raise ValueError("--precision float16 is for --to folder")
    if options.form is not None and options.to == "folder":
        raise ValueError("--form is for --to onnx and --to page: a folder holds every form of its network")
    if options.embedding and options.to != "onnx":
        raise ValueError("--embedding is for --to onnx")
    if options.onnx is not None and options.to != "folder":
        raise ValueError("--onnx is for --to folder")
    if options.dataset and "int8" not in (options.precision, options.onnx):
        raise ValueError(f"{options.dataset[0]!r}: the data set is read for --precision int8 and --onnx int8 only")
    from fer_voting import networks
    from fer_voting.networks.hub import check_hub_name

    if options.push is not None:
        check_hub_name(options.push)
    source = networks.find(options.run, options.output_dir)
    if source.kind != "run" and (needs_run := _needs_run(options)):
        raise ValueError(f"{needs_run[0]} is for the network of a training: give --run RUN")
    if source.kind == "onnx":
        raise ValueError(f"{source.path} is exported already")
    network = networks.load(options.run, options.output_dir, options.vote, options.split, runtime="torch")
    assert isinstance(network, networks.Network)
    numbers = " and ".join(network.info.number_names)
    if numbers and options.to == "page":
        raise ValueError(f"the page shows probabilities of classes, and this network predicts {numbers}")
    if "int8" in (options.precision, options.onnx) and not network.info.class_names:
        raise ValueError(f"int8 is judged by the accuracy that it loses, and this network predicts only {numbers}")
    faces = {name: getattr(options, name) for name in ("margin", "align") if getattr(options, name) is not None}
    if faces:
        network = replace(network, info=replace(network.info, faces=replace(network.info.faces, **faces)))
    if options.form not in (None, "all"):
        network = network.in_form(options.form)
    elif options.form == "all" and not network.forms:
        raise ValueError(f"--form all: {source.path} holds no parameters of other forms than full")
    if options.mean_gmacs is not None:
        network = _with_mean_gmacs(network, options.mean_gmacs)
    name = source.path.stem if source.kind == "checkpoint" else source.path.name
    if options.to == "page":
        return _to_page(network, name, options)
    folder = options.output_dir / "exports"
    name = "-".join(
        [
            name,
            *([] if options.split is None else [f"as_{options.split}"]),
            *([] if options.vote is None else [options.vote]),
            *([] if options.form is None else [options.form]),
            *([] if options.mean_gmacs is None else [f"{options.mean_gmacs:g}gmacs"]),
        ]
    )
    if options.to == "folder":
        return _to_folder(network, options.out or folder / name, options)
    path: Path = options.out or folder / f"{name}-{options.precision}.onnx"
    if path.suffix != ".onnx":
        raise ValueError(f"`out` (={str(path)!r}) must end in .onnx")
    _to_onnx(network, path, options)
    return path


def _needs_run(options: argparse.Namespace) -> list[str]:
    """The given options that need the folder of a run."""
    needing = {
        "--vote": options.vote,
        "--split": options.split,
        "--mean-gmacs": options.mean_gmacs,
        "--push": options.push,
        "--to folder": "folder" if options.to == "folder" else None,
        f"--precision {options.precision}": options.precision if options.precision != "float32" else None,
    }
    return [name for name, value in needing.items() if value is not None]


def _with_mean_gmacs(network: "Network", mean_gmacs: float) -> "Network":
    """The network of a run, the adaptive vote's threshold fitted on its validation images for a mean cost.

    Raises ValueError if it has another vote, the cost is less than that of the whole map, or the stored logits are
    damaged; FileNotFoundError if there are none.
    """
    import torch

    from fer_voting.models.adaptive import adaptive_cost
    from fer_voting.system.arrays import read_npz
    from fer_voting.votes import CropOutputs

    if not network.vote.needs_full_map:
        raise ValueError(f"a mean cost is of the adaptive vote, not of the {network.vote.name} vote")
    assert network.run is not None
    cost = adaptive_cost(network.net, network.info.image_size, mean_gmacs)
    file = network.run.predictions_file(network.vote.epoch_vote, "val")
    arrays = read_npz(file, "logits", "labels", "whole")
    outputs = CropOutputs(torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["whole"]))
    return replace(network, vote=network.vote.fit(outputs, arrays["labels"], cost))


def _to_onnx(
    network: "Network", path: Path, options: argparse.Namespace, name: str = "", float32: Path | None = None
) -> None:
    """Write the network to `path` and print what the file holds, under another `name` if one is given.

    Args:
        options: `precision`, `form`, `embedding`; for int8, `dataset` and `output_dir`.
        float32: the file of the same options in float32, to quantise, if there is one.
    """
    from fer_voting.inference.onnx_export import export_float32, require_packages
    from fer_voting.inference.runtime import FaceNetwork, FormsNetwork
    from fer_voting.networks.onnx import ExportInfo

    require_packages()
    info = ExportInfo(
        class_names=network.info.class_names,
        number_names=network.info.number_names,
        image_size=network.info.image_size,
        split=network.info.split,
        vote=network.vote.name,
        dataset=network.info.dataset,
        checksum=network.checksum,
        faces=network.info.faces,
        fitted=network.vote.to_values(),
        accuracy=network.accuracy,
        forms=network.forms if options.form == "all" else {},
    )
    embed_before = len(network.info.outputs) if options.embedding else None
    kind = FormsNetwork if options.form == "all" else FaceNetwork
    module = kind(network.net, network.vote, network.info.faces.colour, embed_before, len(network.info.number_names))
    if options.precision == "float32":
        note = f"{export_float32(module, info, path):.1e} from PyTorch"
    else:
        datamodule = _load_dataset(network, options.dataset, options.output_dir)
        with tempfile.TemporaryDirectory() as folder:
            if float32 is None:
                float32 = Path(folder) / "float32.onnx"
                export_float32(module, info, float32)
            note = _quantise(network, datamodule, float32, path)
    print(
        f"{name or path}: {path.stat().st_size / 2**20:.1f} MiB, {options.precision}, split {network.info.split}, "
        f"{network.vote.name} vote; {note}"
    )


def _load_dataset(network: "Network", overrides: Sequence[str], output_dir: Path) -> "FERDataModule":
    """The data set that a run trained on, divided as it was.

    Args:
        overrides: `dataset.key=value` that replace recorded values, e.g. the place of the data set.
        output_dir: holds the packs.

    Raises ValueError if an override does not fit, if the recorded configuration names other code than our data sets,
    or if the data set is not the one that the run was trained on.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from fer_voting.config import remake

    run, info = network.run, network.info
    assert run is not None
    result = run.result() or {}
    node: Any = {**run.config()["dataset"], "cache_dir": str(output_dir / "packs")}
    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key.startswith("dataset.") or key.split(".")[1] not in node:
            known = ", ".join(f"dataset.{name}" for name in node if name != "_target_")
            raise ValueError(f"{override!r} must be KEY=VALUE with a key of the run's data set: {known}")
    try:
        merged = OmegaConf.merge({"dataset": node}, OmegaConf.from_dotlist(list(overrides)))
    except OmegaConfBaseException as error:
        raise ValueError(f"{' '.join(overrides)}: {error}") from error
    node = OmegaConf.to_container(merged.dataset)
    datamodule = remake(node, "dataset", run.dir / "config.yaml", refit=bool(result.get("refit")))
    datamodule.setup()
    if tuple(datamodule.class_names) != info.class_names or datamodule.size != info.image_size:
        raise ValueError(
            f"{datamodule.name} has {', '.join(datamodule.class_names)} at {datamodule.size} pixels here, the network "
            f"{', '.join(info.class_names)} at {info.image_size}"
        )
    if datamodule.fingerprint != (recorded := result["data_fingerprint"]):
        raise ValueError(
            f"{datamodule.name} is not what the run was trained on: its fingerprint is {datamodule.fingerprint[:12]}… "
            f"here, and was {recorded[:12]}…"
        )
    return datamodule


def _quantise(network: "Network", datamodule: "FERDataModule", float32: Path, path: Path) -> str:
    """Write the int8 file; returns its loss of accuracy as text."""
    import numpy as np

    from fer_voting.inference.onnx_export import export_int8

    assert network.run is not None
    refit = (network.run.result() or {}).get("refit")
    part = "test" if refit else "val"  # a refit has trained on the validation images
    if part not in datamodule.counts():
        raise ValueError(f"{datamodule.name} has no {part} images here to measure the accuracy of int8 on")
    train, judged = datamodule.positions("train"), datamodule.positions(part)
    chosen = np.random.default_rng(0).permutation(train)[:CALIBRATION_FACES]
    images, labels = datamodule.pack.images, datamodule.class_ids(datamodule.pack)
    before, after = export_int8(float32, path, images[np.sort(chosen)], images[judged], labels[judged], part)
    return (
        f"accuracy {after:.2%} instead of {before:.2%} "
        f"({100 * (before - after):+.2f} points lost) on {counted(len(judged), f'{part} image')}, "
        f"calibrated on {counted(len(chosen), 'training image')}"
    )


def _to_folder(network: "Network", folder: Path, options: argparse.Namespace) -> Path:
    from fer_voting.inference.model_card import run_card
    from fer_voting.networks.exported import INT8_FILE, ONNX_FILE

    checksums = {network.checksum}  # an evaluation is of the weights as they were trained
    network = network.rounded(options.precision)  # the card, config.json and the ONNX files are all of these weights
    checksums.add(network.checksum)
    network.save_pretrained(folder, run_card(network, folder.name, checksums), options.precision)
    form, embedding = "all" if network.forms else "full", not network.vote.needs_full_map
    if options.onnx is not None:
        words = {**vars(options), "precision": "float32", "form": form, "embedding": embedding}
        _to_onnx(network, folder / ONNX_FILE, argparse.Namespace(**words))
        if options.onnx == "int8":
            quantised = argparse.Namespace(**words | {"precision": "int8"})
            _to_onnx(network, folder / INT8_FILE, quantised, float32=folder / ONNX_FILE)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if options.push is not None:
        address = network.push_to_hub(
            options.push, run_card(network, options.push, checksums), precision=options.precision
        )
        print(f"uploaded, as private: {address}")
    return folder


def _to_page(network: "Network", name: str, options: argparse.Namespace) -> Path:
    from fer_voting.inference.web_page import build_page

    folder: Path = options.out or options.output_dir / "page"
    build_page(
        folder,
        npm_dir=options.output_dir / "npm",
        name=name,
        synthetic=network.run is not None and bool((network.run.result() or {}).get("synthetic")),
        write_network=lambda path: _to_onnx(network, path, options, f"{folder}: network"),
    )
    print(f"to look at it: python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(folder))}")
    return folder


def main(arguments: list[str] | None = None) -> None:
    """The command; a mistake ends it with one line on stderr and exit code 1."""
    options = parser().parse_args(arguments)
    set_up_messages()
    try:
        export(options)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {escape(' '.join(str(error).split()))}")


if __name__ == "__main__":
    main()
