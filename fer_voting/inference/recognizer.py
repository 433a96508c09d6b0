"""A trained network for use from Python: arrays of faces or frames in, expressions out.

Shapes: N faces, V crops a face, K classes, S x S pixels a face as the network takes it.
"""

import functools
import importlib
import importlib.util
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps
from numpy.typing import NDArray

from fer_voting import networks
from fer_voting.data.images import prepare_image, to_rgb
from fer_voting.inference.faces import Detector, cut_face, detector_name, find_faces, make_detector
from fer_voting.inference.frames import photo
from fer_voting.inference.options import PredictOptions

if TYPE_CHECKING:  # torch takes seconds to import
    from fer_voting.inference.runtime import Runtime


log = logging.getLogger("fer_voting.predict")

_MAKING = threading.Lock()
"""Held while a default detector is made: one is enough for all threads."""


Picture = NDArray[np.uint8] | PIL.Image.Image | str | Path
"""A face or frame: uint8 `[H, W, 3]` in RGB or `[H, W]` in grey, a PIL image, or the path of a photo. A PIL image and a
photo are taken as a viewer shows them."""


@dataclass(frozen=True, eq=False)
class Recognition:
    """Predictions for N faces."""

    class_names: tuple[str, ...]
    """K names."""
    probabilities: NDArray[np.float32]
    """`[N, K]`, the vote's; 0 to 1, a row sums to 1."""
    crop_logits: NDArray[np.float32]
    """`[N, V, K]`."""
    number_names: tuple[str, ...] = field(default=(), kw_only=True)
    """n names of numbers, such as valence, that the network predicts beside the classes or in their place (K = 0)."""
    numbers: NDArray[np.float32] | None = field(default=None, kw_only=True)
    """`[N, n]`, by the vote; None if n is 0. Those of valence and arousal are about -1 to 1."""

    def __len__(self) -> int:
        return len(self.probabilities)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them: `class_names`, and `faces`, one mapping a face; None where there is none."""
        return {"class_names": list(self.class_names), "faces": self._faces()}

    def _faces(self) -> list[dict[str, Any]]:
        columns = (self.classes, self.confidences.tolist(), self.probabilities.tolist(), self.agreement.tolist())
        faces = [
            {
                "class": name if self.class_names else None,
                "confidence": confidence if self.class_names else None,
                "probabilities": dict(zip(self.class_names, probabilities, strict=True)),
                "vote_agreement": agreement if self.class_names else None,
            }
            for name, confidence, probabilities, agreement in zip(*columns, strict=True)
        ]
        if self.numbers is None:
            return faces
        rows = zip(faces, self.numbers.tolist(), strict=True)
        return [face | {"numbers": dict(zip(self.number_names, row, strict=True))} for face, row in rows]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame`, one row a face, with the columns that `predict` writes, as far as they apply.

        Raises ModuleNotFoundError if pandas is not installed.
        """
        from fer_voting.inference.rows import face_columns, face_values

        if importlib.util.find_spec("pandas") is None:
            raise ModuleNotFoundError("to_pandas needs pandas: pip install pandas; to_dict does without")
        pandas = importlib.import_module("pandas")
        faces = self._faces()
        return pandas.DataFrame(
            [face_values(face) for face in faces],
            columns=face_columns(self.class_names, isinstance(self, DetectedFaces), self.number_names),
        )

    @property
    def class_ids(self) -> NDArray[np.int64]:
        """The vote's decision: positions in `class_names`, `[N]`; -1 without classes."""
        return self.probabilities.argmax(axis=1) if self.class_names else np.full(len(self), -1)

    @property
    def classes(self) -> list[str]:
        """The vote's decision: N names; empty ones without classes."""
        return [self.class_names[position] if self.class_names else "" for position in self.class_ids]

    @property
    def confidences(self) -> NDArray[np.float32]:
        """The decision's probability, `[N]`."""
        return self.probabilities.max(axis=1, initial=0)

    @property
    def crop_classes(self) -> NDArray[np.str_]:
        """Each crop's own decision: names `[N, V]`; empty ones without classes."""
        if not self.class_names:
            return np.full(self.crop_logits.shape[:2], "")
        return np.array(self.class_names)[self.crop_logits.argmax(axis=2)]

    @property
    def agreement(self) -> NDArray[np.float64]:
        """Share of the crops that decide as the vote does, `[N]`, 0 to 1; 0 without classes."""
        if not self.class_names:
            return np.zeros(len(self))
        return (self.crop_logits.argmax(axis=2) == self.class_ids[:, None]).mean(axis=1)


@dataclass(frozen=True, eq=False)
class Face:
    """One detected face."""

    box: tuple[float, float, float, float]
    """left, top, width, height in the frame's pixels"""
    angle: float
    """degrees by which the face is turned clockwise in the frame"""
    face_score: float
    class_name: str
    confidence: float
    agreement: float
    probabilities: dict[str, float]
    """of every class by its name; they sum to 1"""
    landmarks: NDArray[np.floating[Any]]
    """`[5, 2]`: x, y of the eyes, the tip of the nose and the corners of the mouth in the frame's pixels, each pair
    from left to right in the image; NaN if the detector gives none"""
    numbers: dict[str, float] = field(default_factory=dict)
    """such as valence and arousal by name, of a network that predicts them; its classes may then be none"""


@dataclass(frozen=True, eq=False)
class DetectedFaces(Recognition):
    """The faces of a frame; iterates over `Face`."""

    boxes: NDArray[np.floating[Any]]
    """`[N, 4]`: left, top, width, height in pixels, as the detector found them."""
    face_scores: NDArray[np.floating[Any]]
    """`[N]`, the detector's."""
    angles: NDArray[np.floating[Any]]
    """`[N]`: degrees by which the faces are turned clockwise in the frame; 0 without alignment."""
    landmarks: NDArray[np.floating[Any]]
    """`[N, 5, 2]`, as `Face.landmarks`."""

    @classmethod
    def at(cls, boxes: NDArray[np.floating[Any]], recognition: Recognition, rows: slice = slice(None)) -> Self:
        """Rows of a recognition as the faces of one frame. `boxes` `[N, FOUND]` as of `find_faces`."""
        return cls(
            recognition.class_names,
            recognition.probabilities[rows],
            recognition.crop_logits[rows],
            boxes[:, :4],
            boxes[:, 4],
            boxes[:, 5],
            boxes[:, 6:].reshape(-1, 5, 2),
            number_names=recognition.number_names,
            numbers=None if recognition.numbers is None else recognition.numbers[rows],
        )

    def _faces(self) -> list[dict[str, Any]]:
        columns = (self.boxes, self.angles, self.face_scores, self.landmarks)
        return [
            {
                "box": box.tolist(),
                "angle": float(angle),
                "face_score": None if np.isnan(score) else float(score),
                "landmarks": None if np.isnan(landmarks).any() else landmarks.tolist(),
                **values,
            }
            for box, angle, score, landmarks, values in zip(*columns, super()._faces(), strict=True)
        ]

    def __iter__(self) -> Iterator[Face]:
        classes, confidences, agreement = self.classes, self.confidences, self.agreement
        for i, box in enumerate(self.boxes):
            yield Face(
                tuple(box.tolist()),
                float(self.angles[i]),
                float(self.face_scores[i]),
                classes[i],
                float(confidences[i]),
                float(agreement[i]),
                dict(zip(self.class_names, self.probabilities[i].tolist(), strict=True)),
                self.landmarks[i],
                {} if self.numbers is None else dict(zip(self.number_names, self.numbers[i].tolist(), strict=True)),
            )


class Recognizer:
    """Expressions of faces; call it with faces, or `detect` faces in a frame.

        recognizer = Recognizer.from_run("fer2013-m3-seed0")
        recognizer(face).classes                  # ['happy']
        for face in recognizer.detect(frame): ...

    Args:
        runtime: the network.
        detector: maps a frame to `Boxes`, or the name of such a callable (`fer_voting.inference.faces`); None:
            CenterFace, when it is first needed.
        margin: a detected face is cut out as a square around its box's centre, whose side is 1 + `margin` times the
            box's longer side; black where it leaves the frame.
        align: turn a detected face upright by its landmarks. Of `margin` and `align`, None means as the network's file
            says (`FaceInput`); another value is logged as a warning.
        batch_size: faces at once.

    Threads may share one; pickled, it is loaded again from its source.

    `load` and the constructors named after a kind of network take these arguments, except `runtime`, as keywords.

    Raises ValueError for an argument out of range.
    """

    def __init__(
        self,
        runtime: "Runtime",
        detector: Detector | str | None = None,
        margin: float | None = None,
        batch_size: int = PredictOptions.batch_size,
        align: bool | None = None,
    ) -> None:
        options: dict[str, Any] = {"margin": margin, "align": align}
        given = {name: value for name, value in options.items() if value is not None}
        faces = replace(runtime.faces, **given)
        for name, value in given.items():
            if value != (own := getattr(runtime.faces, name)):
                log.warning("`%s` is %s, and the network was made for faces with %s", name, value, own)
        if batch_size < 1:
            raise ValueError(f"`batch_size` (={batch_size}) must be at least 1")
        self.runtime = runtime
        self.margin, self.align = faces.margin, faces.align
        self.batch_size = batch_size
        self._detector = make_detector(detector) if isinstance(detector, str) else detector
        if self._detector is not None:
            self._compare_detector(self._detector)
        self._reload: Callable[..., Recognizer] | None = None

    @classmethod
    def load(
        cls,
        source: str | Path | None = None,
        output_dir: str | Path = "outputs",
        *,
        vote: str | None = None,
        precision: str = "float32",
        device: str = "auto",
        runtime: str = "auto",
        threads: int | None = None,
        form: str = "full",
        **options: Any,
    ) -> Self:
        """The network of a run, a checkpoint, an exported folder, a name on the Hub or an ONNX file
        (`fer_voting.networks.find`); None: the one that ships with the package.

        Args:
            source, output_dir: as in `fer_voting.networks.load`.
            vote: of `fer_voting.votes.ALL_VOTES`; None: the run's or the export's own, for a checkpoint `soft`. An
                ONNX file has only its own.
            precision: `float32`; `bf16`: faster where the processor or GPU computes it; `int8`, of an ONNX file: faster
                where the processor multiplies 8 bits.
            device: `auto` (a GPU if there is one), `cpu`, `cuda`, …; an ONNX file runs on a GPU where ONNX Runtime's
                CUDA provider is installed.
            runtime: `auto`, `onnx`, `openvino` or `torch`, as in `fer_voting.networks.load`: the network that ships
                runs in ONNX Runtime on a processor, runs and checkpoints in PyTorch.
            threads: of a processor for one call, of the network and of OpenCV; None: all cores that the process may
                use. A number is set for the whole process in OpenCV and PyTorch.
            form: `full`; `adaptive`: crops only where the whole map is not certain; `whole`: the whole map decides
                (`fer_voting.votes.forms`).
            options: `detector`, `margin`, `batch_size`, `align`.

        Raises ValueError or FileNotFoundError for an argument that does not fit or a file that is not there, and
        ModuleNotFoundError for a network in PyTorch where that is not installed.
        """
        if threads is not None and threads < 1:
            raise ValueError(f"`threads` (={threads}) must be at least 1")
        words: dict[str, Any] = {
            "vote": vote,
            "precision": precision,
            "device": device,
            "runtime": runtime,
            "threads": threads,
            "form": form,
        }
        network = networks.load(source, output_dir, **words)
        if threads is not None:
            cv2.setNumThreads(threads)
        if isinstance(network, networks.OnnxNetwork):
            recognizer = cls(network, **options)
        else:
            from fer_voting.inference.runtime import TorchRuntime

            net, info, chosen = network.net, network.info, network.vote
            recognizer = cls(TorchRuntime(net, info, chosen, precision, device, threads), **options)
        recognizer._reload = functools.partial(cls.load, source, output_dir, **words, **options)
        return recognizer

    def __reduce__(self) -> Any:
        """Pickled by its source, which the other process reads again; as it is if it was not made by `load`."""
        return super().__reduce__() if self._reload is None else (self._reload, ())

    @classmethod
    def from_run(cls, run: str | Path, output_dir: str | Path = "outputs", **options: Any) -> Self:
        """`load` for a finished training: its folder, or its name below `<output_dir>/runs`."""
        return cls.load(run, output_dir, **options)

    @classmethod
    def from_checkpoint(cls, path: str | Path, **options: Any) -> Self:
        """`load` for a `.ckpt` file. Votes with fitted parameters need a run."""
        return cls.load(path, **options)

    @classmethod
    def from_pretrained(cls, model: str | Path, **options: Any) -> Self:
        """`load` for an exported folder or a name on the Hub; `fer_voting` is the network that ships."""
        return cls.load(model, **options)

    @classmethod
    def from_onnx(cls, path: str | Path, **options: Any) -> Self:
        """`load` for an exported ONNX file."""
        return cls.load(path, **options)

    @functools.cached_property
    def in_torch(self) -> "Recognizer":
        """This recogniser with its network in PyTorch, which `explain` needs.

        The network of an ONNX file stays as it is. Raises ModuleNotFoundError where PyTorch is not installed.
        """
        is_of_folder = isinstance(self.runtime, networks.OnnxNetwork) and self.runtime.is_of_folder
        if not is_of_folder or self._reload is None:
            return self
        return self._reload(runtime="torch", precision="float32")

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.runtime.class_names

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the numbers that the network predicts, such as valence."""
        return self.runtime.number_names

    @property
    def detector(self) -> Detector:
        """The detector in use. Raises ValueError if it is the default and its package is not installed."""
        with _MAKING:
            if self._detector is None:
                self._detector = make_detector()
                self._compare_detector(self._detector)
            return self._detector

    def _compare_detector(self, detector: Detector) -> None:
        """Log a warning if the network's file counts its margin from the boxes of another detector."""
        if (name := detector_name(detector)) != self.runtime.faces.detector:
            log.warning(
                "the detector is %s, and the network was made for boxes of %s: a `margin` of another size may suit it",
                name,
                self.runtime.faces.detector,
            )

    def find(self, frame: NDArray[np.uint8]) -> NDArray[np.float64]:
        """The faces of a frame (uint8 `[H, W, 3]`, RGB) as `find_faces` gives them, without `align` with angles of 0.

        Raises ValueError if there is no detector or it does not return `Boxes`.
        """
        faces = find_faces(self.detector, frame)
        if not self.align:
            faces[:, 5] = 0
        return faces

    def __call__(self, faces: Picture | Sequence[Picture]) -> Recognition:
        """The expressions of images that are faces already.

        Args:
            faces: one, or a list of them, or an array `[N, H, W, 3]`. They are resized as training resizes its images.

        Raises ValueError for what is no `Picture`, OSError for a file that cannot be read.
        """
        return self.classify(self._prepare_all(faces))

    def embed(self, faces: Picture | Sequence[Picture]) -> NDArray[np.float32]:
        """The inputs of the last layer for images that are faces already: float32 `[N, D]`.

        A face is the mean over its V crops, whatever the vote: the last layer of this mean is the soft vote's logits.

        Args:
            faces: as in the call.

        Raises ValueError as the call does, or if an exported file was made without (`export --embedding`).
        """
        prepared = self._prepare_all(faces)
        if not len(prepared):
            prepared = np.zeros((1, *prepared.shape[1:]), np.uint8)  # for D
        parts = [prepared[first : first + self.batch_size] for first in range(0, len(prepared), self.batch_size)]
        embeddings = np.concatenate([self.runtime.embed(part) for part in parts])
        return embeddings[: len(_each(faces))]

    def _prepare_all(self, faces: Picture | Sequence[Picture]) -> NDArray[np.uint8]:
        size = self.runtime.image_size
        prepared = [self.prepare(face) for face in _each(faces)]
        return np.stack(prepared) if prepared else np.zeros((0, size, size, 3), np.uint8)

    def prepare(self, face: Picture) -> NDArray[np.uint8]:
        """A face as the network takes it, uint8 `[S, S, 3]`. Raises ValueError as the call does."""
        return prepare_image(_image(face), self.runtime.image_size)

    @overload
    def detect(self, frames: Picture) -> DetectedFaces: ...  # type: ignore[overload-overlap] # a str is a Sequence
    @overload
    def detect(self, frames: Sequence[Picture]) -> list[DetectedFaces]: ...
    def detect(self, frames: Picture | Sequence[Picture]) -> DetectedFaces | list[DetectedFaces]:
        """The faces of a frame and their expressions; for a list of frames or an array `[N, H, W, 3]`, a list.

        The faces of all frames are recognised together. A box that lies outside of its frame is left out, with a
        warning.

        Raises ValueError for what is no `Picture`, or if there is no detector; OSError for a file that cannot be read.
        """
        size = self.runtime.image_size
        images: list[NDArray[np.uint8]] = []
        boxes_of_frames = []
        for frame in _each(frames):
            image = _image(frame).convert("RGB")
            boxes, kept = self.find(np.asarray(image)), []
            for position, box in enumerate(boxes):
                try:
                    images.append(cut_face(image, box, size, self.margin))
                    kept.append(position)
                except ValueError as error:
                    log.warning("a face is left out: %s", error)
            boxes_of_frames.append(boxes[kept])
        recognition = self.classify(np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8))
        ends = np.cumsum([len(boxes) for boxes in boxes_of_frames]).tolist()
        found = [
            DetectedFaces.at(boxes, recognition, slice(end - len(boxes), end))
            for boxes, end in zip(boxes_of_frames, ends, strict=True)
        ]
        return found[0] if _is_one(frames) else found

    def classify(self, faces: NDArray[np.uint8]) -> Recognition:
        """The expressions of faces as the network takes them: uint8 `[N, S, S, 3]`, RGB; N may be 0.

        Raises ValueError for other arrays.
        """
        batches = [
            self.runtime(faces[first : first + self.batch_size]) for first in range(0, len(faces), self.batch_size)
        ]
        classes, outputs = len(self.class_names), len(self.class_names) + len(self.number_names)
        if not batches:
            crops = 1 if self.runtime.split == "baseline" else 10
            batches = [(np.zeros((0, outputs), np.float32), np.zeros((0, crops, outputs), np.float32))]
        scores, logits = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        return Recognition(
            self.class_names,
            scores[:, :classes],
            logits[..., :classes],
            number_names=self.number_names,
            numbers=scores[:, classes:] if self.number_names else None,
        )


def _is_one(pictures: Any) -> bool:
    """Whether these are one picture."""
    return isinstance(pictures, str | Path | PIL.Image.Image) or (
        isinstance(pictures, np.ndarray) and pictures.ndim < 4
    )


def _each(pictures: Any) -> Sequence[Picture]:
    return [pictures] if _is_one(pictures) else pictures


def _image(face: Picture) -> PIL.Image.Image:
    if isinstance(face, str | Path):
        return PIL.Image.fromarray(photo(Path(face)))
    if isinstance(face, PIL.Image.Image):
        return to_rgb(PIL.ImageOps.exif_transpose(face))
    face = np.asarray(face)
    if face.dtype != np.uint8 or not (face.ndim == 2 or (face.ndim == 3 and face.shape[2] == 3)) or not face.size:
        raise ValueError(f"a face or frame must be uint8 [H, W, 3] or [H, W], not {face.dtype} {list(face.shape)}")
    return PIL.Image.fromarray(face)
