"""Find faces in photos, videos or a camera's frames, and recognise their expressions.

    python -m fer_voting.predict photo.jpg holiday/ clip.mp4 --out faces.csv --draw annotated

A row a face: input, frame, time_s, face_id, left, top, width, height, face_score, class, confidence, the classes'
probabilities, vote_agreement, status. A frame without a face has a row with the status no_face, and what cannot be
read one with the status `unreadable: <reason>`.
"""

import argparse
import contextlib
import itertools
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from fer_voting.system.messages import duration, progress_bar, set_up_messages
from fer_voting.system.text import escape
from fer_voting.votes import ALL_VOTES

if TYPE_CHECKING:  # `--help` answers before torch is imported
    from fer_voting.inference.predictor import Options, Predictor
    from fer_voting.inference.rows import Row

log = logging.getLogger("fer_voting.predict")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m fer_voting.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("paths", nargs="*", metavar="PATH", type=Path, help="photos, videos, folders of them (in depth)")
    made.add_argument("--camera", metavar="N", help="a camera (0 is the first) until Ctrl-C; or what OpenCV opens")

    network = made.add_argument_group("network", "by default the one that ships with the package")
    which = network.add_mutually_exclusive_group()
    which.add_argument("--run", help="a finished training: its name below OUTPUT_DIR/runs, or its folder")
    which.add_argument("--checkpoint", metavar="FILE", help="a .ckpt file of a training")
    which.add_argument("--model", metavar="MODEL", help="an exported folder or .onnx file, or a name on the Hub")
    network.add_argument("--output-dir", default="outputs", help="holds runs/ (default: outputs)")
    network.add_argument("--vote", choices=ALL_VOTES, help="(default: the model's own, else soft)")
    network.add_argument("--precision", default="float32", choices=("float32", "bf16"), help="(default: float32)")
    network.add_argument("--device", default="auto", help="cpu, cuda, … (default: a GPU where there is one)")
    network.add_argument("--runtime", default="onnx", choices=("onnx", "openvino"), help="of an .onnx file")
    network.add_argument("--batch-size", type=int, default=64, metavar="N", help="faces at once (default: 64)")

    faces = made.add_argument_group("faces")
    where = faces.add_mutually_exclusive_group()
    where.add_argument("--aligned", action="store_true", help="the images are faces already: detect none")
    where.add_argument(
        "--boxes", metavar="FILE", help="faces from a CSV file: input, left, top, width, height (pixels), frame"
    )
    faces.add_argument("--face-score", type=float, default=0.35, help="the lowest of a face, 0 to 1 (default: 0.35)")
    faces.add_argument(
        "--margin", type=float, default=0.05, help="a face is a square of 1 + MARGIN times its box (default: 0.05)"
    )
    faces.add_argument("--every", type=int, default=1, metavar="N", help="every N-th frame of a video (default: 1)")
    faces.add_argument("--track", action="store_true", help="the same face_id for a face through a video's frames")

    results = made.add_argument_group("results")
    results.add_argument("--out", type=Path, metavar="FILE", help=".csv or .jsonl (default: CSV on stdout)")
    results.add_argument("--draw", metavar="DIR", help="write annotated photos and videos here")
    results.add_argument(
        "--explain", metavar="DIR", help="write for each face its crops, votes and activation map here"
    )
    results.add_argument("--ray", metavar="ADDRESS", help="use a Ray cluster: its address, auto, or local")
    return made


def options_of(words: argparse.Namespace) -> "Options":
    from fer_voting.inference.predictor import Options

    return Options(**{name: value for name, value in vars(words).items() if name in Options.__dataclass_fields__})


def predict(words: argparse.Namespace) -> None:
    """Run the command.

    Raises ValueError or OSError for words that do not fit.
    """
    if (words.camera is None) == (not words.paths):
        raise ValueError("give photos, videos or folders, or --camera N")
    if words.camera is not None and words.ray is not None:
        raise ValueError("--camera and --ray exclude each other")

    from fer_voting.inference.cluster import predict_on_ray
    from fer_voting.inference.frames import find_inputs
    from fer_voting.inference.predictor import Predictor
    from fer_voting.inference.rows import RowWriter

    options = options_of(words)
    inputs, others = find_inputs(words.paths)
    if others:
        log.info("%d other files in the folders are left out", others)
    if words.camera is None and not inputs:
        raise ValueError(f"there is no photo or video in {', '.join(map(str, words.paths))}")
    predictor = Predictor(options)
    describe(predictor)
    rows: Generator[list[Row]]
    if words.camera is not None:
        rows = predictor.camera(words.camera)
    elif words.ray is not None:
        rows = predict_on_ray(inputs, options, words.ray)
    else:
        rows = predictor.files(inputs)
    opened = RowWriter(words.out, predictor.recognizer.class_names)
    start = time.monotonic()
    with contextlib.closing(rows):
        first = next(rows, [])  # what is wrong with a camera or a cluster shows here, before a file is replaced
        summary = Summary(words.out, predictor, start, show=words.out is not None or not sys.stdout.isatty())
        try:
            with opened as writer:
                for some in itertools.chain([first], rows):
                    writer.write(some)
                    summary.add(some)
        finally:
            summary.close()


class Summary:
    """Counts what passes: progress while it does, one line at the end."""

    def __init__(self, out: Path | None, predictor: "Predictor", start: float, show: bool) -> None:
        self._out, self._predictor = out, predictor
        self._statuses: Counter[str] = Counter()
        self._start = start
        self._bar = progress_bar(unit=" frames", disable=None if show else True)  # None: only at a terminal

    def add(self, rows: "list[Row]") -> None:
        """Rows of one frame."""
        self._statuses.update(row["status"].partition(":")[0] for row in rows)
        if rows:
            where = f"{escape(rows[-1]['input'])}, frame {rows[-1]['frame']}"
            self._bar.set_postfix_str(f"{self._rate():.1f} faces/s, {where}", refresh=False)
            self._bar.update()

    def _rate(self) -> float:
        return self._statuses["ok"] / max(time.monotonic() - self._start, 1e-9)

    def close(self) -> None:
        self._bar.close()
        stages = self._predictor.pipeline.seconds
        spent = sum(stages.values())
        shares = ", ".join(f"{stage} {value / spent:.0%}" for stage, value in stages.items()) if spent else ""
        log.info(
            "%d faces, %d frames without one, %d unreadable in %s (%.1f faces/s%s)%s",
            self._statuses["ok"],
            self._statuses["no_face"],
            self._statuses["unreadable"],
            duration(time.monotonic() - self._start),
            self._rate(),
            f"; {shares}" if shares else "",
            f": {self._out}" if self._out is not None else "",
        )


def describe(predictor: "Predictor") -> None:
    """Log which device each stage runs on."""
    import torch

    from fer_voting.system.environment import describe_device

    options, runtime = predictor.options, predictor.recognizer.runtime
    if options.aligned:
        log.info("faces: the images as they are")
    elif options.boxes is not None:
        log.info("faces: %s", options.boxes)
    else:
        log.info("detection: CenterFace by OpenCV on cpu (%s)", describe_device(torch.device("cpu")))
    kind = type(runtime).__name__.removesuffix("Runtime")
    device = runtime.device
    if device.startswith(("cpu", "cuda")):
        device = f"{device} ({describe_device(torch.device(device))})"
    log.info(
        "recognition: %s, split %s, %s vote, %dx%d pixels, by %s on %s",
        ", ".join(runtime.class_names),
        runtime.split,
        runtime.vote,
        runtime.image_size,
        runtime.image_size,
        kind,
        device,
    )


def main(arguments: list[str] | None = None) -> None:
    """The command; a mistake ends it with one line on stderr and exit code 1, Ctrl-C with code 130."""
    words = parser().parse_args(arguments)
    set_up_messages()
    # End as by Ctrl-C: with whole files.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        predict(words)
    except KeyboardInterrupt:
        log.info("interrupted")
        sys.exit(130)
    except BrokenPipeError:  # the reader of stdout has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, OSError) as error:
        sys.exit(f"error: {escape(' '.join(str(error).split()))}")
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    main()
