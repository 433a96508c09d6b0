"""The network that ships beside the package `fer`.

    python -m experiments.bench.peer --peer PYTHON --root DIR PHOTO...

PYTHON is an interpreter that imports `fer` (>= 25.10); nothing is installed here. Both see the same photos and the same
faces of FER2013's PublicTest (DIR holds fer2013.csv, and fer2013new.csv for FER+'s labels). A photo shows one face, or
as many as `--faces NAME=N` says: found are at most so many boxes, false are the others. The fastest of five calls
counts. Writes `peer.json` and `peer.md` into outputs/bench.
"""

import json
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.bench.measure import measured_here, seconds_of
from experiments.common import add_folders, make_parser, write_result
from experiments.kept import find_faces
from experiments.public_test import public_test
from fer_voting import networks
from fer_voting.data.sets.ferplus import strict_majority
from fer_voting.inference.frames import photo
from fer_voting.inference.recognizer import Recognizer
from fer_voting.results.table import Table
from fer_voting.system.messages import set_up_messages
from fer_voting.votes import FORMS

REPEATS = 5
PEER_CLASSES = {"angry": "anger"}
"""The peer's name of a class -> ours, where they differ."""


def run_peer(python: str, images: NDArray[np.uint8], photos: list[Path]) -> dict[str, Any]:
    """The figures that `peer_worker` measures. Raises ValueError with its last words if it fails."""
    with tempfile.TemporaryDirectory() as folder:
        faces, out = Path(folder) / "faces.npz", Path(folder) / "out.json"
        np.savez(faces, images=images)
        worker = Path(__file__).with_name("peer_worker.py")
        ended = subprocess.run(
            [python, str(worker), str(faces), str(out), *map(str, photos)], capture_output=True, text=True
        )
        if ended.returncode:
            lines = ended.stderr.strip().splitlines() or ["no message"]
            raise ValueError(f"{python} cannot run fer: {lines[-1]}")
        return json.loads(out.read_text())


def photo_row(who: str, boxes: dict[str, int], seconds: dict[str, float], faces: dict[str, int]) -> list[str]:
    """Who, found of all, false, and milliseconds of each photo on average and of the one with the most faces."""
    found = sum(min(boxes[name], faces[name]) for name in boxes)
    false = sum(max(boxes[name] - faces[name], 0) for name in boxes)
    most = max(faces, key=lambda name: faces[name])
    mean = 1000 * sum(seconds.values()) / len(seconds)
    return [who, f"{found} of {sum(faces.values())}", str(false), f"{mean:.0f}", f"{1000 * seconds[most]:.0f}"]


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--peer", required=True, metavar="PYTHON", help="an interpreter that imports fer")
    parser.add_argument("--root", type=Path, required=True, help="folder of fer2013.csv (and fer2013new.csv)")
    parser.add_argument(
        "--every", type=int, default=1, metavar="N", help="every N-th face of PublicTest (default: all)"
    )
    parser.add_argument("--faces", action="append", default=[], metavar="NAME=N", help="faces of a photo (default: 1)")
    parser.add_argument("photos", nargs="+", type=Path, metavar="PHOTO")
    add_folders(parser, "bench")
    options = parser.parse_args(arguments)
    set_up_messages()
    counts = dict(each.split("=") for each in options.faces)
    faces = {str(path): int(counts.get(path.name, 1)) for path in options.photos}
    here = measured_here()
    try:
        data, positions = public_test(options.root, 48, options.output_dir)
        positions = positions[:: options.every]
        images, known = np.asarray(data.pack.images[positions]), find_faces(data, positions)
        peer = run_peer(options.peer, images, options.photos)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    labels = {"FER2013's label": known.labels}
    if known.votes is not None:
        labels["FER+'s strict majority"] = strict_majority(known.votes, len(data.class_names))
    name = f"fer {peer['version']}"
    rows = [
        photo_row(
            f"{name}, {detector}",
            {path: len(each["boxes"]) for path, each in measured["photos"].items()},
            {path: each["seconds"] for path, each in measured["photos"].items()},
            faces,
        )
        for detector, measured in peer["detectors"].items()
        if "photos" in measured
    ]
    classes = [PEER_CLASSES.get(each, each) for each in peer["faces"]["decisions"]]
    decisions = {name: np.array([data.class_names.index(each) for each in classes])}
    seconds = {name: peer["faces"]["processor_seconds"]}
    frames = {str(path): photo(path) for path in options.photos}
    for form in FORMS:
        recognizer = Recognizer.load(form=form, device="cpu", runtime="onnx")
        who = f"fer_voting, {form}"
        boxes = {path: len(recognizer.detect(frame)) for path, frame in frames.items()}
        spent = {
            path: min(seconds_of(partial(recognizer.detect, frame), 1) for _ in range(REPEATS))
            for path, frame in frames.items()
        }
        rows.append(photo_row(who, boxes, spent, faces))
        columns = [recognizer.class_names.index(label) for label in data.class_names]
        start = time.process_time()
        decisions[who] = np.concatenate([recognizer.classify(image[None]).probabilities for image in images])[
            :, columns
        ].argmax(axis=1)
        seconds[who] = time.process_time() - start
    photos_table = Table(["", "found", "false", "milliseconds a photo", "of the photo with most faces"], rows)
    judged = [
        [
            who,
            *(f"{100 * (decided == label)[label >= 0].mean():.2f}" for label in labels.values()),
            f"{1000 * seconds[who] / len(images):.2f}",
        ]
        for who, decided in decisions.items()
    ]
    heads = [f"accuracy (%) by {kind}" for kind in labels]
    faces_table = Table(["", *heads, "processor time a face, one by one (ms)"], judged)
    parts = [
        f"# {name} and the network that ships",
        photos_table.markdown(),
        f"{len(images):,} faces of FER2013's PublicTest, whole:",
        faces_table.markdown(),
        f"{here['date']}, commit {here['git_commit']}; {here['device']}; load before {here['load_before']:.1f}. "
        f"Weights {networks.load_network().checksum[:12]} of fer_voting.",
    ]
    text = "\n\n".join(parts) + "\n"
    out = options.out or options.output_dir / "bench"
    content = {"environment": here, "photos": rows, "faces": judged, "peer": name}
    write_result(out, "peer", text, content, [("photos", photos_table), ("faces", faces_table)])
    print(text)


if __name__ == "__main__":
    main()
