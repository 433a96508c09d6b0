"""Calibration, against hand-made values, a plain loop, torchmetrics away from its fault, and a grid of temperatures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from fer_voting.results.calibration import BINS, reliability
from fer_voting.votes import VOTES, CropOutputs, SoftVote, soft_vote


def test_a_hand_made_table() -> None:
    """Five bins. (0.6, 0.8]: 0.7 and 0.8, one right. (0.8, 1]: 0.9, 1, 1, two right. Nothing below 0.5."""
    found = reliability(np.array([0.7, 0.8, 0.9, 1.0, 1.0]), np.array([True, False, True, True, False]), bins=5)
    assert found["counts"] == [0, 0, 0, 2, 3]
    assert found["confidences"][3:] == pytest.approx([0.75, 2.9 / 3])
    assert found["accuracies"][3:] == pytest.approx([0.5, 2 / 3])
    assert found["accuracies"][:3] == [None] * 3
    assert found["error"] == pytest.approx((2 * 0.25 + 3 * 0.3) / 5)


def test_certainty_is_in_the_last_bin() -> None:
    """0.95 (right) and 1.0 (wrong) are one bin, whose gap is 0.975 - 0.5; in bins of their own they give 0.525."""
    found = reliability(np.array([0.95, 1.0]), np.array([True, False]))
    assert found["counts"] == [0] * 14 + [2]
    assert found["error"] == pytest.approx(0.475)


def test_an_edge_belongs_to_the_bin_below_and_zero_to_the_first() -> None:
    found = reliability(np.array([0, 0.1, 0.25, 0.26, 0.5, 0.75, 0.76, 1]), np.ones(8, bool), bins=4)
    assert found["counts"] == [3, 2, 1, 2]
    # The softmax of float32 logits may exceed 1 by its rounding.
    above = np.nextafter(np.ones(1, np.float32), np.float32(2))
    assert reliability(above, np.array([True]), bins=4)["counts"] == [0, 0, 0, 1]


def random_case(seed: int, images: int = 400, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(images, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities, rng.integers(0, classes, images)


@pytest.mark.parametrize("seed", range(3))
def test_error_is_that_of_a_plain_loop_and_of_torchmetrics(seed: int) -> None:
    probabilities, labels = random_case(seed)
    confidences, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for i in range(BINS):
        inside = [(c, r) for c, r in zip(confidences, correct, strict=True) if i / BINS < c <= (i + 1) / BINS]
        if inside:
            error += len(inside) / len(labels) * abs(np.mean([c for c, _ in inside]) - np.mean([r for _, r in inside]))
    found = reliability(confidences, correct)
    assert sum(found["counts"]) == len(labels)
    assert found["error"] == pytest.approx(error)
    theirs = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(labels), 7, n_bins=BINS)
    assert found["error"] == pytest.approx(theirs.item(), abs=1e-6)


def test_what_are_no_probabilities_is_refused() -> None:
    for wrong in (1.01, -0.01, np.nan):
        with pytest.raises(ValueError, match="`confidences`"):
            reliability(np.array([0.5, wrong]), np.array([True, False]))
    with pytest.raises(ValueError, match="no images"):
        reliability(np.empty(0), np.empty(0, bool))


def overconfident(factor: float, images: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Crop logits [N, 3, 5] whose mean is `factor` times the logits that the labels were drawn from."""
    rng = np.random.default_rng(7)
    truth = rng.normal(size=(images, 5))
    shares = np.exp(truth) / np.exp(truth).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(5, p=row) for row in shares])
    noise = rng.normal(size=(images, 3, 5))
    return factor * (truth[:, None] + noise - noise.mean(axis=1, keepdims=True)), labels


def outputs(logits: np.ndarray) -> CropOutputs:
    return CropOutputs(torch.tensor(logits))


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_temperature_undoes_the_factor_on_the_logits(factor: float) -> None:
    logits, labels = overconfident(factor)
    temperature = soft_vote.fit(outputs(logits), labels).temperature
    assert temperature == pytest.approx(factor, rel=0.1)

    def loss(t: float) -> float:
        p = SoftVote("soft", t).probabilities(outputs(logits)).numpy()
        return -np.log(p[np.arange(len(labels)), labels]).mean()

    grid = np.geomspace(0.1, 10, 201)
    best = grid[np.argmin([loss(t) for t in grid])]
    assert temperature == pytest.approx(best, rel=0.024)  # a step of the grid
    if factor == 3.0:
        before, after = (SoftVote("soft", t).probabilities(outputs(logits)).numpy() for t in (1, temperature))
        correct = before.argmax(axis=1) == labels
        assert reliability(after.max(axis=1), correct)["error"] < 0.04
        assert reliability(before.max(axis=1), correct)["error"] > 0.2


def test_temperature_takes_what_a_run_stores() -> None:
    """Float32 as in predictions/<vote>-val.npz, with labels as an array or a tensor: the same number."""
    logits, labels = overconfident(2.0, images=200)
    stored = outputs(logits.astype(np.float32))
    assert soft_vote.fit(stored, labels) == soft_vote.fit(stored, torch.tensor(labels)) != soft_vote


def test_temperature_of_the_votes_that_count_shares_is_one() -> None:
    logits, labels = overconfident(3.0, images=50)
    for name, vote in VOTES.items():
        assert vote.is_probability is (name != "soft")
        assert (vote.fit(outputs(logits), labels) == vote) is vote.is_probability
        before = vote.probabilities(outputs(logits))
        after = replace(vote, temperature=3.0).probabilities(outputs(logits))
        assert torch.equal(before.argmax(1), vote(torch.tensor(logits)).argmax(1))
        assert torch.equal(before.argmax(1), after.argmax(1))
        assert torch.equal(before, after) is vote.is_probability
        assert before.sum(1).numpy() == pytest.approx(1.0)


def test_temperature_stays_finite_where_all_is_right() -> None:
    logits, labels = np.eye(3)[:, None].repeat(2, axis=1), np.arange(3)
    assert 0.04 < soft_vote.fit(outputs(logits), labels).temperature < 0.1
    with pytest.raises(ValueError, match="at least one image"):
        soft_vote.fit(outputs(logits[:0]), labels[:0])
