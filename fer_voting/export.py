"""Export a trained network: as one ONNX file, as a folder to share, or as a page for the browser.

    python -m fer_voting.export --run fer2013-m3-seed0 --to onnx
    python -m fer_voting.export --run fer2013-m3-seed0 --to onnx --precision int8 dataset.root=DIR
    python -m fer_voting.export --run fer2013-m3-seed0 --to folder
    python -m fer_voting.export --run fer2013-m3-seed0 --to page
    python -m fer_voting.export --to page

Without --run it is the network that ships with the package. onnx: uint8 RGB faces [B, S, S, 3] in, scores [B, K] and
crop logits [B, V, K] out; normalisation, vote and temperature inside; compared with PyTorch before it is kept. int8
is calibrated on faces of the run's own training part, and its loss of accuracy measured. folder: model.safetensors,
config.json and a model card, in the layout of the Hugging Face Hub; --push uploads it. page: a static page that finds
and recognises the faces of a photo or the camera on the device that shows it; built with npm.
"""

import argparse
import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_voting.system.messages import set_up_messages
from fer_voting.system.text import escape
from fer_voting.votes import ALL_VOTES, vote_of_epoch

if TYPE_CHECKING:  # `--help` answers before torch is imported
    from fer_voting.data.module import FERDataModule
    from fer_voting.inference.pretrained import PretrainedNetwork
    from fer_voting.inference.runtimes import ExportInfo
    from fer_voting.inference.trained import TrainedNetwork

log = logging.getLogger("fer_voting.export")

CALIBRATION_FACES = 512


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m fer_voting.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--run",
        help="a finished training: its name below OUTPUT_DIR/runs, or its folder (default: the network that ships)",
    )
    made.add_argument("--to", required=True, choices=("onnx", "folder", "page"), help="what to write")
    made.add_argument(
        "--out", type=Path, help="the file or folder (default: below OUTPUT_DIR/exports; OUTPUT_DIR/page)"
    )
    made.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    made.add_argument("--vote", choices=ALL_VOTES, help="by whose best epoch, and in the file (default: the run's)")
    made.add_argument("--split", help="where to take the crops: baseline, input, m1, m2, m3 (default: as trained)")
    made.add_argument(
        "--mean-gmacs",
        type=float,
        metavar="G",
        help="of the adaptive vote: mean cost an image, by validation (default: half of the vote's extra arithmetic)",
    )
    made.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "float16", "int8"),
        help="of the weights; float16 for folders, int8 for files and pages (default: float32)",
    )
    made.add_argument("--push", metavar="OWNER/MODEL", help="with --to folder: also upload it to the Hub, as private")
    made.add_argument(
        "dataset", nargs="*", metavar="dataset.KEY=VALUE", help="int8: of the run's data set, e.g. dataset.root=DIR"
    )
    return made


def export(words: argparse.Namespace) -> Path:
    """Write what the words of the command line ask for; returns the file or folder.

    Raises ValueError or OSError for words that do not fit and files that are not there.
    """
    if words.push is not None and words.to != "folder":
        raise ValueError("--push uploads a folder: give --to folder")
    if words.precision == "int8" and words.to == "folder":
        raise ValueError("--precision int8 is for --to onnx and --to page")
    if words.precision == "float16" and words.to != "folder":
        raise ValueError("--precision float16 is for --to folder")
    if words.dataset and words.precision != "int8":
        raise ValueError(f"{words.dataset[0]!r}: the data set is read for --precision int8 alone")
    folder = words.output_dir / "exports"
    if words.run is None:
        return _shipped(words, folder)
    from fer_voting.inference.trained import find_run, load_trained, with_mean_gmacs

    if words.push is not None:
        from fer_voting.inference.pretrained import check_hub_name

        check_hub_name(words.push)
    run = find_run(words.run, words.output_dir)
    trained = load_trained(run, words.vote, words.split)
    if words.mean_gmacs is not None:
        trained = with_mean_gmacs(trained, words.mean_gmacs)
    name = "-".join(
        [
            run.name,
            *([] if words.split is None else [f"as_{words.split}"]),
            *([] if words.vote is None else [words.vote]),
            *([] if words.mean_gmacs is None else [f"{words.mean_gmacs:g}gmacs"]),
        ]
    )
    if words.to == "folder":
        return _to_folder(trained, words.out or folder / name, words.precision, words.push)
    if words.to == "page":
        return _to_page(trained, trained.run.name, bool(trained.result.get("synthetic")), words)
    return _to_file(trained, words, folder / f"{name}-{words.precision}.onnx")


def _shipped(words: argparse.Namespace, folder: Path) -> Path:
    """Export the network that ships with the package, as it is."""
    from fer_voting.inference.pretrained import PretrainedNetwork

    given = {"--vote": words.vote, "--split": words.split, "--mean-gmacs": words.mean_gmacs, "--push": words.push}
    needs_run = [name for name, value in given.items() if value is not None]
    if words.to == "folder":
        needs_run.append("--to folder")
    if words.precision != "float32":
        needs_run.append(f"--precision {words.precision}")
    if needs_run:
        raise ValueError(f"{needs_run[0]} is for the network of a training: give --run RUN")
    network = PretrainedNetwork.from_pretrained("fer_voting")
    if words.to == "page":
        return _to_page(network, "fer_voting", False, words)
    return _to_file(network, words, folder / "fer_voting-float32.onnx")


def _to_file(network: "TrainedNetwork | PretrainedNetwork", words: argparse.Namespace, default: Path) -> Path:
    path: Path = words.out or default
    if path.suffix != ".onnx":
        raise ValueError(f"`out` (={str(path)!r}) must end in .onnx")
    print(f"{path}: {_to_onnx(network, words, path)}")
    return path


def _to_onnx(trained: "TrainedNetwork | PretrainedNetwork", words: argparse.Namespace, path: Path) -> str:
    """Write the network to `path`; returns what is worth knowing about the file. int8 is of a run's network alone."""
    import tempfile

    from fer_voting.inference.network import FaceNetwork
    from fer_voting.inference.onnx_export import export_float32, require_packages

    require_packages()
    network = FaceNetwork(trained.net, trained.vote, trained.fitted)
    if words.precision == "float32":
        difference = export_float32(network, _info(trained), path)
        what = f"{difference:.1e} from PyTorch"
    else:
        from fer_voting.inference.trained import TrainedNetwork, load_dataset

        assert isinstance(trained, TrainedNetwork)
        datamodule = load_dataset(trained, words.dataset, words.output_dir)
        with tempfile.TemporaryDirectory() as folder:
            float32 = Path(folder) / "float32.onnx"
            export_float32(network, _info(trained), float32)
            what = _quantise(trained, datamodule, float32, path)
    mib = path.stat().st_size / 2**20
    return f"{mib:.1f} MiB, {words.precision}, split {trained.info.split}, {trained.vote} vote; {what}"


def _quantise(trained: "TrainedNetwork", datamodule: "FERDataModule", float32: Path, path: Path) -> str:
    """Write the int8 file; returns what it costs."""
    import numpy as np

    from fer_voting.inference.onnx_export import export_int8

    part = "test" if trained.result.get("refit") else "val"  # a refit has trained on the validation images
    if part not in datamodule.counts():
        raise ValueError(f"{datamodule.name} has no {part} images here to measure the accuracy of int8 on")
    train, judged = datamodule.positions("train"), datamodule.positions(part)
    chosen = np.random.default_rng(0).permutation(train)[:CALIBRATION_FACES]
    images, labels = datamodule.pack.images, datamodule.class_ids(datamodule.pack)
    report = export_int8(float32, path, images[np.sort(chosen)], images[judged], labels[judged], part)
    return (
        f"accuracy {report.accuracy_int8:.2%} instead of {report.accuracy_float32:.2%} "
        f"({100 * report.accuracy_lost:+.2f} points lost) on {report.faces:,} {part} images, "
        f"calibrated on {len(chosen)} training images"
    )


def _info(trained: "TrainedNetwork | PretrainedNetwork") -> "ExportInfo":
    from fer_voting.inference.pretrained import weights_checksum
    from fer_voting.inference.runtimes import ExportInfo

    return ExportInfo(
        class_names=trained.info.class_names,
        image_size=trained.info.image_size,
        split=trained.info.split,
        vote=trained.vote,
        dataset=trained.info.dataset,
        checksum=weights_checksum(trained.net.state_dict()),
        fitted=trained.fitted,
        accuracy=trained.accuracy,
    )


def _to_folder(trained: "TrainedNetwork", folder: Path, precision: str, push: str | None) -> Path:
    from fer_voting.inference.model_card import model_card
    from fer_voting.inference.pretrained import PretrainedNetwork

    network = PretrainedNetwork(trained.net, trained.info, trained.vote, trained.fitted, trained.accuracy)
    evaluations, resolutions = _evaluations(trained), _resolutions(trained)

    def card(name: str) -> str:
        return model_card(
            name,
            trained.info,
            trained.vote,
            trained.result,
            trained.config,
            evaluations,
            resolutions,
            trained.fitted.temperature,
            _public_test(trained),
        )

    network.save_pretrained(folder, card(folder.name), precision)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")
    if push is not None:
        print(f"uploaded, as private: {network.push_to_hub(push, card(push), precision=precision)}")
    return folder


def _evaluations(trained: "TrainedNetwork") -> list[dict[str, Any]]:
    """What `python -m fer_voting.evaluate` has written about these weights under this split."""
    from fer_voting.system.atomic import read_json

    folder = trained.run.dir.parent.parent / "evaluations"
    checkpoint = trained.run.best_checkpoint(vote_of_epoch(trained.vote))
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    return [
        each
        for each in found
        if Path(each["checkpoint"]).parts[-3:] == checkpoint.parts[-3:] and each["split"] == trained.info.split
    ]


def _resolutions(trained: "TrainedNetwork") -> list[dict[str, Any]]:
    """The rows of `make resolution` about these weights under this split and vote."""
    from fer_voting.system.atomic import read_json

    path = trained.run.dir.parent.parent / "tables" / "resolution.json"
    votes = trained.result["votes"]
    measured = "soft" if "soft" in votes else next(iter(votes))  # the checkpoint that it measures under every vote
    if trained.vote != measured or not path.exists():
        return []
    wanted = (trained.run.name, trained.info.split, trained.vote)
    return [row for row in read_json(path) if (row["run"], row["split"], row["vote"]) == wanted]


def _public_test(trained: "TrainedNetwork") -> dict[str, Any] | None:
    """The figures of `python -m experiments.public_test` about these weights under this split and vote, if any."""
    from fer_voting.inference.pretrained import weights_checksum
    from fer_voting.system.atomic import read_json

    folder = trained.run.dir.parent.parent / "public_test"
    wanted = (weights_checksum(trained.net.state_dict()), trained.info.split, trained.vote)
    found = [figures for path in sorted(folder.glob("*.json")) for figures in read_json(path)]
    return next((each for each in found if (each["checksum"], each["split"], each["vote"]) == wanted), None)


def _to_page(
    network: "TrainedNetwork | PretrainedNetwork", name: str, synthetic: bool, words: argparse.Namespace
) -> Path:
    from fer_voting.inference.web_page import build_page

    folder: Path = words.out or words.output_dir / "page"
    told = []
    build_page(
        folder,
        npm_dir=words.output_dir / "npm",
        name=name,
        synthetic=synthetic,
        write_network=lambda path: told.append(_to_onnx(network, words, path)),
    )
    print(f"{folder}: network of {told[0]}")
    print(f"to look at it: python -m http.server --bind 127.0.0.1 --directory {shlex.quote(str(folder))}")
    return folder


def main(arguments: list[str] | None = None) -> None:
    """The command; a mistake ends it with one line on stderr and exit code 1."""
    words = parser().parse_args(arguments)
    set_up_messages()
    try:
        export(words)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {escape(' '.join(str(error).split()))}")


if __name__ == "__main__":
    main()
