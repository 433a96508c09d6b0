"""One recogniser for several threads and processes."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from helpers.networks import info, noise, settled, without_blocks, write_checkpoint
from helpers.processes import start

from fer_voting.inference.explain import explain
from fer_voting.inference.faces import Boxes, CenterFace
from fer_voting.inference.frames import photo
from fer_voting.inference.onnx_export import export_float32
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.runtime import FaceNetwork, Runtime, TorchRuntime
from fer_voting.networks.onnx import ExportInfo, open_onnx
from fer_voting.votes import AdaptiveVote

THREADS = 8
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("exported") / "net.onnx"
    metadata = ExportInfo(info().class_names, 24, "m1", "soft", "faces", "0" * 64, fitted={"temperature": 1.0})
    export_float32(FaceNetwork(without_blocks(settled())), metadata, path)
    return path


@pytest.fixture(params=["torch", "adaptive", "onnx", "openvino"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    if request.param == "torch":
        return TorchRuntime(settled(), info(), device="cpu")
    if request.param == "adaptive":  # the network keeps what it does with the map of the call that runs
        return TorchRuntime(settled(), info(), AdaptiveVote("adaptive", threshold=0.5), device="cpu")
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return open_onnx(request.getfixturevalue("onnx_file"), request.param)


def test_every_thread_has_its_own_expressions(runtime: Runtime):
    recognizer = Recognizer(runtime, lambda image: Boxes(np.zeros((0, 4)), np.zeros(0)))
    groups = [noise(1 + number % 5, seed=number) for number in range(4 * THREADS)]
    expected = [recognizer.classify(group) for group in groups]
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(3):
            for found, alone in zip(pool.map(recognizer.classify, groups), expected, strict=True):
                np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-5)
                np.testing.assert_allclose(found.crop_logits, alone.crop_logits, atol=1e-4)


def test_every_thread_has_its_own_faces(shared_data: Path):
    """Frames of several sizes, so that the detector's network changes its shape between calls."""
    group = PIL.Image.fromarray(photo(shared_data / "photos" / "group.jpeg"))
    frames = [np.asarray(group.resize(size)) for size in ((320, 213), (480, 320), (400, 267), (250, 167))]
    frames.append(np.zeros((100, 300, 3), np.uint8))
    recognizer = Recognizer(TorchRuntime(settled(), info(), device="cpu"), CenterFace())
    expected = [recognizer.detect(frame) for frame in frames]
    assert {len(faces) for faces in expected} >= {0, 5}
    with ThreadPoolExecutor(THREADS) as pool:
        for number, found in enumerate(pool.map(recognizer.detect, frames * 6)):
            alone = expected[number % len(frames)]
            np.testing.assert_allclose(found.boxes, alone.boxes, atol=0.01)
            np.testing.assert_allclose(found.probabilities, alone.probabilities, atol=1e-4)


def test_every_thread_has_its_own_map():
    recognizer = Recognizer(TorchRuntime(settled(), info(), device="cpu"))
    faces = noise(4 * THREADS)
    expected = [explain(recognizer, face) for face in faces]
    with ThreadPoolExecutor(THREADS) as pool:
        others = pool.submit(lambda: [recognizer.classify(faces) for _ in range(10)])
        found = list(pool.map(lambda face: explain(recognizer, face), faces))
        others.result()
    for one, alone in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.crop_maps, alone.crop_maps, atol=1e-4)


def test_pickled_it_is_loaded_again_from_its_source(tmp_path: Path, onnx_file: Path):
    checkpoint = write_checkpoint(tmp_path / "net.ckpt")
    for source in (checkpoint, onnx_file):
        recognizer = Recognizer.load(source, device="cpu", margin=0.3, batch_size=7)
        data = pickle.dumps(recognizer)
        assert len(data) < 1000
        again = pickle.loads(data)
        assert (again.margin, again.batch_size, again.class_names) == (0.3, 7, recognizer.class_names)
        np.testing.assert_array_equal(again(noise(3)).probabilities, recognizer(noise(3)).probabilities)


def test_what_it_was_made_of_is_pickled(runtime: Runtime):
    recognizer = Recognizer(runtime, CenterFace(0.6), margin=0.3)
    again = pickle.loads(pickle.dumps(recognizer))
    assert (again.margin, again.detector.face_score) == (0.3, 0.6)
    np.testing.assert_allclose(again(noise(3)).probabilities, recognizer(noise(3)).probabilities, atol=1e-6)


FORKED = """
import multiprocessing, sys
import cv2, numpy as np, torch
from fer_voting import Recognizer

def detect(recognizer, frame, answers):
    try:
        answers.put(recognizer(frame).classes)
    except RuntimeError as error:
        answers.put(str(error))
    answers.put(len(recognizer.find(frame)))
    answers.put(Recognizer.load(sys.argv[1])(frame).classes)

torch.set_num_threads(4)
cv2.setNumThreads(4)
frame = np.random.default_rng(0).integers(0, 255, (200, 300, 3), dtype=np.uint8)
recognizer = Recognizer.load(sys.argv[1])
torch.ones(10_000_000).sum()  # starts the threads, which a forked child lacks
print(recognizer(frame).classes, len(recognizer.find(frame)))
context = multiprocessing.get_context("fork")
answers = context.SimpleQueue()
child = context.Process(target=detect, args=(recognizer, frame, answers))
child.start()
child.join(120)
if child.is_alive():
    child.kill()
    sys.exit("it hangs")
for _ in range(3):
    print(answers.get())
"""


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_a_forked_child_works_or_says_why_not(tmp_path: Path, onnx_file: Path, kind: str):
    source = write_checkpoint(tmp_path / "net.ckpt") if kind == "torch" else onnx_file
    (tmp_path / "script.py").write_text(FORKED)
    process = start(tmp_path / "script.py", str(source), printed=tmp_path / "printed", errors=tmp_path / "errors")
    process.join(200)
    assert process.exitcode == 0, (tmp_path / "errors").read_text()
    parent, first, faces, made_there = (tmp_path / "printed").read_text().splitlines()
    assert parent == f"{made_there} {faces}"
    if kind == "torch":
        assert first == made_there
    else:
        assert "does not work in a forked child of the process that opened it" in first


def test_a_signal_after_openvinos_network_was_freed_in_another_thread(onnx_file: Path):
    """The process goes on: OpenVINO would free the stack on which the first thread handles signals."""
    pytest.importorskip("openvino")
    code = f"""
import os, signal, threading
from fer_voting.networks.onnx import open_onnx
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
networks = [open_onnx({str(onnx_file)!r}, "openvino")]
thread = threading.Thread(target=networks.clear)
thread.start()
thread.join()
os.kill(os.getpid(), signal.SIGUSR1)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
