"""Faces in coloured light: the counts and the report."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
from helpers.networks import info, noise, settled

from experiments import coloured_light
from fer_voting.face_input import COLOURS, FaceInput
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.runtime import TorchRuntime


def test_decisions_that_a_light_changes_are_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(coloured_light, "LIGHTS", {"white": (1, 1, 1), "green": (0, 1, 0)})
    recognizers = {
        colour: Recognizer(TorchRuntime(settled(), replace(info(), faces=FaceInput(colour)))) for colour in COLOURS
    }
    faces = (noise(40) * np.random.default_rng(1).uniform(0.1, 1, (40, 1, 1, 3))).astype(np.uint8)
    white, green = coloured_light.judge(recognizers, faces)
    assert white == {"light": "white", "faces": 40, "rgb": 0, "grey": 0, "as_dark": 0, "as_bright": 0}
    lit = faces * np.uint8([0, 1, 0])
    shades = [
        np.stack([PIL.Image.fromarray(face).convert("L").convert("RGB") for face in some]) for some in (faces, lit)
    ]
    before, after = (recognizers["rgb"](some).class_ids for some in shades)
    assert green["grey"] == (before != after).sum() > 0
    assert green["rgb"] == (recognizers["rgb"](faces).class_ids != recognizers["rgb"](lit).class_ids).sum()
    for name, share in (("as_dark", [0.587] * 3), ("as_bright", [0, 1 / 0.587, 0])):
        seen = (faces * np.array(share)).round().clip(0, 255).astype(np.uint8)
        assert green[name] == (recognizers["grey"](faces).class_ids != recognizers["grey"](seen).class_ids).sum()
    text = coloured_light.report([white, green]).markdown[0]
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[1:-1]] == ["white", *["0.0"] * 4]
