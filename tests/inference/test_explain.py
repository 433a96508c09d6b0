"""The class-activation map is where the logits come from, exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from helpers.networks import small_info, small_network

from fer_voting.face_input import FaceInput
from fer_voting.inference.explain import crop_rectangles, draw_explanation, explain
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.runtime import TorchRuntime
from fer_voting.models.crops import ten_crops


def recognizer(split: str, **words) -> Recognizer:
    return Recognizer(TorchRuntime(small_network(split), small_info(split), **words))


def a_face(side: int = 24) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_the_network_that_ships_is_explained_in_pytorch():
    face = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    recognizer = Recognizer.load(device="cpu")
    found = explain(recognizer, face)
    np.testing.assert_allclose(found.recognition.probabilities, recognizer(face).probabilities, atol=1e-4)
    assert recognizer.in_torch is recognizer.in_torch.in_torch


def test_the_face_is_shown_as_the_network_sees_it():
    face = a_face()
    rgb = explain(recognizer("m1"), face)
    assert np.array_equal(rgb.face, face)
    grey_info = replace(small_info("m1"), faces=FaceInput("grey"))
    grey = explain(Recognizer(TorchRuntime(small_network("m1"), grey_info)), face)
    assert np.array_equal(grey.face[..., 0], np.asarray(PIL.Image.fromarray(face).convert("L")))
    assert np.ptp(grey.face, axis=2).max() == np.ptp(grey.crops[9], axis=2).max() == 0
    assert np.array_equal(explain(recognizer("m1"), grey.face).recognition.crop_logits, grey.recognition.crop_logits)


@pytest.mark.parametrize("split", ["baseline", "input", "m1", "m2", "m3"])
def test_the_mean_of_a_crops_map_is_its_logit_less_the_bias(split: str):
    found = explain(recognizer(split), a_face(40))
    bias = small_network(split).backbone.fc.bias.detach().numpy()
    np.testing.assert_allclose(found.crop_maps.mean((2, 3)) + bias, found.recognition.crop_logits[0], atol=1e-5)


@pytest.mark.parametrize("split", ["baseline", "input", "m1", "m2", "m3"])
def test_the_merged_map_holds_every_crops_map_once(split: str):
    """Summed over the face, counted as often as crops cover a pixel, it is the soft vote's logit."""
    found = explain(recognizer(split), a_face())
    bias = small_network(split).backbone.fc.bias.detach().numpy()
    crops = len(found.crops)
    left, top, right, bottom = found.rectangles[0]
    area = (right - left) * (bottom - top)
    assert area == (24 * 24 if split == "baseline" else 20 * 20)
    total = (found.maps * found.coverage).sum((1, 2)) / (crops * area)
    np.testing.assert_allclose(total + bias, found.recognition.crop_logits[0].mean(0), atol=1e-4)
    assert found.coverage.sum() == crops * area
    if crops == 10:
        assert found.coverage[12, 12] == 10
        # The crop of that corner and its mirrored twin; at this size, the centre of m3 rounds to it too.
        assert found.coverage[0, 0] == (3 if split == "m3" else 2)


@pytest.mark.parametrize("split", ["input", "m1", "m2", "m3"])
def test_crops_lie_where_the_network_cuts_them(split: str):
    """The crop operation on a map of the network's size, whose pixels say where they are, tells the same."""
    size = 48
    stride = {"input": 1, "m1": 1, "m2": 2, "m3": 4}[split]
    side = size // stride
    places = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"))[None] * stride
    cut = ten_crops(places.float())[0].int()  # [10, 2, h, w]: row and column of each pixel
    rectangles, mirrored = crop_rectangles(split, size)
    for crop, (left, top, right, bottom), mirror in zip(cut, rectangles, mirrored, strict=True):
        assert (crop[0].min(), crop[0].max() + stride) == (top, bottom)
        assert (crop[1].min(), crop[1].max() + stride) == (left, right)
        assert (crop[1, 0, 0] > crop[1, 0, 1]) == mirror


def test_at_the_input_the_crops_are_what_the_network_sees():
    found = explain(recognizer("input"), a_face())
    images = torch.from_numpy(found.face).permute(2, 0, 1)[None]
    for ours, theirs in zip(found.crops, ten_crops(images)[0], strict=True):
        assert np.array_equal(ours, theirs.permute(1, 2, 0).numpy())


def test_the_map_is_where_the_evidence_is():
    """A network that answers to bright pixels alone has its map where the bright spot is, mirrored crops or not."""
    net = small_network("m3")
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.zero_()
            if name.endswith(("bn1.weight", "bn2.weight", "downsample.1.weight")):
                parameter.fill_(1)
        for module in net.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.reset_running_stats()
        net.backbone.conv1.weight[0, :, 1, 1] = 1  # brightness, from the dark's -6 up to 6
        net.backbone.bn1.bias[0] = 6
        for layer in (net.backbone.layer2, net.backbone.layer3, net.backbone.layer4):
            layer[0].downsample[0].weight[0, 0] = 1
        net.backbone.fc.weight[2, 0] = 1
    face = np.zeros((48, 48, 3), np.uint8)
    face[8:16, 32:40] = 255
    info = small_info("m3")
    found = explain(Recognizer(TorchRuntime(net, type(info)("m3", 8, info.class_names, 48, "faces"))), face)
    assert found.recognition.class_ids[0] == 2
    heat = found.maps[2]
    rows, columns = np.mgrid[:48, :48]
    y, x = (float((heat * place).sum() / heat.sum()) for place in (rows, columns))
    assert 6 <= y <= 18
    assert 30 <= x <= 42
    assert not found.maps[[0, 1, 3, 4, 5, 6]].any()


@pytest.mark.parametrize("size", [26, 27, 50])
@pytest.mark.parametrize("split", ["input", "m2", "m3"])
def test_sizes_that_do_not_divide(split: str, size: int):
    """Crops and pixels are rounded; every crop's map still has its logit as its mean, and lies in the face."""
    info = small_info(split)
    runtime = TorchRuntime(small_network(split), type(info)(split, 8, info.class_names, size, "faces"))
    found = explain(Recognizer(runtime), a_face())
    bias = small_network(split).backbone.fc.bias.detach().numpy()
    np.testing.assert_allclose(found.crop_maps.mean((2, 3)) + bias, found.recognition.crop_logits[0], atol=1e-5)
    assert found.coverage.shape == (size, size)
    assert found.coverage.min() >= 2
    for crop, (left, top, right, bottom) in zip(found.crops, found.rectangles, strict=True):
        assert crop.shape == (bottom - top, right - left, 3)
        assert 0 <= left < right <= size
        assert 0 <= top < bottom <= size
        assert abs((right - left) / size - 5 / 6) < 0.09


def test_in_bf16_it_runs():
    found = explain(recognizer("m3", precision="bf16"), a_face())
    assert found.maps.dtype == np.float32
    np.testing.assert_allclose(
        found.crop_maps.mean((2, 3)) + small_network().backbone.fc.bias.detach().numpy(),
        found.recognition.crop_logits[0],
        atol=0.1,
    )


@pytest.mark.parametrize("split", ["baseline", "m3"])
def test_the_picture(tmp_path: Path, split: str):
    draw_explanation(tmp_path / "new" / "a.png", explain(recognizer(split), a_face()), "a $file^ name_.jpg")
    with PIL.Image.open(tmp_path / "new" / "a.png") as image:
        assert image.width > image.height > 200
        assert np.asarray(image.convert("L")).std() > 20


def test_only_what_pytorch_runs_can_be_explained():
    runtime = recognizer("m3").runtime

    def exported(faces: np.ndarray):
        return runtime(faces)

    exported.faces = runtime.faces  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="an exported file cannot be explained"):
        explain(Recognizer(exported), a_face())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a Identity cannot be explained"):
        explain(Recognizer(TorchRuntime(torch.nn.Identity(), small_info())), a_face())
