"""Networks exported as ONNX files: the metadata of such a file, and the two runtimes that compute it.

Shapes: B faces of S x S pixels, V crops a face, K classes. Neither runtime needs torch.
"""

import functools
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_voting.face_input import FaceInput, check_faces
from fer_voting.networks.exported import CONFIG_FILE, INT8_FILE, ONNX_FILE
from fer_voting.system.machine import usable_cores
from fer_voting.system.text import check_output_names
from fer_voting.votes import ALL_VOTES, FORMS, Forms, check_forms, soft_vote, vote_of_form

MOST_FACES = 8
"""Faces that one thread of `OnnxRuntime` computes at once: a larger batch is no faster."""
EXPORT_FORMAT = "1"
"""Raised when the metadata or the graph's inputs and outputs change."""

_FORMAT_KEY = "fer_voting"
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@dataclass(frozen=True)
class ExportInfo:
    """The metadata of an exported file, by name."""

    class_names: tuple[str, ...]
    """K names, in the order of the outputs."""
    image_size: int
    """S in pixels."""
    split: str
    vote: str
    dataset: str
    """Data set that the network was trained on."""
    checksum: str
    """SHA-256 of the weights (`fer_voting.networks.weights_checksum`)."""
    precision: str = "float32"
    fitted: Mapping[str, Any] = field(default_factory=dict)
    """The vote's parameters by name (`votes.Vote.to_values`), which are in the graph."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """Share of right decisions, 0 to 1: of the run by part (`val`, `test`); of an int8 file also `val_float32` and
    `val_int8` (or `test_…`), measured at export on the same images."""
    faces: FaceInput = field(default_factory=FaceInput)
    """How prediction cuts out the faces for the network; the graph turns them grey itself."""
    forms: Forms = field(default_factory=dict)
    """Parameters of the forms that the graph has besides `full`, by its input `form`."""
    number_names: tuple[str, ...] = ()
    """Names of the outputs that are numbers, such as valence (`models.checkpoint.NetworkInfo`)."""

    def to_metadata(self) -> dict[str, str]:
        """The metadata as ONNX stores it: text by name."""
        return {
            _FORMAT_KEY: EXPORT_FORMAT,
            "class_names": json.dumps(self.class_names),
            "number_names": json.dumps(self.number_names),
            "image_size": str(self.image_size),
            "split": self.split,
            "vote": self.vote,
            "dataset": self.dataset,
            "checksum": self.checksum,
            "precision": self.precision,
            "faces": json.dumps(self.faces.to_values()),
            "forms": json.dumps(dict(self.forms)),
            **{name: json.dumps(value) for name, value in self.fitted.items()},
            "accuracy": json.dumps(dict(self.accuracy)),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: Path) -> "ExportInfo":
        """The inverse of `to_metadata`. Raises ValueError that names `path` if it is no export of this project."""
        stored = metadata.get(_FORMAT_KEY)
        if stored != EXPORT_FORMAT:
            reason = (
                "it lacks fer_voting's metadata" if stored is None else f"its format is {stored}, not {EXPORT_FORMAT}"
            )
            raise ValueError(f"{path} is not a network exported by `python -m fer_voting.export`: {reason}")
        try:
            class_names = json.loads(metadata["class_names"])
            number_names = json.loads(metadata.get("number_names", "[]"))
            check_output_names(class_names, number_names)
            vote = ALL_VOTES.get(metadata["vote"])  # another needs no class here, because the graph computes it
            fitted = {name: json.loads(metadata[name]) for name in vote.parameters if name in metadata} if vote else {}
            info = cls(
                class_names=tuple(class_names),
                number_names=tuple(number_names),
                image_size=int(metadata["image_size"]),
                split=metadata["split"],
                vote=metadata["vote"],
                dataset=metadata["dataset"],
                checksum=metadata["checksum"],
                precision=metadata["precision"],
                faces=FaceInput.from_values(json.loads(metadata.get("faces", "{}"))),
                fitted=vote.from_values(fitted).require_fitted().to_values() if vote else {},
                accuracy=dict(json.loads(metadata["accuracy"])),
                forms=check_forms(json.loads(metadata.get("forms", "{}"))),
            )
            if not 1 <= info.image_size <= 4096:
                raise ValueError(f"`image_size` (={info.image_size}) must be 1 to 4096")
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: its metadata is damaged ({type(error).__name__}: {error})") from error
        return info


class OnnxNetwork(ABC):
    """A network exported as an ONNX file, ready to run: a `fer_voting.inference.runtime.Runtime` on the CPU."""

    device = "cpu"
    library: str

    def __init__(self, path: Path, info: ExportInfo, threads: int, form: str = "full") -> None:
        self.path = path
        self.threads = threads
        self.info = info
        self.form = form
        self.class_names, self.number_names = info.class_names, info.number_names
        self.image_size = info.image_size
        self.split = info.split
        self.faces = info.faces
        self.vote = info.vote
        self.fitted = info.fitted
        self._form_input: NDArray[np.float32] | None = None  # None: as the graph has it
        is_own = form == "full" or (form in FORMS and form == info.vote)  # a file of one form has it for its vote
        if not is_own:
            vote = vote_of_form(form, soft_vote, info.forms, info.split != "baseline")
            if vote.needs_full_map:
                self.vote, self.fitted = vote.name, vote.to_values()
                self._form_input = np.array([self.fitted["threshold"], vote.temperature], np.float32)
        self.precision = info.precision

    @property
    def is_of_folder(self) -> bool:
        """Whether it is the ONNX file of a shared folder, which has the weights for PyTorch too."""
        return self.path.name in (ONNX_FILE, INT8_FILE) and (self.path.parent / CONFIG_FILE).is_file()

    @abstractmethod
    def __call__(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Scores `[B, K]` and crop logits `[B, V, K]` of faces uint8 `[B, S, S, 3]`, RGB, B >= 1.

        Of a network with n numbers `[B, K + n]` and `[B, V, K + n]`, the classes first.
        """

    def embed(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The input of the last layer, mean over the crops: `[B, D]` of B >= 1 faces.

        Raises ValueError if the file was exported without.
        """
        if not self._has_embeddings():
            raise ValueError(f"{self.path} holds no embeddings: export the network again, with --embedding")
        return self._embeddings(check_faces(faces, self.image_size))

    @abstractmethod
    def _has_embeddings(self) -> bool: ...

    @abstractmethod
    def _embeddings(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]: ...

    def _probe(self) -> None:
        """Raises ValueError if the graph does not compute what the metadata says."""
        size, classes = self.image_size, len(self.class_names) + len(self.number_names)
        try:
            scores, logits = self(np.zeros((1, size, size, 3), np.uint8))
        except Exception as error:  # the packages have exception classes of their own
            raise ValueError(f"{self.path} cannot be run on a face of {size} pixels: {_cause(error)}") from error
        if scores.shape != (1, classes) or logits.ndim != 3 or logits.shape[::2] != (1, classes):
            raise ValueError(
                f"{self.path} gives scores {list(scores.shape)} and crop logits {list(logits.shape)} of a face; its "
                f"metadata has {classes} {'outputs' if self.number_names else 'classes'}"
            )


def providers(device: str, available: Sequence[str]) -> list[str | tuple[str, dict[str, str]]]:
    """The execution providers of ONNX Runtime for a device, the preferred one first.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        available: the providers that are installed.

    Raises ValueError for another device, or a GPU without its provider.
    """
    kind, _, number = device.partition(":")
    has_cuda = _CUDA in available
    if kind not in ("auto", "cpu", "cuda") or (number and not (kind == "cuda" and number.isdigit())):
        raise ValueError(f"`device` (={device!r}) must be auto, cpu, cuda or cuda:N in ONNX Runtime")
    if kind == "cuda" and not has_cuda:
        raise ValueError(f"`device` (={device!r}) needs ONNX Runtime's CUDA provider: pip install onnxruntime-gpu")
    gpu = [(_CUDA, {"device_id": number or "0"})] if has_cuda and kind != "cpu" else []
    return [*gpu, _CPU]


def _device_of(used: Sequence[str], wanted: Sequence[Any]) -> str:
    """The device of a session: the CUDA provider drops out, with a message of its own, where the driver fails it."""
    return f"cuda:{wanted[0][1]['device_id']}" if _CUDA in used else "cpu"


class OnnxRuntime(OnnxNetwork):
    """An ONNX file in ONNX Runtime.

    The threads of a call compute different faces, and none waits for another before its own are done. Threads that
    share a face would wait for each other after each layer: on a busy machine, where one of them has no core, that
    makes two threads slower than one.

    Args:
        path: file that `python -m fer_voting.export --to onnx` wrote.
        threads: of one call; None: as many as this process has cores.
        form: of `fer_voting.votes.FORMS`.
        device: `cpu`; `cuda`, a GPU by ONNX Runtime's CUDA provider; `auto`: a GPU where that is installed.

    Raises FileNotFoundError, or ValueError if the file is not such an export, lacks the form, or the package or its
    provider is not installed.
    """

    library = "ONNX Runtime"

    def __init__(self, path: Path | str, threads: int | None = None, form: str = "full", device: str = "auto") -> None:
        path = _existing(path)
        try:
            import onnxruntime
        except ImportError as error:
            raise ValueError("ONNX Runtime is not installed: pip install onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3  # errors; they also are raised
        wanted = providers(device, onnxruntime.get_available_providers())
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=wanted)
        except Exception as error:  # the package has an exception class for each kind of damage
            raise ValueError(f"{path} cannot be read as an ONNX file: {_cause(error)}") from error
        super().__init__(
            path,
            ExportInfo.from_metadata(session.get_modelmeta().custom_metadata_map, path),
            _checked_threads(threads),
            form,
        )
        self._device = device
        self.device = _device_of(session.get_providers(), wanted)
        self._session, self._pid = session, os.getpid()
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        self._probe()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.threads, self.form, self._device)

    def __call__(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        _check_process(self._pid)
        faces = check_faces(faces, self.image_size)
        on_gpu = self.device != "cpu"  # one call computes them all side by side
        share = len(faces) if on_gpu else min(MOST_FACES, math.ceil(len(faces) / self.threads))
        parts = [faces[first : first + share] for first in range(0, len(faces), share)]
        run_all = map if self._pool is None or len(parts) == 1 else self._pool.map
        scores, logits = zip(*run_all(self._run, parts), strict=True)
        return np.concatenate(scores), np.concatenate(logits)

    def _run(self, faces: NDArray[np.uint8]) -> Any:
        form = {} if self._form_input is None else {"form": self._form_input}
        return self._session.run(["scores", "crop_logits"], {"faces": faces, **form})

    def _has_embeddings(self) -> bool:
        return "embeddings" in [output.name for output in self._session.get_outputs()]

    def _embeddings(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        _check_process(self._pid)
        return self._session.run(["embeddings"], {"faces": faces})[0]


@functools.cache
def _openvino_core() -> Any:
    """OpenVINO's `Core`, which stays for as long as the process.

    It gives the thread that compiles the first network a stack for signals. Where the last core and network end in
    another thread, the stack is freed and stays set: the next signal, Ctrl-C too, ends the process (OpenVINO 2026.4).
    """
    from openvino import Core

    return Core()


class OpenVinoRuntime(OnnxNetwork):
    """An ONNX file in OpenVINO.

    Args:
        path: file that `python -m fer_voting.export --to onnx` wrote.
        threads: of one call; None: as many as this process has cores.
        precision: of what the file has in float32: `float32`, or `bf16` (faster where the processor has it).

    Raises FileNotFoundError, or ValueError if the file is not such an export or the package is not installed.
    """

    library = "OpenVINO"

    def __init__(self, path: Path | str, threads: int | None = None, precision: str = "float32") -> None:
        path = _existing(path)
        hints = {"float32": "f32", "bf16": "bf16"}
        if precision not in hints:
            raise ValueError(f"`precision` (={precision!r}) must be {' or '.join(hints)}")
        try:
            from openvino.frontend import FrontEndManager
        except ImportError as error:
            raise ValueError("OpenVINO is not installed: pip install 'fer_voting[openvino]'") from error
        try:
            # Only its reader of ONNX: `Core.read_model` tries the readers of six other formats on an untrusted file.
            reader = FrontEndManager().load_by_framework("onnx")
            model = reader.convert(reader.load(str(path)))
        except Exception as error:
            raise ValueError(f"{path} cannot be read as an ONNX file: {_cause(error)}") from error
        entries = model.get_rt_info()
        metadata = (
            {key: str(entry.value) for key, entry in entries["framework"].items()} if "framework" in entries else {}
        )
        super().__init__(path, ExportInfo.from_metadata(metadata, path), _checked_threads(threads))
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hints[precision],
            "INFERENCE_NUM_THREADS": self.threads,
        }
        self._compiled = _openvino_core().compile_model(model, "CPU", settings)
        self._pid, self._hint = os.getpid(), precision
        self._probe()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.threads, self._hint)

    def __call__(self, faces: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        _check_process(self._pid)
        outputs = self._compiled.infer_new_request([check_faces(faces, self.image_size)])
        return outputs["scores"], outputs["crop_logits"]

    def _has_embeddings(self) -> bool:
        return any("embeddings" in output.names for output in self._compiled.outputs)

    def _embeddings(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        _check_process(self._pid)
        return self._compiled.infer_new_request([faces])["embeddings"]


def open_onnx(
    path: Path | str,
    runtime: str = "onnx",
    precision: str = "float32",
    threads: int | None = None,
    form: str = "full",
    device: str = "auto",
) -> OnnxNetwork:
    """Open an exported file.

    Args:
        runtime: `onnx` (ONNX Runtime) or `openvino`.
        precision: of what the file has in float32; `bf16` needs OpenVINO. `int8`: the file must be of int8.
        threads: of one call; None: as many as this process has cores.
        form: of `fer_voting.votes.FORMS`; those but `full` need ONNX Runtime.
        device: as in `OnnxRuntime`; OpenVINO has the processor only.

    Raises FileNotFoundError, or ValueError if an argument does not fit or the file is not such an export.
    """
    network: OnnxNetwork
    if runtime == "openvino":
        if form != "full":
            raise ValueError(f"`form` (={form!r}) must be full in OpenVINO; ONNX Runtime has the others")
        if device not in ("auto", "cpu"):
            raise ValueError(f"`device` (={device!r}) must be cpu in OpenVINO")
        network = OpenVinoRuntime(path, threads, "float32" if precision == "int8" else precision)
    elif runtime != "onnx":
        raise ValueError(f"`runtime` (={runtime!r}) must be onnx or openvino")
    elif precision not in ("float32", "int8"):
        raise ValueError(f"`precision` (={precision!r}) must be float32 or int8 in ONNX Runtime; openvino has bf16")
    else:
        network = OnnxRuntime(path, threads, form, device)
    if precision == "int8" and network.precision != "int8":
        raise ValueError(f"`precision` (='int8'): {path} is of {network.precision}: export it with --precision int8")
    return network


def _checked_threads(threads: int | None) -> int:
    if threads is not None and threads < 1:
        raise ValueError(f"`threads` (={threads}) must be at least 1")
    return threads or usable_cores()


def _existing(path: Path | str) -> Path:
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    return path


def _check_process(pid: int) -> None:
    """Raises RuntimeError in a forked child, which lacks the threads of the process that opened the network."""
    if os.getpid() != pid:
        raise RuntimeError(
            "a network in ONNX Runtime or OpenVINO does not work in a forked child of the process that opened it: open "
            "it in the child, or start processes by spawn"
        )


def _cause(error: Exception) -> str:
    """The last line of a message: OpenVINO opens with where in its sources it stopped."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
