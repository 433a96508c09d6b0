"""Exported files against the network in float64, and what they say of themselves."""

import copy
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import PIL.Image
import pytest
import torch
from helpers.networks import SEVEN, noise, settled, small_info, without_blocks
from helpers.train import REPO
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor, nn

from fer_voting.face_input import FaceInput
from fer_voting.inference.onnx_export import MAX_DIFFERENCE, export_float32, export_int8, parity
from fer_voting.inference.runtime import FaceNetwork, FormsNetwork, TorchRuntime
from fer_voting.models import VotingResNet18
from fer_voting.networks.onnx import ExportInfo, OnnxRuntime, OpenVinoRuntime, open_onnx, providers
from fer_voting.votes import AdaptiveVote, SoftVote, Vote, find_vote, hard_vote

pytestmark = pytest.mark.slow

RUNTIMES = (OnnxRuntime, OpenVinoRuntime)
TEMPERATURE = 1.7
SOFT = SoftVote("soft", TEMPERATURE)


def info(split: str = "m1", vote: Vote = SOFT) -> ExportInfo:
    return ExportInfo(SEVEN, 24, split, vote.name, "faces", "ab" * 32, "float32", vote.to_values(), {"val": 0.5})


@pytest.fixture(scope="module")
def net() -> VotingResNet18:
    return settled("m1", width=8)


@pytest.fixture(scope="module")
def float32(net: VotingResNet18, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "m1.onnx"
    assert export_float32(FaceNetwork(net, SOFT), info(), path) < MAX_DIFFERENCE
    return path


@pytest.fixture(scope="module")
def int8(float32: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantised") / "m1-int8.onnx"
    labels = OnnxRuntime(float32)(noise(40, seed=1))[0].argmax(axis=1)
    labels[:10] = (labels[:10] + 1) % 7
    accuracies = export_int8(float32, path, noise(64), noise(40, seed=1), labels)
    decided = OnnxRuntime(path)(noise(40, seed=1))[0].argmax(axis=1)
    assert accuracies == (0.75, (decided == labels).mean())
    return path


def exact_logits(net: VotingResNet18, faces: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Crop logits in float64, normalised by hand; through the crop operator that an exported file must not need."""
    double = copy.deepcopy(net).double()
    images = (torch.from_numpy(faces).permute(0, 3, 1, 2).double() / 255 - 0.5) / 0.25
    with torch.no_grad():
        return double.eval()(images).numpy()


def test_threads_share_the_faces_and_change_no_number(float32: Path):
    faces = noise(19)
    expected = OnnxRuntime(float32, threads=1)(faces)
    for threads in (2, 3, 32):
        runtime = OnnxRuntime(float32, threads)
        assert runtime.threads == threads
        for ours, theirs in zip(runtime(faces), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    for kind in RUNTIMES:
        with pytest.raises(ValueError, match=r"`threads` \(=0\) must be at least 1"):
            kind(float32, threads=0)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("batch", [1, 2, 7])
def test_runtimes_compute_the_network(runtime: type, batch: int, net: VotingResNet18, float32: Path) -> None:
    faces = noise(batch, seed=batch)
    scores, logits = runtime(float32)(faces)
    exact = exact_logits(net, faces)
    assert scores.dtype == logits.dtype == np.float32
    assert logits.shape == (batch, 10, 7)
    np.testing.assert_allclose(logits, exact, rtol=0, atol=1e-5)
    np.testing.assert_allclose(scores, softmax(exact.mean(axis=1) / TEMPERATURE, axis=1), rtol=0, atol=1e-6)


def test_embeddings_are_an_output_on_request(float32: Path, tmp_path: Path) -> None:
    """Beside the hard vote of the input's crops."""
    net, vote, faces = without_blocks(settled("input", width=8)), find_vote("hard"), noise(9)
    network = FaceNetwork(net, vote, embed_before=7)
    assert export_float32(network, info("input", vote), tmp_path / "with.onnx") < MAX_DIFFERENCE
    expected, exact = TorchRuntime(net, small_info("input"), vote).embed(faces), exact_logits(net, faces)
    for runtime in RUNTIMES:
        opened = runtime(tmp_path / "with.onnx")
        np.testing.assert_allclose(opened.embed(faces), expected, rtol=0, atol=1e-5)
        scores, logits = opened(faces)
        np.testing.assert_allclose(logits, exact, rtol=0, atol=1e-5)
        np.testing.assert_allclose(scores, hard_vote(torch.from_numpy(exact)).numpy(), rtol=0, atol=1e-6)
        with pytest.raises(ValueError, match=r"m1\.onnx holds no embeddings: .* --embedding"):
            runtime(float32).embed(faces)
    with pytest.raises(ValueError, match="the adaptive vote leaves crops out"):
        FaceNetwork(net, AdaptiveVote("adaptive", 0.5, 1.0), embed_before=7)


def test_a_network_of_grey_images_sees_grey_in_every_runtime(tmp_path: Path) -> None:
    """By the softmax vote, with one crop."""
    net, vote = without_blocks(settled("baseline", width=8)), find_vote("softprob")
    about = replace(info("baseline", vote), faces=FaceInput("grey", 0.3, False, "mine"))
    assert export_float32(FaceNetwork(net, vote, "grey"), about, tmp_path / "grey.onnx") < MAX_DIFFERENCE
    faces = noise(5)
    grey = np.stack([PIL.Image.fromarray(face).convert("L").convert("RGB") for face in faces])
    exact = exact_logits(net, grey)
    for runtime in RUNTIMES:
        opened = runtime(tmp_path / "grey.onnx")
        assert opened.faces == about.faces
        assert np.array_equal(opened(faces)[1], opened(grey)[1])
        np.testing.assert_allclose(opened(faces)[1], exact, rtol=0, atol=1e-5)
        np.testing.assert_allclose(opened(faces)[0], softmax(exact, axis=2).mean(axis=1), rtol=0, atol=1e-6)
    export_int8(tmp_path / "grey.onnx", tmp_path / "int8.onnx", noise(16), faces, np.zeros(5, np.int64))
    rounded = OnnxRuntime(tmp_path / "int8.onnx")
    assert rounded.faces == about.faces
    assert np.array_equal(rounded(faces)[1], rounded(grey)[1])


def test_the_file_stands_alone(float32: Path) -> None:
    """One file of standard operators, without paths of this machine (the exporter adds stack traces)."""
    model = onnx.load(float32)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    assert {opset.domain for opset in model.opset_import} == {""}
    assert [path.name for path in float32.parent.iterdir()] == [float32.name]
    content = float32.read_bytes()
    for place in (str(REPO), sys.prefix, "site-packages"):
        assert place.encode() not in content
    (faces,) = model.graph.input
    assert [dim.dim_param or dim.dim_value for dim in faces.type.tensor_type.shape.dim] == ["batch", 24, 24, 3]
    assert faces.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [output.name for output in model.graph.output] == ["scores", "crop_logits"]


def test_every_file_is_of_the_ir_version_that_its_operators_came_with(
    float32: Path, int8: Path, adaptive: Path, adaptive_int8: Path
) -> None:
    """ONNX Runtime 1.17 reads operators of opset 20, and IR versions up to 9, which opset 20 came with."""
    for path in (float32, int8, adaptive, adaptive_int8):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert (model.ir_version, [(opset.domain, opset.version) for opset in model.opset_import]) == (9, [("", 20)])
        assert OnnxRuntime(path)(noise(2))[0].shape == (2, 7)


def test_metadata_by_name(float32: Path, int8: Path) -> None:
    found = onnxruntime.InferenceSession(float32).get_modelmeta().custom_metadata_map
    assert found == {
        "fer_voting": "1",
        "class_names": '["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"]',
        "number_names": "[]",
        "image_size": "24",
        "split": "m1",
        "vote": "soft",
        "dataset": "faces",
        "checksum": "ab" * 32,
        "precision": "float32",
        "faces": '{"colour": "rgb", "margin": 0.05, "align": true, "detector": "centerface"}',
        "temperature": "1.7",
        "accuracy": '{"val": 0.5}',
        "forms": "{}",
    }
    for runtime in RUNTIMES:
        assert runtime(float32).info == info()
        quantised = runtime(int8)
        assert quantised.precision == "int8"
        assert quantised.info.accuracy.keys() == {"val", "val_float32", "val_int8"}
        assert quantised.info.accuracy["val_float32"] == 0.75
        assert (quantised.class_names, quantised.image_size, quantised.split, quantised.vote) == (
            SEVEN,
            24,
            "m1",
            "soft",
        )
        assert (quantised.fitted, quantised.device) == ({"temperature": TEMPERATURE}, "cpu")


def test_int8_is_small_and_near(float32: Path, int8: Path) -> None:
    assert int8.stat().st_size < 0.4 * float32.stat().st_size
    faces = noise(20, seed=2)
    logits = OnnxRuntime(float32)(faces)[1]
    types = {tensor.data_type for tensor in onnx.load(int8).graph.initializer}
    assert onnx.TensorProto.INT8 in types
    for runtime in RUNTIMES:
        error = np.linalg.norm(runtime(int8)(faces)[1] - logits) / np.linalg.norm(logits)
        assert 1e-4 < error < 0.1


@pytest.mark.parametrize("name", ["hard", "confidence"])
def test_int8_decides_in_float32(name: str, net: VotingResNet18, tmp_path: Path) -> None:
    """The scores are those that PyTorch computes of the file's own crop logits, with the -inf of the hard vote."""
    vote, faces = find_vote(name), noise(40)
    export_float32(FaceNetwork(without_blocks(net), vote), info(vote=vote), tmp_path / "float32.onnx")
    export_int8(tmp_path / "float32.onnx", tmp_path / "int8.onnx", noise(16), faces, np.zeros(40, np.int64))
    exact, _ = OnnxRuntime(tmp_path / "float32.onnx")(faces)
    scores, logits = OnnxRuntime(tmp_path / "int8.onnx")(faces)
    np.testing.assert_allclose(scores, vote(torch.from_numpy(logits)).numpy(), rtol=0, atol=1e-6)
    np.testing.assert_allclose(scores, exact, rtol=0, atol=2 / 10.5)  # the decision of a crop counts 1 / 10.5
    assert np.array_equal(scores.argmax(axis=1), exact.argmax(axis=1))


class DifferentWhenExported(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.fc, self.by = nn.Linear(3, 7), by

    def forward(self, images: Tensor) -> Tensor:
        logits = self.fc(images.mean(dim=(2, 3)))[:, None]
        return logits + self.by if torch.compiler.is_exporting() else logits


def test_a_file_that_differs_from_pytorch_is_refused(net: VotingResNet18, float32: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    with pytest.raises(ValueError, match="differs from PyTorch by"):
        export_float32(FaceNetwork(DifferentWhenExported(by=1e-3)), info(), path)
    assert list(tmp_path.iterdir()) == []
    export_float32(FaceNetwork(DifferentWhenExported(by=1e-7)), info(), path)
    # A temperature changes the scores and no decision.
    assert parity(FaceNetwork(net, SOFT), OnnxRuntime(float32)) < MAX_DIFFERENCE
    assert parity(FaceNetwork(net, SoftVote("soft", TEMPERATURE + 0.1)), OnnxRuntime(float32)) > MAX_DIFFERENCE


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_files_that_are_no_exports(runtime: type, float32: Path, tmp_path: Path) -> None:
    model = onnx.load(float32)
    damaged = tmp_path / "damaged.onnx"
    onnx.helper.set_model_props(model, {**info().to_metadata(), "image_size": "many"})
    onnx.save(model, damaged)
    more = tmp_path / "more.onnx"
    onnx.helper.set_model_props(model, {**info().to_metadata(), "class_names": '["a", "b"]'})
    onnx.save(model, more)
    larger = tmp_path / "larger.onnx"
    onnx.helper.set_model_props(model, {**info().to_metadata(), "image_size": "48"})
    onnx.save(model, larger)
    later = tmp_path / "later.onnx"
    onnx.helper.set_model_props(model, {**info().to_metadata(), "fer_voting": "99"})
    onnx.save(model, later)
    foreign = tmp_path / "foreign.onnx"
    del model.metadata_props[:]
    onnx.save(model, foreign)
    pickled = tmp_path / "pickled.onnx"
    torch.save({"a": torch.zeros(2)}, pickled)
    for path, reason in (
        (damaged, "its metadata is damaged"),
        (more, "its metadata has 2 classes"),
        (larger, "cannot be run on a face of 48 pixels"),
        (later, "its format is 99, not 1"),
        (foreign, "lacks fer_voting's metadata"),
        (pickled, "cannot be read as an ONNX file"),
    ):
        with pytest.raises(ValueError, match=reason) as error:
            runtime(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"gone\.onnx"):
        runtime(tmp_path / "gone.onnx")


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(
    "faces",
    [noise(2).astype(np.float32), noise(2, size=48), noise(2)[0], noise(0)],
    ids=["float", "size", "one", "none"],
)
def test_faces_of_another_form_are_refused(runtime: type, faces: NDArray, float32: Path) -> None:
    with pytest.raises(ValueError, match=r"`faces` must be uint8 \[B, 24, 24, 3\]"):
        runtime(float32)(faces)


@pytest.fixture(scope="module")
def threshold(net: VotingResNet18) -> float:
    """Between the certainties of the whole maps of 40 noise faces, half above and half below."""
    baseline = VotingResNet18("baseline", width=net.width)
    baseline.load_state_dict(net.state_dict())
    certainties = np.sort(softmax(exact_logits(baseline, noise(40))[:, 0], axis=1).max(axis=1))
    return float(certainties[19:21].mean())


@pytest.fixture(scope="module")
def adaptive(net: VotingResNet18, threshold: float, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adaptive") / "adaptive.onnx"
    vote = AdaptiveVote("adaptive", TEMPERATURE, threshold=threshold, mean_gmacs=0.0123)
    assert export_float32(FaceNetwork(net, vote), info(vote=vote), path) < 1e-5
    return path


@pytest.fixture(scope="module")
def adaptive_int8(adaptive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantised") / "adaptive-int8.onnx"
    labels = OnnxRuntime(adaptive)(noise(40))[0].argmax(axis=1)
    before, after = export_int8(adaptive, path, noise(64, seed=3), noise(40), labels)
    assert before == 1
    assert after > 0.8
    return path


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_adaptive_file_computes_crops_where_the_whole_map_is_unsure(
    runtime: type, net: VotingResNet18, threshold: float, adaptive: Path
) -> None:
    """In batches of both kinds of faces and of only one kind, which leaves the crops an empty batch or all."""
    baseline = VotingResNet18("baseline", width=net.width)
    baseline.load_state_dict(net.state_dict())
    faces = noise(40)
    whole, crops = exact_logits(baseline, faces), exact_logits(net, faces)
    unsure = softmax(whole[:, 0], axis=1).max(axis=1) <= threshold
    assert unsure.sum() == 20
    expected = np.where(unsure[:, None, None], crops, whole)
    loaded = runtime(adaptive)
    fitted = {"temperature": TEMPERATURE, "threshold": threshold, "mean_gmacs": 0.0123}
    assert (loaded.vote, loaded.fitted) == ("adaptive", fitted)
    for chosen in (np.ones(40, bool), unsure, ~unsure, *np.eye(40, dtype=bool)[:4]):
        scores, logits = loaded(faces[chosen])
        np.testing.assert_allclose(logits, expected[chosen], rtol=0, atol=1e-5)
        shares = softmax(expected[chosen].mean(axis=1) / TEMPERATURE, axis=1)
        np.testing.assert_allclose(scores, shares, rtol=0, atol=1e-6)


def test_the_adaptive_file_has_one_trunk_and_one_set_of_weights(adaptive: Path, float32: Path) -> None:
    model, plain = onnx.load(adaptive), onnx.load(float32)
    convolutions = [sum(node.op_type == "Conv" for node in each.graph.node) for each in (model, plain)]
    # m1: the stem and two blocks of two before the cut; 15 behind it, twice.
    assert convolutions == [5 + 2 * 15, 5 + 15]
    assert adaptive.stat().st_size < 1.1 * float32.stat().st_size
    assert {node.domain for node in model.graph.node} == {""}


def test_int8_of_the_adaptive_file(adaptive: Path, adaptive_int8: Path) -> None:
    for runtime in RUNTIMES:
        loaded = runtime(adaptive_int8)
        assert loaded.fitted == OnnxRuntime(adaptive).fitted
        assert np.isfinite(loaded(noise(1))[0]).all()


@pytest.fixture(scope="module")
def halves(net: VotingResNet18) -> VotingResNet18:
    """The network with weights that half precision holds."""
    rounded = copy.deepcopy(net)
    rounded.load_state_dict({k: t.half().float() if t.is_floating_point() else t for k, t in net.state_dict().items()})
    return rounded


@pytest.fixture(scope="module")
def every_form(halves: VotingResNet18, threshold: float, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forms") / "forms.onnx"
    forms = {"adaptive": {"threshold": threshold, "temperature": 0.5}, "whole": {"threshold": 0.0, "temperature": 2.0}}
    module = FormsNetwork(halves, SOFT, embed_before=7)
    assert export_float32(module, replace(info(), forms=forms), path) < MAX_DIFFERENCE
    return path


def test_one_file_holds_every_form(halves: VotingResNet18, threshold: float, every_form: Path, tmp_path: Path) -> None:
    """The whole map, the crops where it is not certain, and all crops: by one graph, against float64 by hand."""
    net, path, faces = halves, every_form, noise(30)
    exact = exact_logits(net, faces)
    whole = exact_logits_of_the_whole_map(net, faces)
    certainty = softmax(whole, axis=1).max(axis=1)
    adaptive = np.where((certainty <= threshold)[:, None], exact.mean(axis=1), whole)
    assert 0 < (certainty <= threshold).sum() < 30
    for form, logits, temperature in (
        ("full", exact.mean(axis=1), TEMPERATURE), ("adaptive", adaptive, 0.5), ("whole", whole, 2.0),
    ):  # fmt: skip
        runtime = OnnxRuntime(path, threads=2, form=form)
        np.testing.assert_allclose(runtime(faces)[0], softmax(logits / temperature, axis=1), rtol=0, atol=1e-6)
        np.testing.assert_allclose(runtime(faces)[1].mean(axis=1), logits, rtol=0, atol=1e-5)
        assert runtime.vote == {"full": "soft"}.get(form, form)
        assert np.array_equal(pickle.loads(pickle.dumps(runtime))(faces[:3])[0], runtime(faces[:3])[0])
        # Whatever the form, an embedding is the mean over the crops.
        np.testing.assert_allclose(
            runtime.embed(faces), TorchRuntime(net, small_info("m1")).embed(faces), rtol=0, atol=1e-5
        )
    np.testing.assert_allclose(OpenVinoRuntime(path)(faces)[1], exact, rtol=0, atol=1e-5)
    export_int8(path, tmp_path / "int8.onnx", noise(16), faces, np.zeros(30, np.int64))
    rounded = onnx.load(tmp_path / "int8.onnx").graph.initializer
    kept = [w.raw_data for w in rounded if w.data_type == onnx.TensorProto.INT8 and len(w.dims) > 1]
    assert len(kept) == len({*kept})  # the weights behind the cut are there once, for the full map and the crops
    for form, logits, temperature in (("full", exact.mean(axis=1), TEMPERATURE), ("whole", whole, 2.0)):
        scores, crops = OnnxRuntime(tmp_path / "int8.onnx", form=form)(faces)
        rounded = crops.mean(axis=1)
        assert np.corrcoef(rounded.ravel(), logits.ravel())[0, 1] > 0.95
        np.testing.assert_allclose(scores, softmax(rounded / temperature, axis=1), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match=r"`form` .*'adaptive'.* must be full in OpenVINO"):
        open_onnx(path, "openvino", form="adaptive")
    with pytest.raises(ValueError, match="only the soft vote has other forms, not the hard vote"):
        FormsNetwork(net, hard_vote)
    with pytest.raises(ValueError, match="a network with numbers has one form"):
        FormsNetwork(net, SOFT, numbers=2)
    with pytest.raises(ValueError, match="a baseline has nothing to adapt"):
        FormsNetwork(settled("baseline", width=8), SOFT)


def test_weights_of_half_precision_take_half_the_bytes_and_change_no_number(
    float32: Path, every_form: Path, tmp_path: Path
) -> None:
    """Against the same graph with the weights in float32, as ONNX writes them."""
    exact, rounded = tmp_path / "exact.onnx", every_form
    assert not any(each.data_type == onnx.TensorProto.FLOAT16 for each in onnx.load(float32).graph.initializer)

    model = onnx.load(rounded)
    widened = {}
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT16:
            values = onnx.numpy_helper.to_array(weights).astype(np.float32)
            widened[weights.name] = onnx.numpy_helper.from_array(values, weights.name.removesuffix("_half"))
    assert len(widened) > 10
    nodes = [node for node in model.graph.node if node.input[0] not in widened]
    weights = [widened.get(each.name, each) for each in model.graph.initializer]
    model.graph.ClearField("node")
    model.graph.ClearField("initializer")
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(weights)
    onnx.save(model, exact)
    assert rounded.stat().st_size < 0.7 * exact.stat().st_size
    for form in ("full", "whole"):
        ours, theirs = (OnnxRuntime(path, form=form) for path in (rounded, exact))
        for own, other in zip(ours(noise(9)), theirs(noise(9)), strict=True):
            assert np.array_equal(own, other)
        assert np.array_equal(ours.embed(noise(3)), theirs.embed(noise(3)))


def exact_logits_of_the_whole_map(net: VotingResNet18, faces: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The weights are a baseline's, too."""
    baseline = VotingResNet18("baseline", width=net.width)
    baseline.load_state_dict(net.state_dict())
    return exact_logits(baseline, faces)[:, 0]


@pytest.mark.parametrize(
    ("device", "available", "wanted"),
    [
        ("auto", ["CPUExecutionProvider"], ["cpu"]),
        ("auto", ["CUDAExecutionProvider", "CPUExecutionProvider"], ["cuda 0", "cpu"]),
        ("cpu", ["CUDAExecutionProvider", "CPUExecutionProvider"], ["cpu"]),
        ("cuda:3", ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"], ["cuda 3", "cpu"]),
    ],
)
def test_a_gpu_is_used_where_its_provider_is_installed(device: str, available: list[str], wanted: list[str]) -> None:
    names = {"cpu": "CPUExecutionProvider"} | {
        f"cuda {number}": ("CUDAExecutionProvider", {"device_id": str(number)}) for number in (0, 3)
    }
    assert providers(device, available) == [names[name] for name in wanted]


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cuda", "needs ONNX Runtime's CUDA provider"),
        ("mps", "must be auto, cpu, cuda or cuda:N"),
        ("cpu:1", "must be"),
    ],
)
def test_a_device_that_is_not_there_is_refused(device: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        providers(device, ["CPUExecutionProvider"])
