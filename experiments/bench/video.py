"""How fast and how lean a video is predicted here: `python -m experiments.bench.video`, or `make bench`.

The video is drawn: 640x480, H.264, with one or five faces that move. What is compared takes turns on the same video;
the median of the rounds counts. Memory is taken in a process of its own that predicts a long video. Half an hour on two
cores, which should have nothing else to do. `--checkpoint` takes a trained network instead of the paper's with initial
weights; the speed depends on split and width, not on the weights. Writes `outputs/bench/predict-<part>.json` and
`predict.md`.
"""

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from experiments.bench.measure import Row, measured_here, read_parts, table, write_part
from experiments.bench.network import exported
from experiments.common import add_parts, make_parser, write_page
from fer_voting.data.faces.parameters import EXPRESSION_UNITS
from fer_voting.data.faces.renderer import render_faces
from fer_voting.data.labels import CLASSES
from fer_voting.inference.draw import VideoWriter
from fer_voting.inference.frames import Input, read_frames
from fer_voting.inference.pipeline import Pipeline, RecognizedFrame
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.rows import RowWriter, rows_of
from fer_voting.inference.runtime import PRECISIONS, Runtime, TorchRuntime
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.networks import load_network
from fer_voting.results.table import Table

HEIGHT, WIDTH = 480, 640
FACE_SIDE = 150
MOST_SHARE = 20.0
"""Percent of the time that recognition may take with one face a frame."""
MOST_DIFFERENCE = 5.0
"""Percent by which memory may differ between frame 100 and the last."""


@dataclass(frozen=True)
class Speed:
    """How fast one video is predicted by one runtime: medians over the rounds."""

    faces: int
    """in each frame"""
    runtime: str
    frames_per_s: float
    decoding: float
    """Percent of the time, as the two below; what is left goes into the rows."""
    detection: float
    classification: float

    @property
    def verdict(self) -> str:
        """Whether classification takes little enough of the time; asked for one face a frame."""
        if self.faces > 1:
            return ""
        return "met" if self.classification <= MOST_SHARE else "missed"


def frames(count: int, faces: int) -> Iterator[NDArray[np.uint8]]:
    """Frames `[480, 640, 3]` in which faces go in circles on a background of noise."""
    names = sorted(EXPRESSION_UNITS)
    drawn = render_faces(0, range(faces), [names[i % len(names)] for i in range(faces)], range(faces), FACE_SIDE)
    background = np.random.default_rng(0).integers(90, 150, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    for index in range(count):
        frame = background.copy()
        for number, face in enumerate(drawn):
            angle = index / 40 + number
            top = round(15 + 165 * (number // 3) + 10 * np.sin(angle))
            left = round(30 + 200 * (number % 3) + 20 * np.cos(angle))
            frame[top : top + FACE_SIDE, left : left + FACE_SIDE] = face
        yield frame


def write_video(path: Path, count: int, faces: int) -> Path:
    with closing(VideoWriter(path, WIDTH, HEIGHT)) as writer:
        for index, image in enumerate(frames(count, faces)):
            writer.add(image, index / 25)
    return path


def network(options: argparse.Namespace) -> tuple[nn.Module, NetworkInfo]:
    """The checkpoint's network, or the paper's leanest with initial weights."""
    if options.checkpoint is not None:
        trained = load_network(options.checkpoint)
        return trained.net, trained.info
    torch.manual_seed(0)
    net = VotingResNet18("m3", 7, options.width).eval()
    return net, NetworkInfo("m3", {"width": options.width}, CLASSES[:7], 48, "nothing")


def recognizers(options: argparse.Namespace, folder: Path) -> dict[str, Recognizer]:
    """The network in PyTorch and in the exported forms."""
    net, info = network(options)
    names = [CLASSES[i % 7] for i in range(64)]
    runtimes: dict[str, Runtime] = {
        f"PyTorch, {precision}": TorchRuntime(net, info, precision=precision, device="cpu") for precision in PRECISIONS
    }
    runtimes |= exported(net, info, render_faces(0, range(64), names, range(64), info.image_size), folder)
    return {name: Recognizer(runtime) for name, runtime in runtimes.items()}


def speed(video: Path, recognizer: Recognizer, folder: Path) -> dict[str, float]:
    """Seconds of one pass with rows written (`all`), those of each stage, frames and faces."""
    pipeline = Pipeline(recognizer)
    start = time.perf_counter()
    with RowWriter(folder / "rows.csv", recognizer.class_names) as writer:
        for item in pipeline(read_frames(Input(str(video), video.name))):
            writer.write(rows_of(item))
    seconds = {"all": time.perf_counter() - start, **pipeline.seconds}
    return {**seconds, "frames": pipeline.frames, "faces": pipeline.faces}


def memory_mib(video: Path, options: argparse.Namespace, folder: Path) -> list[float]:
    """Resident MiB of this process when it has passed on the early frame of a long video, and its last."""
    net, info = network(options)
    recognizer = Recognizer(TorchRuntime(net, info, device="cpu"))
    resident = []
    with RowWriter(folder / "rows.csv", recognizer.class_names) as writer:
        for item in Pipeline(recognizer)(read_frames(Input(str(video), video.name))):
            writer.write(rows_of(item))
            if isinstance(item, RecognizedFrame) and item.frame.index + 1 in (early_frame(options.long), options.long):
                pages = int(Path("/proc/self/statm").read_text().split()[1])
                resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)
    return resident


def bench_speed(options: argparse.Namespace, folder: Path) -> tuple[list[Speed], dict[str, Any]]:
    """Frames a second, and which share of the time each stage takes."""
    rows: list[Speed] = []
    raw: dict[str, Any] = {}
    compared = recognizers(options, folder)
    for faces in (1, 5):
        video = write_video(folder / f"{faces}.mp4", options.frames, faces)
        passes: dict[str, list[dict[str, float]]] = {name: [] for name in compared}
        for recognizer in compared.values():  # warm-up: memory and kernels for the batches that come
            speed(video, recognizer, folder)
        for _ in range(options.rounds):
            for name, recognizer in compared.items():
                passes[name].append(speed(video, recognizer, folder))
        raw[f"{faces} faces"] = passes
        for name, found in passes.items():
            if any(one["faces"] != faces * options.frames for one in found):
                raise RuntimeError(f"{found[0]['faces']} faces were found in {options.frames} frames with {faces} each")
            shares = (
                statistics.median(100 * one[stage] / one["all"] for one in found)
                for stage in ("read", "detect", "recognize")
            )
            rows.append(Speed(faces, name, statistics.median(options.frames / one["all"] for one in found), *shares))
    return rows, raw


def early_frame(frames: int) -> int:
    """Number of the frame, from 1, with which the last is compared: when all that stays has been allocated."""
    return min(100, frames // 2)


def bench_memory(options: argparse.Namespace, folder: Path) -> tuple[list[Row], dict[str, Any]]:
    """Memory of a process of its own at an early frame and at the last of a long video."""
    video = write_video(folder / "long.mp4", options.long, 1)
    with ProcessPoolExecutor(1, multiprocessing.get_context("forkserver")) as process:
        first, last = process.submit(memory_mib, video, options, folder).result()
    rows = [
        Row(f"memory at frame {early_frame(options.long)}", first, "MiB"),
        Row(f"memory at frame {options.long:,}", last, "MiB"),
        Row("difference of the two", 100 * abs(last / first - 1), "%", most=MOST_DIFFERENCE),
    ]
    return rows, {"memory_mib": {str(early_frame(options.long)): first, str(options.long): last}}


PARTS: dict[str, Callable[[argparse.Namespace, Path], tuple[Sequence[Row | Speed], dict[str, Any]]]] = {
    "speed": bench_speed,
    "memory": bench_memory,
}


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    add_parts(parser, PARTS)
    parser.add_argument("--out", type=Path, default=Path("outputs/bench"))
    parser.add_argument("--frames", type=int, default=100, help="of the videos whose speed is measured (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, help="of each (default: 5)")
    parser.add_argument("--long", type=int, default=5000, help="frames of the video for `memory` (default: 5000)")
    parser.add_argument("--width", type=int, default=64, help="of the network (default: 64, the paper's)")
    parser.add_argument(
        "--checkpoint", type=Path, help="a trained network, instead of one of WIDTH with initial weights"
    )
    options = parser.parse_args(arguments)
    if options.checkpoint is not None and not options.checkpoint.is_file():
        parser.error(f"--checkpoint: {options.checkpoint} is not a file")
    with tempfile.TemporaryDirectory() as folder:
        sizes = {key: getattr(options, key) for key in ("frames", "rounds", "long")}
        for name in options.parts or PARTS:
            environment = measured_here(seed=0, network=describe(*network(options)), **sizes)
            rows, passes = PARTS[name](options, Path(folder))
            write_part(options.out / f"predict-{name}.json", environment, rows, passes=passes)
    text, tables = all_parts(options.out)
    write_page(options.out / "predict.md", text, tables)
    print(text)
    print(f"Written to {options.out}")


def describe(net: nn.Module, info: NetworkInfo) -> str:
    trained = "initial weights" if info.dataset == "nothing" else f"trained on {info.dataset}"
    return f"{info.split} of width {info.options['width']}, {trained}"


def all_parts(out: Path) -> tuple[str, list[tuple[str, Table]]]:
    """The tables of the parts that were measured into this folder, with where and when that was, and by name."""
    origin = (
        "{network}; 640x480 video; {device}; commit {git_commit}; {date}; seed {seed}; load {load_before:.1f} before"
    )
    texts, tables = [], []
    for name, table_of, row_type in (("predict-speed", speed_table, Speed), ("predict-memory", table, Row)):
        for part in read_parts(out, [name], row_type).values():
            here = part["environment"]
            tables.append((name, table_of(part["rows"])))
            texts.append(f"{tables[-1][1].markdown()}\n{origin.format_map(here)}; torch {here['versions']['torch']}.\n")
    return "\n".join(texts), tables


def speed_table(rows: list[Speed]) -> Table:
    """The rows, those of one face a frame with their verdict."""
    cells = [
        [str(row.faces), row.runtime, row.verdict, f"{row.frames_per_s:.1f}"]
        + [f"{share:.1f}" for share in (row.decoding, row.detection, row.classification)]
        for row in rows
    ]
    last = f"classification (%, at most {MOST_SHARE:g} asked)"
    header = ["faces a frame", "runtime", "", "frames/s", "decoding (%)", "detection (%)", last]
    return Table(header, cells, left=3)


if __name__ == "__main__":
    main()
