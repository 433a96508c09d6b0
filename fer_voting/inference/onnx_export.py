"""A trained network as one ONNX file, in float32 or int8, compared with PyTorch before it is kept.

Shapes: B faces of S x S pixels, V crops a face, K classes.
"""

import contextlib
import importlib.util
import io
import logging
import math
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fer_voting.inference.runtime import FaceNetwork, FormsNetwork
from fer_voting.networks.onnx import ExportInfo, OnnxRuntime
from fer_voting.system.atomic import draft_of

if TYPE_CHECKING:
    import onnx

MAX_DIFFERENCE = 1e-5
"""Largest difference of a float32 file from PyTorch: in scores, and in crop logits relative to the largest."""
OPSET = 20
"""Fixed, so that the same command writes the same operators whatever torch is installed. ONNX Runtime has it from 1.17
on."""
FEWEST_HALVED = 1024
"""Weights of one tensor that are worth a node of their own."""
BATCH = 32
"""Faces at once in calibration and in measuring accuracy."""

_MISSING = (
    "the ONNX export needs more packages: pip install 'fer_voting[export]', in a checkout pip install -e '.[export]'"
)


def export_float32(network: FaceNetwork, info: ExportInfo, path: Path) -> float:
    """Write `network` to `path` and return its largest difference from PyTorch (see `parity`).

    The graph maps `faces` uint8 `[B, S, S, 3]` to `scores` `[B, K]` and `crop_logits` `[B, V, K]`, float32, for any B,
    and to `embeddings` `[B, D]` if the network returns them; `info` is its metadata. The graph of a `FormsNetwork` also
    takes `form`, float32 `[2]`, which may be left out: the form `full`. Weights that half precision holds exactly, as
    those of a folder in float16, are stored in it, and the graph makes them float32 again.

    Raises ValueError if the packages are missing, or if the file differs from PyTorch by more than `MAX_DIFFERENCE`;
    then there is no file.
    """
    require_packages()
    model = _trace(network.eval(), info.image_size)
    _halve(model)
    _describe(model, info)
    with draft_of(path) as draft:
        draft.write_bytes(model.SerializeToString())
        networks = {"full": network} | {form: network.in_form(form, info.forms) for form in ("full", *info.forms)}
        difference = max(parity(own, OnnxRuntime(draft, form=form)) for form, own in networks.items())
        if not difference <= MAX_DIFFERENCE:
            raise ValueError(
                f"the exported network differs from PyTorch by {difference:.1e}, more than {MAX_DIFFERENCE:g}"
            )
    return difference


def export_int8(
    float32: Path,
    path: Path,
    calibration: NDArray[np.uint8],
    faces: NDArray[np.uint8],
    labels: NDArray[np.int64],
    part: str = "val",
) -> tuple[float, float]:
    """Quantise the file `float32` into `path`: weights to 8 bits by channel, feature maps to 8 bits by their range.

    Returns the accuracy of `float32` and of the new file on the same faces: shares of right decisions, 0 to 1.

    Args:
        float32: file that `export_float32` wrote.
        calibration: `[N, S, S, 3]`, real faces that training saw; a few hundred. Their maps' ranges become the scales.
        faces, labels: `[M, S, S, 3]` and their classes `[M]`, to measure the accuracy of both files on.
        part: of the data set that they are; names the two figures in the new file's metadata.

    Raises ValueError if the packages are missing or an array is empty.
    """
    require_packages()
    import onnx

    for name, array in {"calibration": calibration, "faces": faces}.items():
        if not len(array):
            raise ValueError(f"`{name}` must hold at least one face")
    with draft_of(path) as draft:
        _quantise(float32, draft, calibration)
        exact, rounded = OnnxRuntime(float32), OnnxRuntime(draft)
        accuracies = _accuracy(exact, faces, labels), _accuracy(rounded, faces, labels)
        measured = dict(zip((f"{part}_float32", f"{part}_int8"), accuracies, strict=True))
        info = replace(exact.info, precision="int8", accuracy={**exact.info.accuracy, **measured})
        model = onnx.load(draft)
        _describe(model, info)
        draft.write_bytes(model.SerializeToString())
    return accuracies


def parity(network: FaceNetwork, runtime: OnnxRuntime) -> float:
    """Largest difference of a runtime from PyTorch on noise: in scores, and in crop logits relative to the largest.

    Two batch sizes are tried, to notice a batch size that was fixed by mistake.

    A vote that is not continuous jumps where two classes of a crop are equal to rounding; such faces count only by
    their logits.
    """
    generator = np.random.default_rng(0)
    size = runtime.image_size
    worst = 0.0
    for batch in (1, 5):
        faces = generator.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
        scores, logits = runtime(faces)
        with torch.inference_mode():
            own_scores, own_logits, *rest = (tensor.cpu().numpy() for tensor in network(torch.from_numpy(faces)))
        if scores.shape != own_scores.shape or logits.shape != own_logits.shape:
            return float("inf")
        worst = max(worst, float(np.abs(logits - own_logits).max() / max(1.0, np.abs(own_logits).max())))
        for own in rest:
            worst = max(worst, float(np.abs(runtime.embed(faces) - own).max() / max(1.0, np.abs(own).max())))
        top = np.sort(own_logits[..., : own_logits.shape[2] - network.numbers], axis=2)
        is_continuous = network.vote.is_continuous or not top.shape[2]  # as the median of numbers is
        clear = np.ones(batch, bool) if is_continuous else (top[..., -1] - top[..., -2] > 1e-3).all(axis=1)
        worst = max(worst, float(np.abs(scores - own_scores)[clear].max(initial=0.0)))
    return worst


def require_packages() -> None:
    """Raises ValueError that names the extra if the export's packages are missing."""
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript")):
        raise ValueError(_MISSING)


def _trace(network: FaceNetwork, size: int) -> "onnx.ModelProto":
    import onnx

    # From a batch of one, the exporter would make a network for batches of one.
    faces = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    form = (network.full,) if isinstance(network, FormsNetwork) else ()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # the exporter's own
        program = torch.onnx.export(
            network,
            (faces, *form),
            input_names=["faces"] + ["form"] * len(form),
            output_names=["scores", "crop_logits"] + ["embeddings"] * (network.embed_before is not None),
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC}, *({} for _ in form)),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    for values in form:  # the default of an input is an initializer of its name
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.numpy(), "form"))
    return model


def _halve(model: "onnx.ModelProto") -> None:
    """Store the weights that float16 holds exactly in half the bytes. A runtime widens them once, when it opens the
    file, and computes the same."""
    import onnx
    from onnx import numpy_helper

    casts = []
    for weights in model.graph.initializer:
        if weights.data_type != onnx.TensorProto.FLOAT or math.prod(weights.dims) < FEWEST_HALVED:
            continue
        values = numpy_helper.to_array(weights)
        with np.errstate(over="ignore"):
            halves = values.astype(np.float16)
        if np.array_equal(halves, values):
            name = weights.name
            weights.CopyFrom(numpy_helper.from_array(halves, f"{name}_half"))
            casts.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _describe(model: "onnx.ModelProto", info: ExportInfo) -> None:
    """Replace the exporter's metadata, which holds stack traces with the paths of this machine, by `info`.

    The file's IR version becomes the lowest that its operators need: a runtime refuses a file of a later one.
    """
    import onnx

    graph = model.graph
    graph.ClearField("metadata_props")
    for entry in (*graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        entry.ClearField("metadata_props")
        entry.doc_string = ""
    # Keep the shapes of the maps: without them, ONNX Runtime before 1.32 fails where the adaptive vote takes no crops.
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = dim.dim_param.replace(batch, "batch")
    # All operators are of the standard set. The quantiser also imports others, which ask for a later IR version.
    standard = [opset for opset in model.opset_import if not opset.domain]
    del model.opset_import[:]
    model.opset_import.extend(standard)
    model.ir_version = onnx.helper.find_min_ir_version_for(standard)
    model.producer_name = "fer_voting"
    onnx.helper.set_model_props(model, info.to_metadata())


def _quantise(source: Path, target: Path, calibration: NDArray[np.uint8]) -> None:
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Faces(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(range(0, len(calibration), BATCH))

        def get_next(self) -> dict[str, Any] | None:
            first = next(self.batches, None)
            return None if first is None else {"faces": calibration[first : first + BATCH], **form}

    with tempfile.TemporaryDirectory() as folder, _quiet_root_logger():
        model, prepared = onnx.load(source), Path(folder) / "prepared.onnx"
        # The input of a file of all forms: the quantiser takes its default for a constant. Both the full maps and the
        # crops are calibrated, so the threshold is just below 1.
        default = next((each for each in model.graph.initializer if each.name == "form"), None)
        form = {} if default is None else {"form": np.array([1 - 2**-20, 1], np.float32)}
        if default is not None:
            model.graph.initializer.remove(default)
        onnx.save(model, prepared)
        quant_pre_process(prepared, prepared, skip_symbolic_shape=True)
        decisions = _nodes_of_decisions(onnx.load(prepared))
        with np.errstate(invalid="ignore"):  # it also computes the scales of excluded nodes, where -inf gives none
            quantize_static(
                prepared,
                target,
                Faces(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=decisions,
            )
        model = onnx.load(target)
        _share_equal(model)
        if default is not None:
            model.graph.initializer.append(default)
        onnx.save(model, target)


def _nodes_of_decisions(model: "onnx.ModelProto") -> list[str]:
    """Names of the nodes whose floats reach no layer with weights: the vote, the scores, the choice of images whose
    crops are computed. 8 bits would round their probabilities and thresholds, and cannot hold -inf."""
    import onnx

    layers, floats = {"Conv", "Gemm", "MatMul"}, {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    values = [*model.graph.value_info, *model.graph.input]
    others = {value.name for value in values if value.type.tensor_type.elem_type not in floats}
    names, reach = [], set[str]()
    for node in reversed(model.graph.node):  # a node stands behind those that it reads
        if node.op_type in layers or not reach.isdisjoint(node.output):
            reach.update({*node.input} - others)
        else:
            names.append(node.name)
    return names


def _share_equal(model: "onnx.ModelProto") -> None:
    """Store equal weights once: the quantiser copies those that both the full map and the crops use."""
    first: dict[bytes, str] = {}
    names = {}
    for weights in model.graph.initializer:
        nameless = type(weights)()
        nameless.CopyFrom(weights)
        nameless.ClearField("name")
        names[weights.name] = first.setdefault(nameless.SerializeToString(), weights.name)
    kept = [weights for weights in model.graph.initializer if names[weights.name] == weights.name]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    for node in model.graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = names.get(name, name)


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Hide warnings: the quantiser sends some to the root logger that do not concern users."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


def _accuracy(runtime: OnnxRuntime, faces: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    classes, firsts = len(runtime.class_names), range(0, len(faces), BATCH)
    decisions = [runtime(faces[first : first + BATCH])[0][:, :classes].argmax(axis=1) for first in firsts]
    return float((np.concatenate(decisions) == labels).mean())
