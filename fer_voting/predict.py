"""Find faces in photos, videos or a camera's frames, and recognise their expressions.

    python -m fer_voting.predict photo.jpg holiday/ clip.mp4 --out faces.csv --draw annotated

Each face is a row: input, frame, time_s, face_id, left, top, width, height, angle, face_score, x and y of five
landmarks (left_eye_x, …), class, confidence, the classes' probabilities, vote_agreement, status. A frame without a face
has a row with the status no_face, and what cannot be read one with the status `unreadable: <reason>`; a copy that
cannot be written has one with `not_written: <reason>`.
"""

import argparse
import contextlib
import itertools
import logging
import os
import re
import signal
import sys
import time
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from fer_voting.inference.options import PredictOptions
from fer_voting.system.conf_folders import add_config_dir
from fer_voting.system.machine import processor
from fer_voting.system.messages import duration, exit_without_reader, progress_bar, set_up_messages
from fer_voting.system.text import counted, escape
from fer_voting.votes import ALL_VOTES, FORMS

if TYPE_CHECKING:  # `--help` answers before torch is imported
    from fer_voting.inference.predictor import Predictor
    from fer_voting.inference.rows import Row

log = logging.getLogger("fer_voting.predict")


def parser() -> argparse.ArgumentParser:
    command = argparse.ArgumentParser(
        prog="python -m fer_voting.predict", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument(
        "paths", nargs="*", metavar="PATH", type=Path, help="photos, videos, folders of them (in depth)"
    )
    command.add_argument("--camera", metavar="N", help="a camera (0 is the first) until Ctrl-C; or what OpenCV opens")

    group = command.add_argument_group("network", "by default the one that ships with the package")
    network = group.add_mutually_exclusive_group()
    network.add_argument(
        "--run",
        dest="network",
        metavar="RUN",
        help="a finished training: its name below OUTPUT_DIR/runs, or its folder",
    )
    network.add_argument("--checkpoint", dest="network", metavar="FILE", help="a .ckpt file of a training")
    network.add_argument(
        "--model", dest="network", metavar="MODEL", help="an exported folder or .onnx file, or a name on the Hub"
    )
    group.add_argument("--output-dir", help="holds runs/ (default: %(default)s)")
    group.add_argument(
        "--vote", help=f"{', '.join(ALL_VOTES)}, or one of your own (default: the model's own, else soft)"
    )
    group.add_argument(
        "--form",
        choices=FORMS,
        help="full; adaptive: crops only where the whole map is not certain; whole: no crops (default: %(default)s)",
    )
    group.add_argument("--precision", choices=("float32", "bf16", "int8"), help="(default: %(default)s)")
    group.add_argument("--device", help="cpu, cuda, … (default: a GPU where there is one)")
    group.add_argument(
        "--runtime",
        choices=("auto", "onnx", "openvino", "torch"),
        help="what computes the network; auto: ONNX Runtime for the one that ships on a processor and for .onnx files, "
        "else PyTorch",
    )
    group.add_argument("--threads", type=int, metavar="N", help="of the processor (default: all cores)")
    group.add_argument("--batch-size", type=int, metavar="N", help="faces at once (default: %(default)s)")

    group = command.add_argument_group("faces")
    faces = group.add_mutually_exclusive_group()
    faces.add_argument("--aligned", action="store_true", help="the images are faces already: detect none")
    faces.add_argument(
        "--boxes", metavar="FILE", help="faces from a CSV file: input, left, top, width, height (pixels), frame"
    )
    faces.add_argument(
        "--detector", metavar="NAME", help="centerface, or your own: package.module:callable (default: %(default)s)"
    )
    group.add_argument(
        "--detect-size",
        choices=("auto", "320", "640", "1280"),
        help="pixels of a frame's longer side; auto: 640, and 1280 where something may be a small face",
    )
    group.add_argument("--face-score", type=float, help="the lowest of a face, 0 to 1 (default: %(default)s)")
    group.add_argument(
        "--margin",
        type=float,
        help="a face is a square of 1 + MARGIN times its box (default: as the network's file says)",
    )
    group.add_argument(
        "--align",
        action=argparse.BooleanOptionalAction,
        help="turn faces upright by their eyes and mouth (default: as the network's file says)",
    )
    group.add_argument("--every", type=int, metavar="N", help="every N-th frame of a video (default: %(default)s)")
    group.add_argument("--track", action="store_true", help="the same face_id for a face through a video's frames")

    group.add_argument(
        "--smooth", type=float, metavar="SECONDS", help="with --track: average a face's probabilities over so long"
    )
    group.add_argument(
        "--smooth-centred", action="store_true", help="half of the time before, half after (default: all before)"
    )

    group = command.add_argument_group("results")
    group.add_argument("--out", type=Path, metavar="FILE", help=".csv or .jsonl (default: CSV on stdout)")
    group.add_argument(
        "--columns", choices=("own", "fex", "fer"), help="names of py-feat's table, or of fer (default: %(default)s)"
    )
    group.add_argument("--draw", metavar="DIR", help="write annotated photos and videos here")
    group.add_argument(
        "--summary", metavar="DIR", help="with --track: write for each video the seconds of each expression, and plots"
    )
    group.add_argument("--show", action="store_true", help="with --camera: a live window, which drops late frames")
    group.add_argument("--explain", metavar="DIR", help="write for each face its crops, votes and activation map here")
    group.add_argument("--overwrite", action="store_true", help="replace results that are there already")
    group.add_argument("--ray", metavar="ADDRESS", help="use a Ray cluster: its address, auto, or local")
    command.set_defaults(**asdict(PredictOptions()))
    add_config_dir(command)
    return command


def predict(arguments: argparse.Namespace) -> None:
    """Run the command. Raises ValueError or OSError for arguments that do not fit."""
    if (arguments.camera is None) == (not arguments.paths):
        raise ValueError("give photos, videos or folders, or --camera N")
    if arguments.show and arguments.camera is None:
        raise ValueError("--show is for --camera")
    if arguments.camera is not None and arguments.ray is not None:
        raise ValueError("--camera and --ray exclude each other")

    from fer_voting.inference.frames import camera_name, camera_output, count_frames, find_inputs
    from fer_voting.inference.predictor import Predictor, predict_on_ray
    from fer_voting.inference.rows import RowWriter

    options = PredictOptions(**{name: getattr(arguments, name) for name in asdict(PredictOptions())})
    inputs, others = find_inputs(arguments.paths)
    if others:
        log.info("left out: %s of the folders", counted(others, "other file"))
    if arguments.camera is None and not inputs:
        raise ValueError(f"there is no photo or video in {', '.join(map(str, arguments.paths))}")
    names = [file.name for file in inputs] if arguments.camera is None else [camera_name(arguments.camera)]
    if not arguments.overwrite:
        outputs = [file.output for file in inputs] or [camera_output(arguments.camera)]
        refuse_to_replace(arguments.out, [options.draw, options.explain, options.summary], outputs)
    predictor = Predictor(options, names)
    describe(predictor)
    rows: Generator[list[Row]]
    if arguments.camera is not None:
        rows = predictor.camera(arguments.camera)
    elif arguments.ray is not None:
        rows = predict_on_ray(inputs, options, arguments.ray)
    else:
        rows = predictor.files(inputs)
    recognizer = predictor.recognizer
    writer = RowWriter(arguments.out, recognizer.class_names, options.columns, recognizer.number_names)
    start = time.monotonic()
    with contextlib.closing(rows):
        first = next(rows, [])  # errors of a camera or a cluster show here, before a file is replaced
        show = arguments.out is not None or not sys.stdout.isatty()
        total = count_frames(inputs, options.every) if inputs else None
        summary = Summary(arguments.out, predictor, start, show, total)
        try:
            with writer:
                for frame_rows in itertools.chain([first], rows):
                    writer.write(frame_rows)
                    summary.add(frame_rows)
        finally:
            summary.close()


_ADDED = (r"\.(png|mp4)$", r"-\d+\.png$", r"-\d{6}-\d+\.png$", r"-(seconds\.csv|person\d+\.png)$")
"""Ends of the names of drawings, explanations and summaries, behind the input's name."""


def refuse_to_replace(out: Path | None, folders: Sequence[str | None], outputs: Sequence[str]) -> None:
    """Raises ValueError that names a file if one is there under the name of a result.

    Args:
        out: of the rows.
        folders: of drawings and the like.
        outputs: names of the inputs below the folders (`Input.output`).
    """
    names = {*outputs}
    places = {(Path(folder), Path(name).parent) for folder in folders if folder is not None for name in names}
    found = [
        folder / parent / file
        for folder, parent in places
        if (folder / parent).is_dir()
        for file in os.listdir(folder / parent)
        if not names.isdisjoint(re.sub(added, "", str(parent / file)) for added in ("$", *_ADDED))
        and (folder / parent / file).is_file()
    ]
    if out is not None and out.is_file():
        found.append(out)
    if found:
        raise ValueError(f"{min(found)} is there already: choose another name or folder, or replace it by --overwrite")


class Summary:
    """Counts the rows: a progress bar while they come, one line at the end."""

    def __init__(
        self, out: Path | None, predictor: "Predictor", start: float, show: bool, total: int | None = None
    ) -> None:
        self._out, self._predictor = out, predictor
        self._statuses: Counter[str] = Counter()
        self._start = start
        self._bar = progress_bar(
            total=total, unit=" frames", disable=None if show else True
        )  # None: only at a terminal

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
            "%s, %s without one, %d unreadable%s in %s (%.1f faces/s%s)%s",
            counted(self._statuses["ok"], "face"),
            counted(self._statuses["no_face"], "frame"),
            self._statuses["unreadable"],
            f", {counted(lost, 'drawing')} not written" if (lost := self._statuses["not_written"]) else "",
            duration(time.monotonic() - self._start),
            self._rate(),
            f"; {shares}" if shares else "",
            f": {self._out}" if self._out is not None else "",
        )


def describe(predictor: "Predictor") -> None:
    """Log which device each stage runs on."""
    import cv2

    options, runtime = predictor.options, predictor.recognizer.runtime
    if options.aligned:
        log.info("faces: the images as they are")
    elif options.boxes is not None:
        log.info("faces: %s", options.boxes)
    else:
        name = getattr(predictor.recognizer.detector, "name", options.detector)
        log.info("detection: %s (%s)", name, processor(cv2.getNumThreads()))
    device = runtime.device
    if device == "cpu":
        device = f"{device} ({processor(runtime.threads)})"
    elif device.startswith("cuda") and runtime.library == "PyTorch":  # which is then installed
        import torch

        device = f"{device} ({torch.cuda.get_device_name(device)})"
    log.info(
        "recognition: %s, split %s, %s vote, %dx%d pixels, by %s on %s",
        ", ".join([*runtime.class_names, *runtime.number_names]),
        runtime.split,
        runtime.vote,
        runtime.image_size,
        runtime.image_size,
        runtime.library,
        device,
    )


class _Terminated(KeyboardInterrupt):
    """SIGTERM ends the command as Ctrl-C does: with complete files."""


def _terminate(*_: object) -> None:
    raise _Terminated


def main(arguments: list[str] | None = None) -> None:
    """The command; a mistake ends it with one line on stderr and exit code 1, Ctrl-C with code 130, SIGTERM
    with 143."""
    parsed = parser().parse_args(arguments)
    set_up_messages()
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        predict(parsed)
    except KeyboardInterrupt as error:
        log.info("interrupted")
        sys.exit(143 if isinstance(error, _Terminated) else 130)
    except BrokenPipeError:
        exit_without_reader()
    except (ValueError, OSError) as error:
        sys.exit(f"error: {escape(' '.join(str(error).split()))}")
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    main()
