"""The studies' figures, against hand-computed values and other people's code."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_auroc

from experiments.crop_analysis import agreeing_crops, area_under_roc, crop_choices, label_shares, mean_accuracy
from fer_voting.models.crops import ten_crops


def test_choices_of_crops() -> None:
    choices = crop_choices()
    assert {name: len(chosen) for name, chosen in choices.items()} == {
        "1, not mirrored": 5,
        "2, with mirror images": 5,
        "2, not mirrored": 10,
        "4, with mirror images": 10,
        "5, not mirrored": 1,
        "10, with mirror images": 1,
    }
    assert choices["1, not mirrored"] == [(0,), (1,), (2,), (3,), (4,)]
    (crops,) = ten_crops(torch.randn(1, 2, 12, 12))
    for crop, mirror_image in choices["2, with mirror images"]:
        assert torch.equal(crops[mirror_image], crops[crop].flip(-1))
    assert choices["4, with mirror images"][0] == (0, 1, 6, 5)
    assert sorted(choices["10, with mirror images"][0]) == [*range(10)]


def logits_of(decisions: list[list[int]], strengths: list[list[float]]) -> torch.Tensor:
    """Crop logits [N, V, 3] whose crops decide so, by so much."""
    logits = torch.nn.functional.one_hot(torch.tensor(decisions), 3).float()
    return logits * torch.tensor(strengths)[..., None]


def test_accuracy_of_fewer_crops_is_the_mean_over_the_choices() -> None:
    """Image 0 (class 0): crops say 0, 1, 0; image 1 (class 2): crops say 2, 2, 1; the second crop is the strongest.
    One crop: 2 of 3 right both times. Pairs (0, 1), (0, 2), (1, 2) say 1, 0, 1 of image 0 and always 2 of image 1."""
    logits = logits_of([[0, 1, 0], [2, 2, 1]], [[1, 3, 1], [1, 3, 0.5]])
    labels = np.array([0, 2])
    assert mean_accuracy(logits, labels, "soft", [(0,), (1,), (2,)]) == pytest.approx(4 / 6)
    assert mean_accuracy(logits, labels, "soft", [(0, 1), (0, 2), (1, 2)]) == pytest.approx((1 + 3) / 6)
    assert mean_accuracy(logits, labels, "soft", [(0, 1, 2)]) == pytest.approx(1 / 2)  # 0 has 2, 1 has 3; 2 has 4
    assert mean_accuracy(logits, labels, "hard", [(0, 1, 2)]) == pytest.approx(1)


def test_agreeing_crops() -> None:
    logits = logits_of([[0, 1, 0], [2, 2, 2], [0, 1, 2]], [[1, 3, 1], [1, 1, 1], [1, 2, 1]])
    assert agreeing_crops(logits).tolist() == [1, 3, 1]


def test_area_under_roc() -> None:
    rng = np.random.default_rng(0)
    positive = rng.random(500) < 0.6
    scores = np.round(rng.random(500) + 0.3 * positive, 1)  # with many ties, as counts of crops have
    expected = binary_auroc(torch.from_numpy(scores / 2), torch.from_numpy(positive).int()).item()
    assert area_under_roc(scores, positive) == pytest.approx(expected, abs=1e-6)
    assert area_under_roc(np.array([1, 2, 3]), np.array([False, True, True])) == 1.0
    assert area_under_roc(np.array([5, 5, 5]), np.array([False, True, True])) == 0.5
    assert np.isnan(area_under_roc(np.array([1, 2]), np.array([True, True])))


def test_whose_error_it_is() -> None:
    """Five of six images have another label; of the four errors by label one each is the label's (decision is the
    other label), neither's, and two are the network's (both labels agree)."""
    decisions = np.array([1, 1, 2, 2, 0, 0])
    labels = np.array([1, 0, 0, 1, 1, 1])
    others = np.array([1, 1, 0, 0, 1, -1])
    found = label_shares(decisions, labels, others)
    assert (found.by_label, found.by_other, found.wrong) == pytest.approx((1 / 5, 2 / 5, 4 / 5))
    assert (found.of_label, found.of_network, found.of_neither) == (0.25, 0.5, 0.25)
    with pytest.raises(ValueError, match="no image has another label"):
        label_shares(decisions, labels, np.full(6, -1))
