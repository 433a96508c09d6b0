"""Faces to probabilities, in PyTorch."""

import numpy as np
import pytest
import torch
from helpers.networks import small_info, small_network

from fer_voting.data.module import normalise
from fer_voting.inference.runtime import FaceNetwork, TorchRuntime
from fer_voting.votes import find_vote


def some_faces(count: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 24, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("vote", ["soft", "softprob", "hard", "weighted"])
@pytest.mark.parametrize("split", ["baseline", "m3"])
def test_scores_are_the_votes_probabilities_of_the_networks_own_logits(split: str, vote: str):
    net, faces = small_network(split), some_faces()
    weights = (1.0,) if split == "baseline" else (0.3, 0.2, 0.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05)
    chosen = find_vote(vote).from_values({"temperature": 2.0, "weights": list(weights)})
    with torch.inference_mode():
        expected = net(normalise(torch.from_numpy(faces).permute(0, 3, 1, 2))).double().numpy()
    scores, logits = TorchRuntime(small_network(split), small_info(split), chosen)(faces)
    assert (scores.dtype, logits.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(logits, expected, atol=1e-5)

    def softmax(values: np.ndarray) -> np.ndarray:
        odds = np.exp(values)
        return odds / odds.sum(-1, keepdims=True)

    if vote == "soft":
        probabilities = softmax(expected.mean(1) / 2)
    elif vote == "weighted":
        probabilities = softmax(np.einsum("v,nvk->nk", weights, expected) / 2)
    elif vote == "softprob":
        probabilities = softmax(expected).mean(1)
    else:
        decisions = expected.argmax(-1)
        shares = np.stack([(decisions == k).mean(1) for k in range(7)], 1)
        np.testing.assert_allclose(scores, shares, atol=0.5 / expected.shape[1])  # a tie's winner gets half a crop
        probabilities = scores
    np.testing.assert_allclose(scores, probabilities, atol=1e-5)
    np.testing.assert_allclose(scores.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("faces", [some_faces() / np.float32(255), some_faces()[:, :, 1:], some_faces(0)])
def test_faces_of_another_form_are_refused(faces: np.ndarray):
    with pytest.raises(ValueError, match=r"`faces` must be uint8 \[B, 24, 24, 3\] with B >= 1, not"):
        TorchRuntime(small_network(), small_info())(faces)


def test_channels_and_pixels_are_not_mixed_up():
    """A face that is red at the left is another tensor than one that is blue at the top."""
    seen = []

    class Net(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(images)
            return images.new_zeros(len(images), 1, 7)

    face = np.zeros((1, 24, 24, 3), np.uint8)
    face[0, 2, 5] = (255, 51, 0)
    FaceNetwork(Net())(torch.from_numpy(face))
    assert seen[0][0, :, 2, 5].tolist() == pytest.approx([2, -1.2, -2])
    assert seen[0][0, :, 5, 2].tolist() == [-2, -2, -2]


def test_bf16_is_close():
    exact, _ = TorchRuntime(small_network(), small_info())(some_faces())
    short, _ = TorchRuntime(small_network(), small_info(), precision="bf16")(some_faces())
    assert short.dtype == np.float32
    assert 0 < np.abs(exact - short).max() < 0.05


def test_a_read_only_array_is_taken_without_a_warning():
    faces = some_faces()
    faces.flags.writeable = False
    TorchRuntime(small_network(), small_info())(faces)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        ({"vote": find_vote("weighted")}, "needs a weight fitted on validation images"),
        ({"precision": "int4"}, r"`precision` \(='int4'\) must be one of float32, bf16"),
        ({"device": "toaster"}, r"`device` \(='toaster'\) is not here"),
        ({"device": "cuda:99"}, r"`device` \(='cuda:99'\) is not here"),
    ],
)
def test_mistakes(words: dict, match: str):
    with pytest.raises(ValueError, match=match):
        TorchRuntime(small_network(), small_info(), **words)
