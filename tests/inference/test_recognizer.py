"""`Recognizer`: faces in, expressions out."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest
import torch
from helpers.composed import composed
from helpers.datasets import fer2013_csv
from helpers.networks import SEVEN, small_info, small_network, write_checkpoint
from helpers.train import REPO, TINY
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_voting import Recognizer, networks
from fer_voting.config import make
from fer_voting.data.images import prepare_image
from fer_voting.experiment import Sources, make_evaluator, make_module
from fer_voting.face_input import FaceInput
from fer_voting.inference.faces import Boxes, cut_face, face_square
from fer_voting.inference.frames import photo
from fer_voting.inference.recognizer import DetectedFaces, Recognition
from fer_voting.inference.rows import columns
from fer_voting.inference.runtime import TorchRuntime
from fer_voting.models.images import as_grey
from fer_voting.runs.run import Run
from fer_voting.training.evaluation import predict_part
from fer_voting.votes import find_vote, soft_vote


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return Recognizer(TorchRuntime(small_network(), small_info()), batch_size=2)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_what_a_recognition_says_by_hand():
    logits = np.array([[[5, 0, 0], [4, 0, 0], [0, 1, 0], [3, 0, 0]], [[0, 0, 9], [0, 9, 0], [0, 0, 9], [9, 0, 0]]])
    found = Recognition(("a", "b", "c"), np.float32([[0.8, 0.1, 0.1], [0.2, 0.3, 0.5]]), logits.astype(np.float32))
    assert len(found) == 2
    assert found.classes == ["a", "c"]
    assert found.confidences.tolist() == pytest.approx([0.8, 0.5])
    assert found.crop_classes.tolist() == [["a", "a", "b", "a"], ["c", "b", "c", "a"]]
    assert found.agreement.tolist() == [0.75, 0.5]


def test_shapes_and_batches(recognizer: Recognizer):
    faces = [picture(30, 20, seed) for seed in range(5)]
    found = recognizer(faces)
    assert found.probabilities.shape == (5, 7)
    assert found.crop_classes.shape == (5, 10)
    for one, face in enumerate(faces):  # batches of 2 say what each face alone says
        np.testing.assert_allclose(recognizer(face).probabilities[0], found.probabilities[one], atol=1e-6)
    stacked = recognizer(np.stack(faces))
    assert np.array_equal(stacked.probabilities, found.probabilities)


def test_no_face_at_all(recognizer: Recognizer):
    found = recognizer([])
    assert found.classes == []
    assert found.probabilities.shape == (0, 7)
    assert found.crop_classes.shape == (0, 10)
    assert found.agreement.shape == found.confidences.shape == (0,)


def test_faces_of_any_size_are_resized_as_training_resizes(recognizer: Recognizer):
    for height, width in ((24, 24), (7, 90), (500, 333)):
        face = picture(height, width)
        expected = prepare_image(PIL.Image.fromarray(face), 24)
        assert np.array_equal(recognizer.prepare(face), expected)
        assert np.array_equal(recognizer(face).crop_logits, recognizer.classify(expected[None]).crop_logits)


def test_grey_is_three_equal_channels(recognizer: Recognizer):
    grey = picture(40, 40)[:, :, 0]
    assert np.array_equal(recognizer(grey).crop_logits, recognizer(np.stack([grey] * 3, axis=2)).crop_logits)


@pytest.mark.parametrize(
    "face",
    [
        np.zeros((10, 10, 3), np.float32),
        np.zeros((10, 10, 4), np.uint8),
        np.zeros((10,), np.uint8),
        np.zeros((0, 10, 3), np.uint8),
        np.zeros((2, 10, 10, 1), np.uint8),
    ],
)
def test_other_arrays_are_refused(recognizer: Recognizer, face: np.ndarray):
    with pytest.raises(ValueError, match=r"must be uint8 \[H, W, 3\] or \[H, W\], not (uint8|float32) \["):
        recognizer(face)
    if face.ndim < 4:
        with pytest.raises(ValueError, match="must be uint8"):
            recognizer.detect(face)


def test_detect_asks_the_detector_and_cuts_out_squares():
    frame = picture(100, 200)
    seen = []

    def detector(image: np.ndarray) -> Boxes:
        seen.append(image)
        return Boxes(np.array([[20, 10, 40, 50], [150, 60, 180, 80]]), np.array([0.75, 0.5]))

    recognizer = Recognizer(TorchRuntime(small_network(), small_info()), detector, margin=0.05)
    found = recognizer.detect(frame)
    assert np.array_equal(seen[0], frame)
    assert isinstance(found, DetectedFaces)
    assert found.boxes.tolist() == [[20, 10, 20, 40], [150, 60, 30, 20]]
    assert found.face_scores.tolist() == [0.75, 0.5]
    # 1.05 * 40 = 42 pixels around (30, 30); 1.05 * 30 = 31.5 around (165, 70).
    cut = recognizer([frame[9:51, 9:51], frame[54:86, 149:181]])
    np.testing.assert_allclose(found.probabilities, cut.probabilities, atol=1e-6)
    first, second = found
    assert (first.box, first.angle, first.face_score, first.class_name) == ((20, 10, 20, 40), 0, 0.75, cut.classes[0])
    assert (first.confidence, first.agreement) == (found.confidences[0], found.agreement[0])
    assert first.probabilities == dict(zip(SEVEN, found.probabilities[0].tolist(), strict=True))
    assert first.landmarks.shape == (5, 2)
    assert np.isnan(first.landmarks).all()
    assert second.class_name == found.classes[1]
    grey = frame[:, :, 0]
    assert len(recognizer.detect(grey)) == 2
    assert seen[1].shape == (100, 200, 3)


def two_faces(image: np.ndarray) -> Boxes:
    """The second lies outside of a frame that is less than 150 pixels wide."""
    landmarks = np.array([[[24, 20], [34, 20], [29, 28], [25, 36], [33, 36]], np.full((5, 2), np.nan)])
    return Boxes(np.array([[20.0, 10, 40, 50], [150, 60, 180, 80]]), np.array([0.75, 0.5]), landmarks)


def test_pil_images_paths_and_lists_are_frames_too(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    recognizer = Recognizer(TorchRuntime(small_network(), small_info()), two_faces)
    frames = [picture(100, 200), picture(90, 140, 1)]
    PIL.Image.fromarray(frames[0]).save(tmp_path / "a.png")
    turned = PIL.Image.fromarray(np.rot90(frames[0]))
    turned.getexif()[0x0112] = 6  # to be turned by a quarter, as a camera writes it
    turned.save(tmp_path / "turned.png", exif=turned.getexif())
    expected = [recognizer.detect(frame) for frame in frames]
    assert "a face is left out: the face box 150, 60, 30, 20 (left, top, width, height) lies outside of 140x90" in (
        caplog.messages
    )
    assert [len(found) for found in expected] == [2, 1]
    given = (PIL.Image.fromarray(frames[0]), tmp_path / "a.png", str(tmp_path / "a.png"), tmp_path / "turned.png")
    several = recognizer.detect([*given, frames[1]])
    for found in several[:4]:
        np.testing.assert_allclose(found.probabilities, expected[0].probabilities, atol=1e-6)
    np.testing.assert_allclose(several[4].probabilities, expected[1].probabilities, atol=1e-6)
    assert len(recognizer.detect(np.stack([frames[0]] * 3))) == 3
    assert recognizer.detect([]) == []
    assert recognizer.detect([tmp_path / "a.png"])[0].boxes.shape == (2, 4)
    for one in given:
        np.testing.assert_allclose(recognizer(one).probabilities, recognizer(frames[0]).probabilities, atol=1e-6)
    with pytest.raises(FileNotFoundError):
        recognizer(tmp_path / "missing.png")
    (tmp_path / "none.jpg").write_text("no photo")
    with pytest.raises(ValueError, match="it is no photo"):
        recognizer.detect(tmp_path / "none.jpg")


def test_results_as_plain_values_and_as_a_table(monkeypatch: pytest.MonkeyPatch):
    recognizer = Recognizer(TorchRuntime(small_network(), small_info()), two_faces)
    found = recognizer.detect(picture(100, 200))
    first, second = json.loads(json.dumps(found.to_dict()))["faces"]
    assert first["box"] == [20, 10, 20, 40]
    assert (first["landmarks"][0], second["landmarks"]) == ([24, 20], None)
    assert list(first["probabilities"]) == list(SEVEN) == found.to_dict()["class_names"]
    assert (first["class"], first["confidence"]) == (found.classes[0], found.confidences[0])
    table = found.to_pandas()
    assert list(table.columns) == [column for column in columns(SEVEN)[4:] if column != "status"]
    assert table["class"].tolist() == found.classes
    assert (table["left"].tolist(), table["nose_y"][0]) == ([20, 150], 28)
    assert table["happy"].tolist() == pytest.approx(found.probabilities[:, 1].tolist(), abs=1e-6)
    of_faces = recognizer([picture(20, 20)])
    assert list(of_faces.to_pandas().columns) == ["class", "confidence", *SEVEN, "vote_agreement"]
    assert list(of_faces.to_dict()["faces"][0]) == ["class", "confidence", "probabilities", "vote_agreement"]
    assert len(recognizer([]).to_pandas()) == 0
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, "pandas")
    sys.path_importer_cache.clear()
    with pytest.raises(ModuleNotFoundError, match="to_pandas needs pandas: pip install pandas"):
        of_faces.to_pandas()


@pytest.mark.parametrize("split", ["m3", "baseline"])
@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_an_embedding_is_what_the_last_layer_sees_mean_over_the_crops(split: str, vote: str):
    net = small_network(split)
    recognizer = Recognizer(TorchRuntime(net, small_info(split), find_vote(vote)), batch_size=2)
    faces = [picture(24, 24, seed) for seed in range(5)]
    embeddings = recognizer.embed(faces)
    assert (embeddings.shape, embeddings.dtype) == ((5, net.backbone.fc.in_features), np.float32)
    logits = embeddings @ net.backbone.fc.weight.detach().numpy().T + net.backbone.fc.bias.detach().numpy()
    np.testing.assert_allclose(logits, recognizer(faces).crop_logits.mean(axis=1), atol=1e-5)
    assert recognizer.embed(faces[0]).shape == (1, embeddings.shape[1])
    assert recognizer.embed([]).shape == (0, embeddings.shape[1])


def test_a_detector_is_chosen_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = "from fer_voting.inference.faces import Boxes\nimport numpy as np\n"
    source += "def find(image):\n    return Boxes(np.array([[20, 10, 40, 50]]), np.array([0.75]))\n"
    (tmp_path / "one_face_detector.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    runtime = TorchRuntime(small_network(), small_info())
    assert Recognizer(runtime, "one_face_detector:find").detect(picture(100, 200)).boxes.tolist() == [[20, 10, 20, 40]]
    with pytest.raises(ValueError, match=r"`detector` \(='retina'\) must be centerface or package\.module:callable"):
        Recognizer(runtime, "retina")


def test_a_frame_without_a_face():
    recognizer = Recognizer(
        TorchRuntime(small_network(), small_info()), lambda frame: Boxes(np.zeros((0, 4)), np.zeros(0))
    )
    found = recognizer.detect(picture(50, 50))
    assert len(found) == 0
    assert list(found) == []
    assert found.boxes.shape == (0, 4)


def test_a_square_may_leave_the_frame():
    assert face_square((-10, -10, 40, 40), 0, 100, 50) == (-10, -10, 30, 30)
    assert face_square((80, 30, 40, 40), 0, 100, 50) == (80, 30, 120, 70)
    assert face_square((10, 10, 10, 20), -0.5, 100, 50) == (10, 15, 20, 25)
    for outside in ((100, 0, 10, 10), (0, -30, 10, 10), (5, 5, 0, 10), (5, 5, 10, -1)):
        with pytest.raises(ValueError, match=r"the face box .* lies outside of 100x50"):
            face_square(outside, 0, 100, 50)
    with pytest.raises(ValueError, match="has more than 178,956,970 pixels"):
        face_square((0, 0, 1e6, 1e6), 0, 100, 50)


@settings(max_examples=25, deadline=None)
@given(box=st.tuples(st.integers(-40, 110), st.integers(-40, 90)).flatmap(
    lambda corner: st.tuples(*map(st.just, corner), *[st.integers(50, 130)] * 2).map(lambda box: (*box[:3], box[2]))
))  # fmt: skip
def test_a_face_is_a_square_and_black_where_it_leaves_the_frame(box: tuple[int, int, int, int]):
    """Not stretched: as if the frame lay on black."""
    frame = picture(100, 120)
    boxes = Boxes(np.array([[box[0], box[1], box[0] + box[2], box[1] + box[3]]]), np.array([0.9]))
    recognizer = Recognizer(TorchRuntime(small_network(), small_info()), lambda image: boxes, margin=0)
    wide = np.zeros((400, 420, 3), np.uint8)
    wide[150:250, 150:270] = frame
    left, top, width, height = (150 + box[0], 150 + box[1], *box[2:])
    expected = recognizer(wide[top : top + height, left : left + width])
    np.testing.assert_allclose(recognizer.detect(frame).crop_logits, expected.crop_logits, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [("margin", -1), ("margin", float("nan")), ("margin", float("inf")), ("align", 1), ("batch_size", 0)],
)
def test_arguments_out_of_range(name: str, value: float):
    with pytest.raises(ValueError, match=f"`{name}`"):
        Recognizer(TorchRuntime(small_network(), small_info()), **{name: value})


@pytest.mark.slow
def test_a_run_says_what_its_training_said(run_train, tmp_path: Path):
    """Images from the run's own data give the logits that training stored for them; a temperature is the run's."""
    output_dir = run_train("split=m3", "name=mine")
    run = Run(output_dir, "mine")
    stored = np.load(run.predictions_file("soft", "test"))
    config = composed([f"output_dir={output_dir}", *TINY])
    data = make(config.dataset)
    data.setup()
    images = data.pack.images[data.positions("test")]

    found = Recognizer.from_run("mine", output_dir, device="cpu")(images)
    np.testing.assert_allclose(found.crop_logits, stored["logits"], atol=2e-2)  # training's evaluation may be bf16
    assert found.class_names == SEVEN

    result = run.result()
    assert result is not None
    assert (
        Recognizer.from_run("mine", output_dir).runtime.fitted["temperature"] == result["votes"]["soft"]["temperature"]
    )
    result["votes"]["soft"]["temperature"] = 3.0
    run.write_result(result)
    softer = Recognizer.from_run(run.dir)
    assert softer.runtime.fitted["temperature"] == 3.0
    logits = softer(images).crop_logits.mean(axis=1) / 3
    np.testing.assert_allclose(
        softer(images).probabilities, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), atol=1e-6
    )
    assert Recognizer.from_run(run.dir, vote="hard").runtime.fitted["temperature"] == 1.0

    run.write_result({**result, "status": "failed"})
    with pytest.raises(FileNotFoundError, match="is failed, not finished"):
        Recognizer.from_run("mine", output_dir)


def test_a_run_or_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"run 'nobody': .*nobody is missing"):
        Recognizer.from_run("nobody", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.ckpt does not exist"):
        Recognizer.from_checkpoint(tmp_path / "nothing.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        Recognizer.from_checkpoint(tmp_path / "text.ckpt")


def test_a_checkpoint_takes_the_options(tmp_path: Path):
    path = write_checkpoint(tmp_path / "net.ckpt", "baseline")
    recognizer = Recognizer.from_checkpoint(path, vote="softprob", device="cpu", margin=0.2, batch_size=3)
    assert (recognizer.runtime.vote, recognizer.margin, recognizer.batch_size) == ("softprob", 0.2, 3)
    assert recognizer(picture(9, 9)).crop_classes.shape == (1, 1)


def test_importing_the_package_is_light():
    """torch takes seconds to import: `import fer_voting` does without, and so does naming Recognizer."""
    code = (
        "import sys, fer_voting; assert 'torch' not in sys.modules; fer_voting.Recognizer;"
        "assert 'torch' not in sys.modules; assert 'numpy' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPO)
    import fer_voting

    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        fer_voting.nothing  # noqa: B018


def test_the_networks_file_says_how_faces_are_cut_out(caplog: pytest.LogCaptureFixture):
    wanted = replace(small_info(), faces=FaceInput("grey", margin=0.3, align=False))
    runtime = TorchRuntime(small_network(), wanted)
    own = Recognizer(runtime)
    assert (own.margin, own.align) == (0.3, False)
    assert not caplog.messages
    other = Recognizer(runtime, margin=0.1, align=True)
    assert (other.margin, other.align) == (0.1, True)
    assert caplog.messages == [
        "`margin` is 0.1, and the network was made for faces with 0.3",
        "`align` is True, and the network was made for faces with False",
    ]


def test_a_network_of_grey_images_does_not_see_the_colour_of_the_light():
    grey, rgb = (
        Recognizer(TorchRuntime(small_network(), replace(small_info(), faces=FaceInput(colour))))
        for colour in ("grey", "rgb")
    )
    faces = np.stack([picture(24, 24, seed) for seed in range(4)])
    shades = np.stack([PIL.Image.fromarray(face).convert("L").convert("RGB") for face in faces])
    assert np.array_equal(grey(faces).crop_logits, grey(shades).crop_logits)
    assert np.array_equal(grey(faces).crop_logits, rgb(shades).crop_logits)
    assert not np.array_equal(rgb(faces).crop_logits, rgb(shades).crop_logits)


def test_a_training_on_grey_images_makes_a_network_that_sees_grey(tmp_path: Path):
    """And evaluated on a data set with colours, it sees these images grey."""
    fer2013_csv(tmp_path / "fer2013.csv", {"Training": dict.fromkeys(SEVEN, 4), "PublicTest": dict.fromkeys(SEVEN, 1)})
    words = ["model.width=8", "split=m3", f"output_dir={tmp_path}"]
    for dataset, colour in ((["dataset=fer2013", f"dataset.root={tmp_path}"], "grey"), (TINY, "rgb")):
        config = composed([*words, *dataset, "trainer.accelerator=cpu"])
        data = make(config.dataset)
        data.setup()
        module = make_module(config, data, soft_vote, Sources(None, None, None, {}, None))
        assert module.info.faces == FaceInput(colour)
    module.info = replace(module.info, faces=FaceInput("grey"))
    evaluator = make_evaluator(config.trainer)
    outputs = predict_part(evaluator, module, data, "test").outputs.crops
    shades = as_grey(torch.from_numpy(np.array(data.pack.images[data.positions("test")])))
    expected = TorchRuntime(module.net, module.info, device="cpu")(shades.numpy())[1]
    np.testing.assert_allclose(outputs.numpy(), expected, atol=2e-2)  # the evaluation may be in bf16


@pytest.mark.slow
def test_the_network_that_ships_decides_the_same_in_both_runtimes(shared_data: Path):
    in_onnx, in_torch = (Recognizer.load(runtime=runtime, device="cpu") for runtime in ("onnx", "torch"))
    pictures = [photo(path) for path in sorted((shared_data / "photos").iterdir())]
    faces = np.stack(
        [
            cut_face(PIL.Image.fromarray(picture), box, 48, in_onnx.margin)
            for picture in pictures
            for box in in_onnx.find(picture)
        ]
    )
    found, expected = in_onnx.classify(faces), in_torch.classify(faces)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=1e-4)
    assert found.classes == expected.classes
    assert len(faces) >= 11


def test_threads_are_those_of_every_library(tmp_path: Path):
    path, before = write_checkpoint(tmp_path / "net.ckpt"), cv2.getNumThreads()
    try:
        for source in (None, path):
            for threads in (1, 2):
                recognizer = Recognizer.load(source, threads=threads, device="cpu")
                assert (recognizer.runtime.threads, cv2.getNumThreads()) == (threads, threads)
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match=r"`threads` \(=0\) must be at least 1"):
            Recognizer.load(path, threads=0)
    finally:
        cv2.setNumThreads(before)


def test_the_network_that_ships_embeds_in_onnx_runtime_as_in_torch():
    faces = [picture(48, 48, seed) for seed in range(3)]
    in_onnx, in_torch = (Recognizer.load(runtime=runtime, device="cpu") for runtime in ("onnx", "torch"))
    assert in_onnx.embed(faces).shape == (3, 256)
    np.testing.assert_allclose(in_onnx.embed(faces), in_torch.embed(faces), atol=1e-4)


@pytest.mark.parametrize("constructor", ["load", "from_checkpoint", "from_pretrained", "from_onnx"])
def test_every_constructor_takes_every_option(constructor: str, tmp_path: Path):
    source = {
        "from_checkpoint": lambda: write_checkpoint(tmp_path / "net.ckpt", "baseline"),
        "from_onnx": lambda: networks.SHIPPED / "model.onnx",
    }.get(constructor, lambda: "fer_voting")()
    of_runtime = {"vote": "soft", "precision": "float32", "device": "cpu", "threads": 1}
    of_faces = {"margin": 0.05, "align": True, "batch_size": 3, "detector": lambda image: None}
    threads = torch.get_num_threads(), cv2.getNumThreads()
    try:
        recognizer = getattr(Recognizer, constructor)(source, **of_runtime, **of_faces, runtime="auto", form="full")
        for holder, options in ((recognizer.runtime, of_runtime), (recognizer, of_faces)):
            assert {name: getattr(holder, name) for name in options} == options
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])


@pytest.mark.parametrize(
    ("wanted", "detector", "warns"),
    [
        ("centerface", None, False),
        ("centerface", "test_recognizer:a_detector", True),
        ("test_recognizer:a_detector", "test_recognizer:a_detector", False),
        ("test_recognizer:a_detector", None, True),
    ],
)
def test_boxes_of_another_detector_than_the_files_are_warned_of(
    wanted: str, detector: str | None, warns: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "test_recognizer", sys.modules[__name__])
    info = replace(small_info(), faces=FaceInput(detector=wanted))
    with caplog.at_level("WARNING", "fer_voting"):
        recognizer = Recognizer(TorchRuntime(small_network(), info), detector)
        assert recognizer.detector is recognizer.detector
    assert [f"made for boxes of {wanted}" in line for line in caplog.messages] == [True] * warns


def a_detector(image: np.ndarray) -> Boxes:
    return Boxes(np.array([[1, 1, 9, 9]]), np.array([1.0]))


@pytest.mark.parametrize("form", ["adaptive", "whole"])
def test_the_network_that_ships_has_fast_forms(form: str):
    """Without PyTorch, and as PyTorch computes them."""
    faces = [picture(48, 48, seed) for seed in range(4)]
    fast = Recognizer.load(form=form, device="cpu", threads=1)
    assert type(fast.runtime).__name__ == "OnnxRuntime"
    assert fast.runtime.vote == form
    expected = Recognizer.load(form=form, runtime="torch", device="cpu")(faces)
    np.testing.assert_allclose(fast(faces).probabilities, expected.probabilities, atol=1e-3)
    if form == "whole":
        assert fast(faces).agreement.tolist() == [1] * 4
