"""The faces that a network wants, as its file says."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.networks import small_info, small_network, write_checkpoint

from fer_voting.face_input import FaceInput
from fer_voting.networks import Network, load
from fer_voting.networks.onnx import ExportInfo

GREY = {"colour": "grey"}


def test_values_come_back_and_what_is_missing_has_its_default():
    faces = FaceInput("grey", 0.2, False, "my_package:find")
    assert FaceInput.from_values(faces.to_values()) == faces
    assert FaceInput.from_values(GREY) == FaceInput("grey", 0.05, True, "centerface")


def changed(metadata: dict, faces: object) -> dict:
    rest = {name: value for name, value in metadata.items() if name != "faces"}
    return rest if faces is None else {**rest, "faces": faces}


def from_checkpoint(folder: Path, faces: dict | None) -> FaceInput:
    path = write_checkpoint(folder / "net.ckpt")
    checkpoint = torch.load(path, weights_only=True)
    torch.save(checkpoint | {"fer_voting": changed(checkpoint["fer_voting"], faces)}, path)
    return load(path).info.faces


def from_folder(folder: Path, faces: dict | None) -> FaceInput:
    Network(small_network(), small_info()).save_pretrained(folder)
    config = folder / "config.json"
    config.write_text(json.dumps(changed(json.loads(config.read_text()), faces)))
    return load(folder).info.faces


def from_onnx(folder: Path, faces: dict | None) -> FaceInput:
    metadata = ExportInfo(("a", "b"), 24, "m1", "soft", "faces", "ab" * 32).to_metadata()
    return ExportInfo.from_metadata(changed(metadata, faces and json.dumps(faces)), folder / "net.onnx").faces


@pytest.mark.parametrize(
    ("read", "file"), [(from_checkpoint, "net.ckpt"), (from_folder, "config.json"), (from_onnx, "net.onnx")]
)
def test_a_file_that_does_not_say_the_colour_is_not_guessed_at(read: Callable, file: str, tmp_path: Path):
    for faces in (None, {"margin": 0.2}):
        with pytest.raises(ValueError, match=rf'{file}.* lacks the colour .*: add "faces": {{"colour": "grey"}} if'):
            read(tmp_path, faces)
    assert read(tmp_path, GREY) == FaceInput("grey")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"colour": "sepia"}, r"`colour` \(='sepia'\) must be rgb or grey"),
        (GREY | {"margin": "wide"}, r"`margin` \(='wide'\) must be a number"),
        (GREY | {"margin": float("nan")}, "`margin`"),
        (GREY | {"margin": True}, "`margin`"),
        (GREY | {"align": 1}, r"`align` \(=1\) must be true or false"),
        (GREY | {"detector": "a\nb"}, "`detector`"),
        ({"angle": 1}, "must be only these names, not 'angle': colour, margin, align, detector"),
        ([], "`faces` must be a mapping"),
    ],
)
def test_other_values_are_refused(values: object, reason: str):
    with pytest.raises(ValueError, match=reason):
        FaceInput.from_values(values)
