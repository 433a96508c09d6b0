"""Prediction as the command or a worker of Ray runs it: options and inputs in, rows out."""

import importlib.util
import json
import logging
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer_voting.data.formats import suffix_of
from fer_voting.inference.draw import Drawings, annotate
from fer_voting.inference.explain import draw_explanation, explain, explainable_network
from fer_voting.inference.faces import make_detector
from fer_voting.inference.frames import VIDEO_SUFFIXES, Frame, Input, Unreadable, camera_frames, read_frames
from fer_voting.inference.live import NewestFrames, Window
from fer_voting.inference.options import PredictOptions
from fer_voting.inference.pipeline import Locate, Pipeline, RecognizedFrame, whole_frame
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.rows import Row, not_written, read_boxes, rows_of
from fer_voting.inference.signals import Signals, Smoothing
from fer_voting.system.text import fitting


class Predictor:
    """Recognises the faces of inputs; writes the drawings and explanations that the options ask for.

    Args:
        options: those of the command.
        names: of all inputs; those of the options' boxes are matched with them.

    Attributes:
        pipeline: counts frames, faces and seconds.

    Raises ValueError or FileNotFoundError for options that do not fit.
    """

    def __init__(self, options: PredictOptions, names: Sequence[str] = ()) -> None:
        self.options = options
        needs_detector = not options.aligned and options.boxes is None
        self.recognizer = Recognizer.load(
            options.network,
            options.output_dir,
            vote=options.vote,
            form=options.form,
            precision=options.precision,
            device=options.device,
            runtime=options.runtime,
            threads=options.threads,
            detector=make_detector(options.detector, options.face_score, options.detect_size)
            if needs_detector
            else None,
            margin=options.margin,
            align=options.align,
            batch_size=options.batch_size,
        )
        if options.explain is not None:
            explainable_network(self.recognizer)
        locate: Locate | None = None
        if options.boxes is not None:
            locate = read_boxes(Path(options.boxes), names, self.recognizer.align)
        elif options.aligned:
            locate = whole_frame
        self.pipeline = Pipeline(
            self.recognizer,
            locate,
            squares=not options.aligned,
            track=options.track,
            keep_pixels=options.draw is not None or options.show,
        )
        self.smoothing = None if options.smooth is None else Smoothing(options.smooth, options.smooth_centred)
        if options.summary is not None and importlib.util.find_spec("matplotlib") is None:
            raise ValueError("--summary draws with matplotlib: pip install matplotlib")

    def files(self, inputs: Sequence[Input]) -> Generator[list[Row]]:
        """The rows of each frame of files, in order.

        Raises ValueError if an annotated copy would replace an input, or if there are videos and no PyAV to read them.
        """
        if any(suffix_of(file.name) in VIDEO_SUFFIXES for file in inputs):
            _require_av()
        if self.options.draw is not None:
            folder = Path(self.options.draw).resolve()
            for file in inputs:
                if (folder / file.output).resolve() == file.path.resolve():
                    raise ValueError(
                        f"`draw` (={self.options.draw!r}) would replace {file.name}: choose another folder"
                    )
        items = (item for file in inputs for item in read_frames(file, self.options.every))
        return self._rows(items)

    def camera(self, source: str) -> Generator[list[Row]]:
        """The rows of each frame of a camera, until it ends. Raises ValueError if it cannot be opened."""
        if self.options.draw is not None:
            _require_av()
        self.pipeline.max_frames = 1
        frames = camera_frames(source, self.options.every)
        return self._rows(NewestFrames(frames) if self.options.show else frames)

    def _rows(self, items: Iterable[Frame | Unreadable]) -> Generator[list[Row]]:
        with ExitStack() as closing:
            drawings = signals = window = None
            if self.options.show:
                window = Window("fer_voting")
                closing.callback(window.close)
            if self.options.summary is not None:
                signals = Signals(Path(self.options.summary), self.recognizer.class_names, self.recognizer.number_names)
                closing.callback(signals.close)
            if self.options.draw is not None:
                drawings = closing.enter_context(Drawings(Path(self.options.draw), self.options.track))
            recognized = self.pipeline(items)
            for item in recognized if self.smoothing is None else self.smoothing(recognized):
                rows = rows_of(item)
                if isinstance(item, RecognizedFrame):
                    try:
                        if signals is not None:
                            signals.add(item)
                        if drawings is not None:
                            with self.pipeline.timed("draw"):
                                drawings.add(item)
                        if self.options.explain is not None:
                            with self.pipeline.timed("explain"):
                                self._explain(item, Path(self.options.explain))
                    except Exception as error:  # of the disk, Pillow, PyAV: the other files go on
                        rows.append(not_written(item.frame, error))
                    if window is not None:
                        numbers = item.face_ids if self.options.track else None
                        window.show(annotate(item.frame.image, item.faces, numbers))
                yield rows
                if window is not None and window.is_closed:
                    return

    def _explain(self, item: RecognizedFrame, folder: Path) -> None:
        output = item.frame.output
        frame = "" if item.frame.time_s is None else f"-{item.frame.index:06d}"
        for face_id, image in zip(item.face_ids, item.images, strict=True):
            path = fitting(folder / f"{output}{frame}-{face_id}.png")
            draw_explanation(path, explain(self.recognizer, image), Path(output).name)


def _require_av() -> None:
    if importlib.util.find_spec("av") is None:
        raise ValueError("videos need PyAV: pip install 'fer_voting[detect]'")


# On many machines ---------------------------------------------------------------------------------------------------


class _Worker:
    """A predictor in a process of Ray, in the folder of the command: its paths may be relative."""

    def __init__(self, options: PredictOptions, names: Sequence[str], folder: str) -> None:
        os.chdir(folder)
        cv2.setNumThreads(1)  # a worker has one processor; Ray tells torch so, and OpenCV would take all
        self.predictor = Predictor(options, names)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for name, output in zip(batch["name"], batch["output"], strict=True):
            for rows in self.predictor.files([Input(str(name), str(output))]):
                yield {"row": np.array([json.dumps(row) for row in rows], dtype=object)}


def predict_on_ray(inputs: Sequence[Input], options: PredictOptions, address: str) -> Generator[list[Row]]:
    """The rows of files, in their order, as `Predictor.files` gives them, by the machines of a Ray cluster.

    Every machine must have this package and see the files under the same paths. A worker takes a processor, or a GPU
    if the cluster has some and `options.device` is not `cpu`. A file is read by one worker.

    Args:
        inputs: the files.
        options: as for `Predictor`; the workers write drawings and explanations.
        address: of a cluster; `auto`: the one of this machine; `local`: start one here for the duration.

    Raises ValueError if Ray is not installed, ConnectionError if there is no cluster.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(f"--ray needs Ray Data ({error}): pip install 'fer_voting[ray]'") from error
    if not inputs:
        return
    ray.init(
        address=None if address == "local" else address,
        include_dashboard=False if address == "local" else None,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if options.device != "cpu" else 0
        workers = min(gpus or int(resources.get("CPU", 1)), len(inputs))
        dataset = ray.data.from_items(
            [asdict(file) for file in inputs],
            override_num_blocks=min(len(inputs), 8 * workers),
        ).map_batches(
            _Worker,
            fn_constructor_args=(options, [file.name for file in inputs], os.getcwd()),
            batch_size=None,
            concurrency=workers,
            num_gpus=1 if gpus else None,
            num_cpus=None if gpus else 1,
        )
        for batch in dataset.iter_batches(batch_size=None):
            yield [json.loads(row) for row in batch["row"]]
    finally:
        ray.shutdown()
