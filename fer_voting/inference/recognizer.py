"""A trained network for use from Python: arrays of faces or frames in, expressions out.

Shapes: N faces, V crops a face, K classes, S x S pixels a face as the network takes it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from fer_voting.data.images import prepare_image

if TYPE_CHECKING:  # torch takes seconds to import
    from fer_voting.inference.detector import Detector
    from fer_voting.inference.runtime import Runtime

MARGIN = 0.05
"""FER2013's images are squares 1.05 times as high as CenterFace's box in them (median of 150)."""


@dataclass(frozen=True, eq=False)
class Recognition:
    """What a network says of N faces."""

    class_names: tuple[str, ...]
    """K names."""
    probabilities: NDArray[np.float32]
    """`[N, K]`, the vote's; 0 to 1, a row sums to 1."""
    crop_logits: NDArray[np.float32]
    """`[N, V, K]`."""

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def class_ids(self) -> NDArray[np.int64]:
        """The vote's decision: positions in `class_names`, `[N]`."""
        return self.probabilities.argmax(axis=1)

    @property
    def classes(self) -> list[str]:
        """The vote's decision: N names."""
        return [self.class_names[position] for position in self.class_ids]

    @property
    def confidences(self) -> NDArray[np.float32]:
        """The decision's probability, `[N]`."""
        return self.probabilities.max(axis=1, initial=0)

    @property
    def crop_classes(self) -> NDArray[np.str_]:
        """Each crop's own decision: names `[N, V]`."""
        return np.array(self.class_names)[self.crop_logits.argmax(axis=2)]

    @property
    def agreement(self) -> NDArray[np.float64]:
        """Share of the crops that decide as the vote does, `[N]`, 0 to 1."""
        return (self.crop_logits.argmax(axis=2) == self.class_ids[:, None]).mean(axis=1)


@dataclass(frozen=True)
class Face:
    """One detected face."""

    box: tuple[float, float, float, float]
    """left, top, width, height in the frame's pixels"""
    face_score: float
    class_name: str
    confidence: float
    agreement: float


@dataclass(frozen=True, eq=False)
class DetectedFaces(Recognition):
    """The faces of a frame; iterates over `Face`."""

    boxes: NDArray[np.floating[Any]]
    """`[N, 4]`: left, top, width, height in pixels, as the detector found them."""
    face_scores: NDArray[np.floating[Any]]
    """`[N]`, the detector's."""

    def __iter__(self) -> Iterator[Face]:
        columns = (self.boxes, self.face_scores, self.classes, self.confidences, self.agreement)
        for box, score, name, confidence, agreement in zip(*columns, strict=True):
            yield Face(tuple(box.tolist()), float(score), name, float(confidence), float(agreement))


class Recognizer:
    """Expressions of faces; call it with faces, or `detect` faces in a frame.

        recognizer = Recognizer.from_run("fer2013-m3-seed0")
        recognizer(face).classes                  # ['happy']
        for face in recognizer.detect(frame): ...

    Args:
        runtime: the network.
        detector: a callable of a frame that returns boxes with scores (`fer_voting.inference.detector`); None:
            CenterFace, when it is first needed.
        margin: a detected face is cut out as a square around its box's centre, whose side is 1 + `margin` times the
            box's longer side; as far as it lies in the frame.
        batch_size: faces at once.

    `load` and the constructors named after a kind of network take these arguments, except `runtime`, as keywords.

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self, runtime: "Runtime", detector: "Detector | None" = None, margin: float = MARGIN, batch_size: int = 64
    ) -> None:
        if not margin > -1:
            raise ValueError(f"`margin` (={margin}) must be greater than -1")
        if batch_size < 1:
            raise ValueError(f"`batch_size` (={batch_size}) must be at least 1")
        self.runtime = runtime
        self.margin = margin
        self.batch_size = batch_size
        self._detector = detector

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        output_dir: str | Path = "outputs",
        *,
        vote: str | None = None,
        precision: str = "float32",
        device: str = "auto",
        runtime: str = "onnx",
        **options: Any,
    ) -> Self:
        """The network of a run, a checkpoint, an exported folder, a name on the Hub or an ONNX file
        (`fer_voting.networks.find`); None: the one that ships with the package.

        Args:
            source, output_dir: as in `fer_voting.networks.load`.
            vote: of `fer_voting.votes.ALL_VOTES`; None: the run's or the export's own, for a checkpoint `soft`. An
                ONNX file has only its own.
            precision: `float32`, or `bf16`: faster where the processor or GPU computes it.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, …; an ONNX file runs on the processor.
            runtime: of an ONNX file, `onnx` or `openvino`.
            options: `detector`, `margin`, `batch_size`.

        Raises ValueError or FileNotFoundError for an argument that does not fit or a file that is not there.
        """
        from fer_voting import networks
        from fer_voting.inference.runtime import TorchRuntime

        network = networks.load(source, output_dir, vote, runtime=runtime, precision=precision)
        if isinstance(network, networks.OnnxNetwork):
            if device not in ("auto", "cpu"):
                raise ValueError(f"`device` (={device!r}) must be cpu for an .onnx file")
            return cls(network, **options)
        return cls(TorchRuntime(network.net, network.info, network.vote, precision, device), **options)

    @classmethod
    def from_run(
        cls, run: str | Path, output_dir: str | Path = "outputs", vote: str | None = None, **options: Any
    ) -> Self:
        """`load` for a finished training: its folder, or its name below `<output_dir>/runs`."""
        return cls.load(run, output_dir, vote=vote, **options)

    @classmethod
    def from_checkpoint(cls, path: str | Path, vote: str | None = None, **options: Any) -> Self:
        """`load` for a `.ckpt` file. Votes with fitted parameters need a run."""
        return cls.load(path, vote=vote, **options)

    @classmethod
    def from_pretrained(cls, model: str | Path, vote: str | None = None, **options: Any) -> Self:
        """`load` for an exported folder or a name on the Hub; `fer_voting` is the network that ships."""
        return cls.load(model, vote=vote, **options)

    @classmethod
    def from_onnx(cls, path: str | Path, runtime: str = "onnx", precision: str = "float32", **options: Any) -> Self:
        """`load` for an exported ONNX file."""
        return cls.load(path, runtime=runtime, precision=precision, **options)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.runtime.class_names

    @property
    def detector(self) -> "Detector":
        """The detector in use. Raises ValueError if it is the default and its package is not installed."""
        if self._detector is None:
            from fer_voting.inference.detector import CenterFaceDetector

            self._detector = CenterFaceDetector()
        return self._detector

    def __call__(self, faces: NDArray[np.uint8] | Sequence[NDArray[np.uint8]]) -> Recognition:
        """The expressions of images that are faces already.

        Args:
            faces: one, or a list of them, or an array `[N, H, W, 3]`; uint8, each `[H, W, 3]` in RGB or `[H, W]` in
                grey, of any size. They are resized as training resizes its images.

        Raises ValueError for another shape or dtype.
        """
        if isinstance(faces, np.ndarray) and faces.ndim < 4:
            faces = [faces]
        size = self.runtime.image_size
        prepared = [self.prepare(face) for face in faces]
        return self.classify(np.stack(prepared) if prepared else np.zeros((0, size, size, 3), np.uint8))

    def prepare(self, face: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A face as the network takes it, uint8 `[S, S, 3]`. Raises ValueError as the call does."""
        return prepare_image(_image(face), self.runtime.image_size)

    def detect(self, frame: NDArray[np.uint8]) -> DetectedFaces:
        """The faces of a frame and their expressions.

        Args:
            frame: uint8 `[H, W, 3]` in RGB, or `[H, W]` in grey.

        Raises ValueError for another shape or dtype, or if there is no detector.
        """
        image = _image(frame).convert("RGB")
        faces = np.asarray(self.detector(np.asarray(image))).reshape(-1, 5)
        squares = [face_square(box, self.margin, image.width, image.height) for box in faces]
        size = self.runtime.image_size
        prepared = [prepare_image(image.crop(square), size) for square in squares]
        found = self.classify(np.stack(prepared) if prepared else np.zeros((0, size, size, 3), np.uint8))
        return DetectedFaces(found.class_names, found.probabilities, found.crop_logits, faces[:, :4], faces[:, 4])

    def classify(self, faces: NDArray[np.uint8]) -> Recognition:
        """The expressions of faces as the network takes them: uint8 `[N, S, S, 3]`, RGB."""
        batches = [
            self.runtime(faces[first : first + self.batch_size]) for first in range(0, len(faces), self.batch_size)
        ]
        if not batches:
            crops, classes = 1 if self.runtime.split == "baseline" else 10, len(self.class_names)
            return Recognition(
                self.class_names, np.zeros((0, classes), np.float32), np.zeros((0, crops, classes), np.float32)
            )
        scores, logits = zip(*batches, strict=True)
        return Recognition(self.class_names, np.concatenate(scores), np.concatenate(logits))


def _image(face: NDArray[np.uint8]) -> PIL.Image.Image:
    face = np.asarray(face)
    if face.dtype != np.uint8 or not (face.ndim == 2 or (face.ndim == 3 and face.shape[2] == 3)) or not face.size:
        raise ValueError(f"a face or frame must be uint8 [H, W, 3] or [H, W], not {face.dtype} {list(face.shape)}")
    return PIL.Image.fromarray(face)


def face_square(
    box: Sequence[float] | NDArray[Any], margin: float, width: int, height: int
) -> tuple[int, int, int, int]:
    """The whole pixels (left, top, right, bottom) of a frame of `width` x `height` that are cut out for a face.

    Args:
        box: left, top, width, height; what follows is not looked at.
        margin: as `Recognizer` takes it.

    Raises ValueError if the box lies outside of the frame.

    >>> face_square((20, 10, 20, 40), 0.05, 640, 480)
    (9, 9, 51, 51)
    """
    box_left, box_top, box_width, box_height = (float(value) for value in box[:4])
    half = (1 + margin) * max(box_width, box_height) / 2
    x, y = box_left + box_width / 2, box_top + box_height / 2
    left, top = max(round(x - half), 0), max(round(y - half), 0)
    right, bottom = min(round(x + half), width), min(round(y + half), height)
    if not (box_width > 0 and box_height > 0 and left < right and top < bottom):
        shown = ", ".join(f"{value:g}" for value in (box_left, box_top, box_width, box_height))
        raise ValueError(f"the face box {shown} (left, top, width, height) lies outside of {width}x{height}")
    return left, top, right, bottom
