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
from fer_voting.votes import UNFITTED, Fitted

if TYPE_CHECKING:  # torch takes seconds to import
    from fer_voting.inference.detector import Detector
    from fer_voting.inference.network import Runtime

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

    The constructors below also take, as keywords, the arguments above but `runtime`, and

    - `vote`: of `fer_voting.votes.ALL_VOTES`; None, the default: the run's or the exported folder's own, else `soft`;
    - `precision`: `float32`, or `bf16`, faster where the processor or GPU has it;
    - `device`: `auto` (a GPU where there is one), `cpu`, `cuda`, …

    and raise ValueError or FileNotFoundError for an argument that does not fit or a file that is not there.
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
    def from_run(
        cls, run: str | Path, output_dir: str | Path = "outputs", vote: str | None = None, **options: Any
    ) -> Self:
        """The best network by `vote` of a finished training: its folder, or its name below `<output_dir>/runs`.

        Without a `vote`, the one that the training was configured for; with what it took from the run's validation
        images.
        """
        from fer_voting.inference.trained import find_run, load_trained

        trained = load_trained(find_run(run, Path(output_dir)), vote)
        return cls._from_network(trained.net, trained.info, trained.vote, trained.fitted, **options)

    @classmethod
    def from_checkpoint(
        cls, path: str | Path, vote: str | None = None, temperature: float = 1.0, **options: Any
    ) -> Self:
        """The network of a `.ckpt` file that training wrote; nothing in the file is run as code.

        `temperature` divides scores that are logits; 1: as trained. Votes that need more from validation images need
        a run.
        """
        from fer_voting.inference.network import load_network

        net, info = load_network(Path(path))
        return cls._from_network(net, info, vote or "soft", Fitted(temperature), **options)

    @classmethod
    def from_pretrained(cls, model: str | Path, vote: str | None = None, **options: Any) -> Self:
        """The network of a folder with `model.safetensors` and `config.json`, or of a name on the Hugging Face Hub;
        `fer_voting` is the one that ships with the package.

        Its `config.json` names the vote, if `vote` does not, and what that vote took from validation images.
        """
        from fer_voting.inference.pretrained import PretrainedNetwork

        found = PretrainedNetwork.from_pretrained(model)
        fitted = found.fitted if vote in (None, found.vote) else UNFITTED
        return cls._from_network(found.net, found.info, vote or found.vote, fitted, **options)

    @classmethod
    def from_onnx(cls, path: str | Path, runtime: str = "onnx", precision: str = "float32", **options: Any) -> Self:
        """The network of an exported file, by ONNX Runtime or `openvino`, on the processor.

        The vote is the file's own. `precision` is that of what the file has in float32; `bf16` is OpenVINO's alone.
        """
        from fer_voting.inference.runtimes import OnnxRuntime, OpenVinoRuntime

        path = Path(path)
        if runtime == "openvino":
            return cls(OpenVinoRuntime(path, precision=precision), **options)
        if runtime != "onnx":
            raise ValueError(f"`runtime` (={runtime!r}) must be onnx or openvino")
        if precision != "float32":
            raise ValueError(f"`precision` (={precision!r}) must be float32 in ONNX Runtime; openvino has bf16")
        return cls(OnnxRuntime(path), **options)

    @classmethod
    def _from_network(
        cls,
        net: Any,
        info: Any,
        vote: str,
        fitted: Fitted,
        precision: str = "float32",
        device: str = "auto",
        **options: Any,
    ) -> Self:
        from fer_voting.inference.network import TorchRuntime

        return cls(TorchRuntime(net, info, vote, precision, device, fitted), **options)

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
