"""The weighted vote, and its weights against other ways to the same maximum."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.logits import unequal_crops
from scipy.optimize import minimize
from torch.nn.functional import cross_entropy

from fer_voting.votes import CropOutputs, WeightedVote, fit_temperature, fit_weights, soft_vote


def weighted(weights: tuple[float, ...]) -> WeightedVote:
    return WeightedVote("weighted", weights=weights)


def test_weighted_vote_by_hand() -> None:
    logits = torch.tensor([[[4, 0, 2], [0, 8, 2], [1, 1, 1]]], dtype=torch.float64)
    expected = torch.tensor([[0.5 * 4 + 0.25, 0.25 * 8 + 0.25, 0.5 * 2 + 0.25 * 2 + 0.25]], dtype=torch.float64)
    torch.testing.assert_close(weighted((0.5, 0.25, 0.25))(logits), expected)
    torch.testing.assert_close(weighted((1 / 3, 1 / 3, 1 / 3))(logits), soft_vote(logits))
    with pytest.raises(ValueError, match=r"`weights` \(=2 of them\) must be one for each of the 3 crops"):
        weighted((0.5, 0.5))(logits)


def posterior_loss(weights: np.ndarray, logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """The sum that `fit_weights` says it minimises, in other words."""
    loss = 0.5 * sum(((len(weights) * w - 1) / 0.5) ** 2 for w in weights)
    scores = sum(w * logits[:, v] for v, w in enumerate(weights)) / temperature
    return loss + (np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]).sum()


def test_weights_of_two_crops_against_a_grid() -> None:
    logits, labels = unequal_crops(300, [0.5, 2.0])
    first, second = fit_weights(logits, labels)
    assert first + second == pytest.approx(1, abs=1e-12)
    temperature = soft_vote.fit(CropOutputs(torch.tensor(logits)), labels).temperature
    grid = np.linspace(0, 1, 201)
    losses = [posterior_loss(np.array([w, 1 - w]), logits, labels, temperature) for w in grid]
    assert first == pytest.approx(grid[np.argmin(losses)], abs=0.005)
    assert first > 0.7  # the crop with less noise


def test_weights_of_ten_crops_against_another_optimiser() -> None:
    """Softmax of free numbers by BFGS without gradients: another way over the simplex to the same point."""
    logits, labels = unequal_crops(120, [0.5, 0.5, 1, 1, 1, 2, 2, 2, 3, 3])
    weights = np.array(fit_weights(logits, labels))
    temperature = soft_vote.fit(CropOutputs(torch.tensor(logits)), labels).temperature

    def loss(free: np.ndarray) -> float:
        odds = np.exp(np.append(free, 0))
        return posterior_loss(odds / odds.sum(), logits, labels, temperature)

    found = minimize(loss, np.zeros(9), method="BFGS", options={"gtol": 1e-4})
    odds = np.exp(np.append(found.x, 0))
    assert weights == pytest.approx(odds / odds.sum(), abs=1e-3)
    assert posterior_loss(weights, logits, labels, temperature) <= found.fun + 1e-6
    assert weights[:2].min() > 0.1 > weights[-2:].max()


@pytest.mark.parametrize("deviation", [0.5, 2.0])
def test_weights_are_where_the_posterior_has_its_maximum_on_the_simplex(deviation: float) -> None:
    """Its slope is the same at all weights above 0, and the loss would grow by any that is 0: as it is concave, that
    is the maximum (the Karush-Kuhn-Tucker conditions). A wide prior lets the worst crops go."""
    logits, labels = unequal_crops(120, [0.5, 0.5, 1, 1, 1, 2, 2, 2, 3, 3])
    weights = torch.tensor(fit_weights(logits, labels, deviation), dtype=torch.float64, requires_grad=True)
    scores = torch.from_numpy(logits / fit_temperature(logits.mean(axis=1), labels)).mul(weights[:, None]).sum(dim=1)
    prior = torch.distributions.Normal(torch.tensor(0.1, dtype=torch.float64), deviation * 0.1)
    loss = cross_entropy(scores, torch.from_numpy(labels), reduction="sum") - prior.log_prob(weights).sum()
    (slope,) = torch.autograd.grad(loss / len(labels), weights)
    used = weights > 1e-12
    assert used.all() == (deviation == 0.5)
    assert slope[used].max() - slope[used].min() < 1e-5
    assert (slope[~used] > slope[used].max() + 1e-3).all()


def test_few_images_move_the_weights_little_and_many_to_the_truth() -> None:
    noise = [0.5, 0.5, 3, 3]
    few, some, many = (fit_weights(*unequal_crops(images, noise)) for images in (3, 30, 3000))
    assert np.abs(np.array(few) - 0.25).max() < 0.1
    assert few[0] < some[0] < many[0]
    assert sum(many[:2]) > 0.9
    assert fit_weights(*unequal_crops(30, noise)) == some  # the same to the last bit
    assert fit_weights(*unequal_crops(30, [1.0])) == (1.0,)  # one crop


def test_a_fitted_vote_beats_the_soft_one_where_crops_differ_and_has_its_own_temperature() -> None:
    logits, labels = unequal_crops(500, [0.3, 2.0, 2.0])
    outputs = CropOutputs(torch.tensor(logits))
    fitted = WeightedVote("weighted").fit(outputs, labels)
    assert fitted.weights == fit_weights(logits, labels)
    other, others = unequal_crops(2000, [0.3, 2.0, 2.0], seed=1)
    right = {vote: (vote(torch.tensor(other)).argmax(1).numpy() == others).mean() for vote in (fitted, soft_vote)}
    assert right[fitted] > right[soft_vote] + 0.02

    def loss(temperature: float) -> float:
        p = replace(fitted, temperature=temperature).probabilities(outputs).numpy()
        return -np.log(p[np.arange(len(labels)), labels]).mean()

    assert loss(fitted.temperature) < min(loss(0.98 * fitted.temperature), loss(1.02 * fitted.temperature))
