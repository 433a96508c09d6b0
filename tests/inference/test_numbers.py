"""Networks that predict valence and arousal, beside classes or in their place: results, files, tables, plots."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.networks import SEVEN, info, noise, without_blocks
from numpy.typing import NDArray

from fer_voting.inference.draw import annotate
from fer_voting.inference.explain import explain
from fer_voting.inference.frames import Frame
from fer_voting.inference.model_card import model_card
from fer_voting.inference.onnx_export import export_float32
from fer_voting.inference.pipeline import RecognizedFrame
from fer_voting.inference.recognizer import DetectedFaces, Recognition, Recognizer
from fer_voting.inference.rows import columns, rows_of
from fer_voting.inference.runtime import FaceNetwork, TorchRuntime
from fer_voting.inference.signals import Signals, Smoothing
from fer_voting.models import VotingResNet18
from fer_voting.models.voting import VotingNetwork
from fer_voting.networks.network import build
from fer_voting.networks.onnx import ExportInfo, OnnxRuntime
from fer_voting.votes import find_vote

NUMBERS = ("valence", "arousal")


def network(classes: tuple[str, ...]) -> VotingNetwork:
    """m1 with outputs for these classes and the two numbers, with weights that differ between crops and faces."""
    net = build(replace(info("m1"), class_names=classes, number_names=NUMBERS))
    assert isinstance(net, VotingResNet18)
    net = without_blocks(net)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for parameter in net.parameters():
            parameter.data.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def expected(net: VotingNetwork, faces: NDArray[np.uint8], vote: str, classes: int) -> NDArray[np.float64]:
    """The vote's outputs of normalised faces, by hand: softmax of the mean logits, or counts; mean or median."""
    images = (torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    with torch.inference_mode():
        crops = net(images).double().numpy()
    numbers = np.median(crops[..., classes:], axis=1) if vote == "hard" else crops[..., classes:].mean(axis=1)
    if not classes:
        return numbers
    odds = np.exp(crops[..., :classes].mean(axis=1))
    if vote == "soft":
        return np.hstack([odds / odds.sum(axis=1, keepdims=True), numbers])
    decided = crops[..., :classes].argmax(axis=2)
    counts = np.stack([(decided == k).sum(axis=1) for k in range(classes)], axis=1)
    return np.hstack([counts, numbers])


@pytest.mark.slow
@pytest.mark.parametrize("classes", [(), SEVEN])
@pytest.mark.parametrize("vote", ["soft", "hard"])
def test_every_runtime_gives_classes_then_numbers(classes: tuple[str, ...], vote: str, tmp_path: Path) -> None:
    net, of_vote = network(classes), find_vote(vote)
    about = replace(info("m1"), class_names=classes, number_names=NUMBERS)
    faces = noise(12)
    wanted = expected(net, faces, vote, len(classes))
    path = tmp_path / "numbers.onnx"
    meta = ExportInfo(classes, 24, "m1", vote, "faces", "ab" * 32, fitted=of_vote.to_values(), number_names=NUMBERS)
    outputs = len(classes) + 2
    export_float32(FaceNetwork(net, of_vote, embed_before=outputs, numbers=2), meta, path)
    in_torch = TorchRuntime(net, about, of_vote)
    for runtime in (in_torch, OnnxRuntime(path)):
        found = Recognizer(runtime)(list(faces))
        assert found.numbers is not None
        np.testing.assert_allclose(found.numbers, wanted[:, -2:], rtol=0, atol=1e-4)
        assert found.number_names == NUMBERS
        assert found.crop_logits.shape == (12, 10, len(classes))
        if classes and vote == "soft":
            np.testing.assert_allclose(found.probabilities, wanted[:, :-2], rtol=0, atol=1e-5)
        elif classes:
            top = wanted[:, :-2].max(axis=1)
            assert (wanted[np.arange(12), found.class_ids] == top).all()
        else:
            assert found.classes == [""] * 12
        np.testing.assert_allclose(runtime.embed(faces), in_torch.embed(faces), rtol=0, atol=1e-4)
        assert len(Recognizer(runtime).classify(noise(0))) == 0


def detected(classes: tuple[str, ...], numbers: list[list[float]]) -> DetectedFaces:
    count = len(numbers)
    probabilities = np.full((count, len(classes)), 1 / max(len(classes), 1), np.float32)
    recognition = Recognition(
        classes,
        probabilities,
        np.zeros((count, 1, len(classes)), np.float32),
        number_names=NUMBERS,
        numbers=np.float32(numbers),
    )
    return DetectedFaces.at(np.tile([1.0, 2, 10, 12, 0.9, 0, *[0] * 10], (count, 1)), recognition)


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_rows_and_plain_values(classes: tuple[str, ...]) -> None:
    faces = detected(classes, [[0.25, -0.5]])
    (face,) = faces
    assert face.numbers == {"valence": 0.25, "arousal": -0.5}
    assert (faces.classes, faces.crop_classes.tolist()) == (["a" if classes else ""], [["a" if classes else ""]])
    assert json.loads(json.dumps(faces.to_dict()))["faces"][0]["numbers"] == face.numbers
    item = RecognizedFrame(Frame("x.jpg", 0, None, np.zeros((40, 40, 3), np.uint8)), faces, [0], noise(1))
    (row,) = rows_of(item)
    names = columns(classes, NUMBERS)
    assert names[-4:] == ["valence", "arousal", "vote_agreement", "status"]
    assert row.keys() <= {*names}
    assert (row["valence"], row["arousal"], row["status"]) == (0.25, -0.5, "ok")
    assert row["class"] == ("a" if classes else None)
    assert (row["confidence"] is None) == (row["vote_agreement"] is None) == (not classes)
    assert (annotate(np.zeros((80, 200, 3), np.uint8), faces) > 0).any()
    pandas = pytest.importorskip("pandas")
    assert isinstance(faces.to_pandas(), pandas.DataFrame)


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_numbers_over_time(classes: tuple[str, ...], tmp_path: Path) -> None:
    """Averaged as probabilities are; the mean over the seconds that each frame lasts, and the plot."""
    values, times = [[0.0, 1.0], [0.5, 0.0], [1.0, -0.5]], [0.0, 1.0, 3.0]
    items = [
        RecognizedFrame(Frame("v", i, t, np.zeros((0, 0, 3), np.uint8), "v.mp4"), detected(classes, [v]), [4], noise(1))
        for i, (t, v) in enumerate(zip(times, values, strict=True))
    ]
    smoothed = list(Smoothing(1.5)(items))
    assert [item.faces.numbers.round(6).tolist() for item in smoothed] == [[[0, 1]], [[0.25, 0.5]], [[1, -0.5]]]
    signals = Signals(tmp_path, classes, NUMBERS)
    for item in items:
        signals.add(item)
    signals.close()
    with (tmp_path / "v.mp4-seconds.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["person"], row["seconds"]) == ("4", "5.000")  # 1 s, 2 s, and as long as the one before
    assert float(row["mean_valence"]) == pytest.approx((0 * 1 + 0.5 * 2 + 1 * 2) / 5, abs=1e-3)
    assert float(row["mean_arousal"]) == pytest.approx((1 * 1 + 0 * 2 - 0.5 * 2) / 5, abs=1e-3)
    assert (tmp_path / "v.mp4-person4.png").stat().st_size > 5_000


def test_maps_are_of_classes() -> None:
    about = replace(info("m1"), class_names=(), number_names=NUMBERS)
    with pytest.raises(ValueError, match="valence and arousal cannot be explained"):
        explain(Recognizer(TorchRuntime(network(()), about)), noise(1)[0])
    both = replace(about, class_names=SEVEN)
    assert len(explain(Recognizer(TorchRuntime(network(SEVEN), both)), noise(1)[0]).maps) == 7


def test_the_card_shows_numbers() -> None:
    metrics = {
        name: {"valence": 0.25 * k, "arousal": 0.5}
        for k, name in enumerate(("rmse", "pearson", "ccc", "sign_agreement"))
    }
    result = {
        "votes": {"soft": {"val": metrics}},
        "split": "m1",
        "counts": {"train": {"all": 3}},
        "epochs": 1,
        "seed": 0,
        "name": "mine",
        "started": "today",
    }
    about = replace(info("m1"), class_names=(), number_names=NUMBERS)
    card = model_card("mine", about, "soft", result | {"data_fingerprint": "ab"}, {})
    assert "| valence | validation | 0 | 0.25 | 0.5 | 0.75 |" in card
    assert "accuracy (%)" not in card
    assert "Classes:" not in card
