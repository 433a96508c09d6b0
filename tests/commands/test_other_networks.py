"""A network of timm from the training to the prediction, as a user types it."""

import csv
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from helpers.train import train_here

from fer_voting.export import main as export
from fer_voting.inference.onnx_export import MAX_DIFFERENCE
from fer_voting.models.images import normalise
from fer_voting.networks import load, load_network, match_classes
from fer_voting.networks.onnx import OnnxRuntime
from fer_voting.runs.run import Run

pytest.importorskip("timm")
pytestmark = pytest.mark.slow

NAMES = ("test_convnext", "test_efficientnet")  # two of the small ones that timm has for its tests
WORDS = (
    *("dataset=faces", "dataset.size=96", "dataset.train_size=30", "dataset.val_size=10", "dataset.test_size=10"),
    *("trainer.max_epochs=1", "logger=none", "plots=false", "augment=none", "model=timm"),
)


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of a sweep over both networks."""
    folder = tmp_path_factory.mktemp("timm")
    sweep = ("-m", "sweep=networks", f"model.name={','.join(NAMES)}", "split=m2")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train_here(folder, *sweep, *WORDS)
    return folder


def run_of(output_dir: Path, name: str) -> Run:
    (found,) = (output_dir / "runs").glob(f"faces-m2-timm-*name{name}-*")
    return Run(output_dir, found.name)


def test_the_table_has_every_network_with_both_counts(output_dir: Path):
    lines = (output_dir / "sweeps/networks/table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("|")]
    header, _, *runs = rows
    expected = [run_of(output_dir, name).name for name in NAMES]
    assert [row[:2] for row in runs] == [[name, "finished"] for name in expected]
    for row in runs:
        found = dict(zip(header, row, strict=True))
        result = Run(output_dir, found["run"]).result()
        assert result is not None
        assert float(found["GMACs/image"]) == pytest.approx(result["gmacs"], abs=5e-4)
        assert float(found["torch GMACs"]) == pytest.approx(result["torch_gmacs"], abs=5e-4)
        assert float(found["MiB/image"]) > 1


def test_a_checkpoint_names_its_network_and_takes_another_split(output_dir: Path):
    path = run_of(output_dir, "test_convnext").best_checkpoint("soft")
    trained = load_network(path)
    net, info = trained.net, trained.info
    assert (info.architecture, info.options) == ("timm", {"name": "test_convnext", "crop_after": None})
    assert (net.crop_after, info.image_size) == ("stages.1", 96)
    matched, left_out = match_classes(trained, info.class_names[::-1], "faces", "m3")
    assert (matched.net.crop_after, left_out) == ("stages.2", [])
    ours, theirs = (n.state_dict()["head.fc.weight"] for n in (matched.net, net))
    assert torch.equal(ours, theirs.flip(0))  # rows by class name


@pytest.mark.parametrize("name", NAMES)
def test_exports_and_predictions_are_the_networks(name: str, output_dir: Path, capsys: pytest.CaptureFixture[str]):
    run = run_of(output_dir, name)
    trained = load_network(run.best_checkpoint("soft"))
    net, info = trained.net, trained.info
    kinds = ("folder", "onnx") if name == "test_convnext" else ("folder",)  # an ONNX export takes seconds
    for kind in kinds:
        export(["--run", run.name, "--to", kind, "--output-dir", str(output_dir)])
    folder = output_dir / "exports" / run.name
    faces = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = net(normalise(torch.from_numpy(faces).permute(0, 3, 1, 2))).numpy()
    shared = load(folder)
    assert shared.info == info
    with torch.inference_mode():
        assert np.array_equal(shared.net(normalise(torch.from_numpy(faces).permute(0, 3, 1, 2))).numpy(), expected)
    if "onnx" in kinds:
        _, logits = OnnxRuntime(output_dir / "exports" / f"{run.name}-float32.onnx")(faces)
        assert logits.shape == (3, 10, 7)
        assert np.abs(logits - expected).max() <= 2 * MAX_DIFFERENCE * max(1, np.abs(expected).max())
    card = (folder / "README.md").read_text()
    assert name.replace("_", r"\_") in card
    assert "after stage 2" in card
    assert "timm" in json.loads((folder / "config.json").read_text())["architecture"]

    PIL.Image.fromarray(faces[0]).save(output_dir / "face.png")
    from fer_voting.predict import main as predict

    predict([str(output_dir / "face.png"), "--model", str(folder), "--aligned", "--out", str(folder / "rows.csv")])
    (row,) = csv.DictReader((folder / "rows.csv").read_text().splitlines())
    assert row["class"] in info.class_names
