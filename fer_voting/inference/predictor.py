"""Prediction as a command or a worker runs it: options in, rows out."""

import importlib.util
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from fer_voting.inference.frames import Frame, Input, Unreadable, camera_frames, read_frames
from fer_voting.inference.pipeline import Locate, Pipeline, RecognizedFrame, read_boxes, rows_of, whole_frame
from fer_voting.inference.recognizer import MARGIN, Recognizer
from fer_voting.inference.rows import Row


@dataclass(frozen=True)
class Options:
    """What to do; `python -m fer_voting.predict --help` describes each."""

    run: str | None = None
    output_dir: str = "outputs"
    checkpoint: str | None = None
    model: str | None = None
    runtime: str = "onnx"
    vote: str | None = None
    precision: str = "float32"
    device: str = "auto"
    face_score: float = 0.35
    margin: float = MARGIN
    aligned: bool = False
    boxes: str | None = None
    batch_size: int = 64
    every: int = 1
    track: bool = False
    draw: str | None = None
    explain: str | None = None


def load_recognizer(options: Options) -> Recognizer:
    """The network that `options` name, or the one that ships with the package.

    Raises as `Recognizer`'s constructors do.
    """
    detector = None
    if not options.aligned and options.boxes is None:
        from fer_voting.inference.detector import CenterFaceDetector

        detector = CenterFaceDetector(options.face_score)
    return Recognizer.load(
        options.run or options.checkpoint or options.model,
        options.output_dir,
        vote=options.vote,
        precision=options.precision,
        device=options.device,
        runtime=options.runtime,
        detector=detector,
        margin=options.margin,
        batch_size=options.batch_size,
    )


def _require_av() -> None:
    if importlib.util.find_spec("av") is None:
        raise ValueError("videos need PyAV: pip install 'fer_voting[detect]'")


class Predictor:
    """Recognises inputs and writes what `options` ask for besides rows.

    Attributes:
        pipeline: counts frames, faces and seconds.

    Raises ValueError or FileNotFoundError for options that do not fit.
    """

    def __init__(self, options: Options) -> None:
        if options.every < 1:
            raise ValueError(f"`every` (={options.every}) must be at least 1")
        self.options = options
        self.recognizer = load_recognizer(options)
        if options.explain is not None:
            from fer_voting.inference.explain import explainable_network

            explainable_network(self.recognizer)
        locate: Locate | None = None
        if options.boxes is not None:
            locate = read_boxes(Path(options.boxes))
        elif options.aligned:
            locate = whole_frame
        self.pipeline = Pipeline(
            self.recognizer,
            locate,
            squares=not options.aligned,
            track=options.track,
            keep_pixels=options.draw is not None,
        )

    def files(self, inputs: Sequence[Input]) -> Generator[list[Row]]:
        """The rows of each frame of files, in order.

        Raises ValueError if an annotated copy would replace an input, or if there are videos and nothing to read them.
        """
        if any(one.kind == "video" for one in inputs):
            _require_av()
        if self.options.draw is not None:
            folder = Path(self.options.draw).resolve()
            for one in inputs:
                if (folder / one.output).resolve() == Path(one.name).resolve():
                    raise ValueError(f"`draw` (={self.options.draw!r}) would replace {one.name}: choose another folder")
        items = (item for one in inputs for item in read_frames(one, self.options.every))
        return self._rows(items, {one.name: one.output for one in inputs})

    def camera(self, source: str) -> Generator[list[Row]]:
        """The rows of each frame of a camera, until it ends. Raises ValueError if it cannot be opened."""
        if self.options.draw is not None:
            _require_av()
        self.pipeline.max_frames = 1
        name = "camera-" + "".join(char if char.isalnum() else "-" for char in source)
        return self._rows(camera_frames(source, self.options.every), {f"camera:{source}": name})

    def _rows(self, items: Iterable[Frame | Unreadable], outputs: Mapping[str, str]) -> Generator[list[Row]]:
        with ExitStack() as closing:
            drawings = None
            if self.options.draw is not None:
                from fer_voting.inference.draw import Drawings

                drawings = closing.enter_context(Drawings(Path(self.options.draw), outputs))
            for item in self.pipeline(items):
                if isinstance(item, RecognizedFrame):
                    if drawings is not None:
                        drawings.add(item)
                    if self.options.explain is not None:
                        self._explain(item, outputs[item.frame.input])
                yield rows_of(item)

    def _explain(self, item: RecognizedFrame, output: str) -> None:
        from fer_voting.inference.explain import draw_explanation, explain

        assert self.options.explain is not None
        frame = "" if item.frame.time_s is None else f"-{item.frame.index:06d}"
        for face_id, image in zip(item.face_ids, item.images, strict=True):
            path = Path(self.options.explain) / f"{output}{frame}-{face_id}.png"
            draw_explanation(path, explain(self.recognizer, image), Path(output).name)
