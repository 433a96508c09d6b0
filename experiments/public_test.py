"""The figures of any network on FER2013's PublicTest: `python -m experiments.public_test --root DIR [--run NAME]`.

For the network that ships with the package, a finished run, a folder of `fer_voting.export --to folder` (`--model`), or
a checkpoint: accuracy by FER2013's labels and by FER+'s strict majority, recall of each class, confusion, accuracy
by brightness and by size of the face. DIR holds fer2013.csv and, for FER+, fer2013new.csv. Prints the tables, and
writes them with the figures and the confusion matrix into <output-dir>/public_test; `fer_voting.export --to folder`
of the same run puts them into the model card. Ten minutes on 2 cores for the network that ships. Nothing written holds
a face.

With `--forms`, instead the table of an exported network's forms (`--form`, `--precision` of prediction): accuracy and
processor time; the model card takes it in the same way.
"""

import sys
import time
from collections.abc import Callable
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray

from experiments.common import Report, add_folders, make_parser, open_data, publish
from experiments.kept import find_faces
from experiments.resolution import RESOLUTIONS, figures
from fer_voting import networks
from fer_voting.data.corruptions import corrupt
from fer_voting.data.index import PARTS
from fer_voting.data.labels import CLASSES
from fer_voting.data.module import FERDataModule
from fer_voting.data.sets.ferplus import strict_majority
from fer_voting.inference.faces import cut_face
from fer_voting.inference.model_card import forms_table, public_test_tables
from fer_voting.inference.recognizer import Recognizer
from fer_voting.networks import weights_checksum
from fer_voting.results.calibration import reliability
from fer_voting.results.evaluation import confusion_counts
from fer_voting.results.plots import draw_confusion
from fer_voting.system.environment import describe_device, git_commit, package_versions
from fer_voting.system.messages import progress_bar, set_up_messages
from fer_voting.votes import FORMS

QUARTERS = 4
TIMED_FACES = 8
"""Faces of one timed call: what one thread of ONNX Runtime computes at once."""


def public_test(root: Path, size: int, output_dir: Path) -> tuple[FERDataModule, NDArray[np.int64]]:
    """FER2013 at `size` pixels, and the positions of PublicTest's images in its pack.

    Raises ValueError if there are none.
    """
    overrides = ["dataset=fer2013", f"dataset.root={root}", f"dataset.size={size}", f"output_dir={output_dir}"]
    data = open_data(overrides, augment=None)
    pack = data.make_pack()
    data.check(pack)
    positions = np.flatnonzero(data.usable(pack) & (pack.part_ids == PARTS.index("val")))
    if not len(positions):
        raise ValueError(f"{root} has no images of FER2013's PublicTest")
    return data, positions


def judge(name: str, recognizer: Recognizer, data: FERDataModule, positions: NDArray[np.int64]) -> dict[str, Any]:
    """The figures of a network, as `public_test_tables` takes them and more, as plain values.

    Raises ValueError if the network lacks one of FER2013's classes. Other classes of the network are not decided for.
    """
    commit = git_commit()  # now: the checkout may change before the end
    classes = list(data.class_names)
    if missing := [label for label in classes if label not in recognizer.class_names]:
        raise ValueError(f"{name} does not know {', '.join(missing)}: it cannot be judged on FER2013")
    columns = [recognizer.class_names.index(label) for label in classes]
    faces = find_faces(data, positions)
    images = np.asarray(data.pack.images[positions])
    majority = None
    if faces.votes is not None:
        assert classes == list(CLASSES[: len(classes)])  # the order of the votes' columns
        majority = strict_majority(faces.votes, len(classes))

    def of_labels(labels: NDArray[np.int64], decisions: NDArray[np.int64]) -> dict[str, Any]:
        known = labels >= 0
        counts = confusion_counts(labels[known], decisions[known], len(classes))
        recall = counts.diagonal() / np.maximum(counts.sum(axis=1), 1)
        return {
            **figures(counts),
            "recall": dict(zip(classes, recall.tolist(), strict=True)),
            "confusion_counts": counts.tolist(),
        }

    probabilities = recognizer.classify(images).probabilities[:, columns]
    decisions = probabilities.argmax(axis=1)
    confidences = probabilities.max(axis=1)
    runtime: Any = recognizer.runtime
    return {
        "name": name,
        "split": runtime.split,
        "vote": runtime.vote,
        "checksum": weights_checksum(runtime.network.net.state_dict()),
        "class_names": classes,
        "by_label": of_labels(faces.labels, decisions),
        "by_majority": None if majority is None else of_labels(majority, decisions),
        "calibration_error": reliability(confidences, decisions == faces.labels)["error"],
        "brightness": _by_brightness(images, faces.labels, decisions, len(classes)),
        "resolution": _by_resolution(recognizer, columns, images, {"by_label": faces.labels, "by_majority": majority}),
        "device": describe_device(torch.device(runtime.device)),
        "git_commit": commit,
        "versions": package_versions(),
    }


def judge_forms(
    name: str, source: str, output_dir: Path, data: FERDataModule, positions: NDArray[np.int64]
) -> dict[str, Any]:
    """Accuracy and processor time of every form of an exported network (`forms_table`), in ONNX Runtime on one thread.

    A form that its folder or file lacks is left out. Raises ValueError if there is none.
    """
    commit = git_commit()
    faces = find_faces(data, positions)
    images = np.asarray(data.pack.images[positions])
    known = {"by_label": faces.labels}
    if faces.votes is not None:
        known["by_majority"] = strict_majority(faces.votes, len(data.class_names))
    rows: list[dict[str, Any]] = []
    info: Any = None
    for precision in ("float32", "int8"):
        for form in FORMS:
            words: dict[str, Any] = {"runtime": "onnx", "threads": 1, "device": "cpu"}
            try:
                runtime: Any = networks.load(source, output_dir, precision=precision, form=form, **words)
            except ValueError as error:
                print(f"left out: {form}, {precision}: {error}")
                continue
            if form == "whole" and runtime.vote == runtime.info.vote:
                continue  # a baseline: its full form is its whole map
            info = runtime.info
            columns = [info.class_names.index(label) for label in data.class_names]
            runtime(images[:TIMED_FACES])  # warm-up
            start, decisions = time.process_time(), []
            for first in range(0, len(images), TIMED_FACES):
                decisions.append(runtime(images[first : first + TIMED_FACES])[0][:, columns].argmax(axis=1))
            row: dict[str, Any] = {"form": form, "precision": precision}
            row["milliseconds"] = 1000 * (time.process_time() - start) / len(images)
            decided = np.concatenate(decisions)
            row |= {kind: float((decided == labels)[labels >= 0].mean()) for kind, labels in known.items()}
            rows.append(row)
    if not rows:
        raise ValueError(f"{name} has no ONNX file whose forms could be judged")
    return {
        "name": name,
        "split": info.split,
        "vote": "",
        "checksum": info.checksum,
        "images": len(images),
        "forms": [{"by_majority": None, **row, "time": row["milliseconds"] / rows[0]["milliseconds"]} for row in rows],
        "device": describe_device(torch.device("cpu")),
        "git_commit": commit,
        "versions": package_versions(),
    }


def forms_report(result: dict[str, Any]) -> Report:
    written = Report(f"{result['name']}-forms", f"Forms of {result['name']} on FER2013's PublicTest", rows=[result])
    written.add(forms_table(result))
    written.add(f"Commit {result['git_commit']}; {result['device']}, one thread.")
    return written


def print_without_a_quarter(
    recognizer: Recognizer, data: FERDataModule, positions: NDArray[np.int64], side: str
) -> None:
    """Print the accuracies in % by label, and by majority where there are votes, of faces of `cut_at_the_edge`."""
    faces = find_faces(data, positions)
    columns = [recognizer.class_names.index(label) for label in data.class_names]
    known = {"FER2013's label": faces.labels}
    if faces.votes is not None:
        known["FER+'s strict majority"] = strict_majority(faces.votes, len(columns))
    for kind, images in cut_at_the_edge(np.asarray(data.pack.images[positions]), side).items():
        decisions = recognizer.classify(images).probabilities[:, columns].argmax(axis=1)
        shares = {name: 100 * (decisions == labels)[labels >= 0].mean() for name, labels in known.items()}
        print(f"without the {side} quarter, {kind}: " + ", ".join(f"{v:.2f} by {k}" for k, v in shares.items()))


def _by_brightness(
    images: NDArray[np.uint8], labels: NDArray[np.int64], decisions: NDArray[np.int64], classes: int
) -> list[dict[str, Any]]:
    """Quarters of the faces from the darkest to the brightest; equal ones stay in the order of the data set."""
    brightness = images.mean(axis=(1, 2, 3))
    rows = []
    for chosen in np.array_split(np.argsort(brightness, kind="stable"), QUARTERS):
        ends = {"darkest": float(brightness[chosen].min()), "brightest": float(brightness[chosen].max())}
        rows.append(ends | figures(confusion_counts(labels[chosen], decisions[chosen], classes)))
    return rows


def _by_resolution(
    recognizer: Recognizer, columns: list[int], images: NDArray[np.uint8], labels: dict[str, NDArray[np.int64] | None]
) -> list[dict[str, Any]]:
    """The share of right decisions by each kind of label, at each size; None without such labels."""
    size = images.shape[1]
    rows = []
    sides = sorted({*(side for side in RESOLUTIONS if side < size), size})
    for side in progress_bar(sides, desc="judging at each size", unit="size"):
        decisions = recognizer.classify(corrupt(images, "resolution", side)).probabilities[:, columns].argmax(axis=1)
        row: dict[str, Any] = {"resolution": side}
        for kind, known in labels.items():
            row[kind] = None if known is None else float((decisions == known)[known >= 0].mean())
        rows.append(row)
    return rows


def cut_at_the_edge(images: NDArray[np.uint8], side: str) -> dict[str, NDArray[np.uint8]]:
    """Faces in photos whose edge leaves out a quarter of each, cut out in two ways: each uint8 [N, S, S, 3].

    `black`: the square about the face's box, as prediction cuts it. `stretched`: what is seen of it, scaled to S.

    Args:
        side: of the face that is left out: left, right, top or bottom.
    """
    size = images.shape[1]
    quarter = size // 4
    left, top = quarter * (side == "left"), quarter * (side == "top")
    right, bottom = size - quarter * (side == "right"), size - quarter * (side == "bottom")
    photos = [PIL.Image.fromarray(image).crop((left, top, right, bottom)) for image in images]
    whole, shown = (np.array([*box, 1, 0]) for box in ((-left, -top, size, size), (0, 0, right - left, bottom - top)))
    return {
        "black": np.stack([cut_face(photo, whole, size, 0.0) for photo in photos]),
        "stretched": np.stack([cut_face(photo, shown, size, None) for photo in photos]),
    }


def report(figures: dict[str, Any]) -> Report:
    title = f"{figures['name']} on FER2013's PublicTest"
    written = Report(figures["name"], f"{title}, {figures['vote']} vote", rows=[figures])
    written.add(public_test_tables(figures))
    written.add(f"Split {figures['split']}; commit {figures['git_commit']}; {figures['device']}.")
    counts = np.array(figures["by_label"]["confusion_counts"])
    draw = partial(draw_confusion, counts=counts, class_names=figures["class_names"], title=title)
    written.add_plot(f"{figures['name']}-confusion", draw, f"confusion matrix of {title}")
    return written


def publish_sample(
    description: str | None,
    name: str,
    arguments: list[str] | None,
    report_on: Callable[[FERDataModule, NDArray[np.int64]], Report],
) -> None:
    """Run a command that reports on the network that ships, on images drawn from PublicTest.

    Args:
        report_on: gets the images by their positions in the pack.
    """
    parser = make_parser(description)
    parser.add_argument("--root", type=Path, required=True, help="folder of fer2013.csv")
    parser.add_argument("--faces", type=int, default=600, help="chosen at random (default: %(default)s)")
    add_folders(parser, name)
    options = parser.parse_args(arguments)
    if options.faces < 1:
        parser.error(f"--faces {options.faces}: at least 1")
    set_up_messages()
    try:
        data, positions = public_test(options.root, 48, options.output_dir)
        written = report_on(data, np.random.default_rng(0).permutation(positions)[: options.faces])
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    device = describe_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    weights = networks.load_network().checksum[:12]
    written.add(
        f"Weights {weights} of the network that ships; seed 0; commit {git_commit()}; {device}; {date.today()}."
    )
    publish(written, options.out or options.output_dir / name)


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--root", type=Path, required=True, help="folder of fer2013.csv (and fer2013new.csv)")
    network = parser.add_mutually_exclusive_group()
    network.add_argument(
        "--run", dest="network", help="a finished training: its name below OUTPUT_DIR/runs, or its folder"
    )
    network.add_argument(
        "--model", dest="network", help="an exported folder, or a name on the Hub (default: the one that ships)"
    )
    network.add_argument("--checkpoint", dest="network", help="a .ckpt file")
    parser.set_defaults(network="fer_voting")
    parser.add_argument(
        "--cut", choices=("left", "right", "top", "bottom"), help="only print the accuracies without this quarter"
    )
    parser.add_argument(
        "--forms",
        action="store_true",
        help="instead, accuracy and processor time of each form of an exported network, by ONNX Runtime on one thread",
    )
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="with --forms: only every N-th image (default: all)"
    )
    parser.add_argument("--vote", help="(default: the run's or the folder's own, else soft)")
    add_folders(parser, "public_test")
    options = parser.parse_args(arguments)
    if options.forms and (options.cut or options.vote):
        parser.error("--forms judges whole faces by the network's own vote: leave out --cut and --vote")
    if options.every < 1 or (options.every > 1 and not options.forms):
        parser.error(f"--every {options.every}: a number from 1, and with --forms only")
    set_up_messages()
    out = options.out or options.output_dir / "public_test"
    try:
        if options.forms:
            size = networks.load(options.network, options.output_dir, runtime="onnx").info.image_size
            data, positions = public_test(options.root, size, options.output_dir)
            chosen = positions[:: options.every]
            forms = judge_forms(Path(options.network).name, options.network, options.output_dir, data, chosen)
            return publish(forms_report(forms), out)
        recognizer = Recognizer.load(options.network, options.output_dir, vote=options.vote, runtime="torch")
        name = Path(options.network).name.removesuffix(".ckpt")
        data, positions = public_test(options.root, recognizer.runtime.image_size, options.output_dir)
        if options.cut:
            return print_without_a_quarter(recognizer, data, positions, options.cut)
        result = judge(name, recognizer, data, positions)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    publish(report(result), out, ("png",))


if __name__ == "__main__":
    main()
