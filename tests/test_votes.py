"""The votes against values worked out by hand."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from scipy.optimize import minimize
from torch import Tensor
from torch.nn.functional import cross_entropy

from fer_voting.config import CONF_DIR
from fer_voting.votes import (
    ALL_VOTES,
    VOTES,
    AdaptiveCost,
    AdaptiveVote,
    CropOutputs,
    SoftVote,
    Vote,
    WeightedVote,
    confidence_vote,
    find_vote,
    fit_temperature,
    fit_threshold,
    fit_weights,
    hard_vote,
    soft_vote,
    softprob_vote,
)
from fer_voting.votes.vote import TEMPERATURES

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def crops(*rows: list[float]) -> Tensor:
    """Logits of one image, a row a crop: `[1, V, K]`."""
    return torch.tensor([rows], dtype=torch.float64)


def test_the_three_votes_by_hand() -> None:
    log = torch.log(torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)).tolist()
    # Softmax of the rows: (1/3, 2/3), (3/4, 1/4), (6/7, 1/7) over the two classes.
    logits = crops([log[0], log[1]], [log[2], log[0]], [log[3], log[0]])
    soft = [(log[2] + log[3]) / 3, log[1] / 3]
    torch.testing.assert_close(soft_vote(logits), torch.tensor([soft], dtype=torch.float64))
    probability = (1 / 3 + 3 / 4 + 6 / 7) / 3
    torch.testing.assert_close(
        softprob_vote(logits), torch.tensor([[probability, 1 - probability]], dtype=torch.float64)
    )
    # Two of three crops for class 0, which also gets the decision's half vote.
    torch.testing.assert_close(hard_vote(logits), torch.tensor([[2.5 / 3.5, 1 / 3.5]], dtype=torch.float64))


def test_the_votes_can_disagree() -> None:
    # One confident crop against two doubtful ones: soft takes it, the others don't.
    logits = crops([9, 0, 0], [0, 1, 0], [0, 1, 0])
    assert soft_vote(logits).argmax() == 0
    assert hard_vote(logits).argmax() == 1
    # softprob: class 0 has ~1 + 2 * 0.21, class 1 has 2 * 0.58.
    assert softprob_vote(logits).argmax() == 0
    assert softprob_vote(crops([9, 0, 0], [0, 5, 0], [0, 3, 0])).argmax() == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_tie_goes_to_the_soft_vote_among_the_tied(dtype: torch.dtype) -> None:
    # Two crops each for classes 0 and 2; class 1 has the best mean but no crop.
    logits = crops([3, 2.5, 0], [3, 2.5, 0], [0, 2.5, 4], [0, 2.5, 4]).to(dtype)
    assert soft_vote(logits).argmax() == 1
    assert hard_vote(logits).argmax() == 2
    assert hard_vote(logits.flip(2)).argmax() == 0


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e4])
def test_the_tie_break_is_exact_where_a_softmax_saturates(dtype: torch.dtype, scale: float) -> None:
    """The tied classes' means differ in the last place, and a third class's mean drowns both."""
    step = 2 * torch.finfo(dtype).eps
    logits = scale * crops([1, 0, 0.99], [0, 1 + step, 0.99]).to(dtype)
    assert logits.argmax(2).tolist() == [[0, 1]]
    assert soft_vote(logits)[0, 0] < soft_vote(logits)[0, 1] < soft_vote(logits)[0, 2]
    assert hard_vote(logits).argmax() == 1


def test_the_tie_break_survives_infinite_means() -> None:
    infinity = float("inf")
    # Classes 1 and 2 have one crop each and a mean of minus infinity; class 0 has the best mean and no crop.
    logits = crops([0, 1, -infinity], [0, -infinity, 1])
    assert hard_vote(logits).argmax() == 1
    # In float32 the sum of class 1 overflows, the sum of class 0 doesn't.
    huge = torch.tensor([[[1.0, 0.0], [0.0, 3e38], [1.0, 0.0], [0.9, 3e38]]])
    assert hard_vote(huge).argmax() == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_full_tie_goes_to_the_first_class(dtype: torch.dtype) -> None:
    logits = crops([0, 1, 1], [0, 1, 1], [1, 0, 1], [0, 0, 1]).to(dtype)  # a crop's own tie: its first class
    assert hard_vote(logits).argmax() == 1  # two crops of four
    assert hard_vote(crops([0, 0, 0]).to(dtype)).argmax() == 0
    assert hard_vote(crops([0, 1, 0], [0, 0, 1]).to(dtype)).argmax() == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_majority_is_never_overruled(dtype: torch.dtype) -> None:
    # Six crops of ten barely for class 0, four wildly for class 1.
    logits = crops(*[[0.01, 0.0]] * 6, *[[0.0, 1000.0]] * 4).to(dtype)
    assert hard_vote(logits).argmax() == 0
    assert soft_vote(logits).argmax() == 1


@pytest.mark.parametrize("dtype", FLOATS)
def test_hard_vote_against_counting(dtype: torch.dtype) -> None:
    """Few levels, so that ties abound: the definition in plain Python."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randint(0, 4, (200, 10, 7), generator=generator).to(dtype)
    decisions = hard_vote(logits).argmax(dim=1).tolist()
    ties = 0
    for rows, decision in zip(logits.tolist(), decisions, strict=True):
        ballots = [row.index(max(row)) for row in rows]
        counts = [ballots.count(k) for k in range(7)]
        tied = [k for k in range(7) if counts[k] == max(counts)]
        ties += len(tied) > 1
        means = soft_vote(torch.tensor([rows], dtype=dtype))[0].tolist()
        assert decision == max(tied, key=lambda k: (means[k], -k))
    assert ties > 20


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("vote", VOTES)
def test_scores_keep_dtype_and_shape(vote: str, dtype: torch.dtype) -> None:
    logits = torch.randn(5, 10, 7).to(dtype)
    scores = VOTES[vote](logits)
    assert scores.dtype == dtype
    assert scores.shape == (5, 7)
    if VOTES[vote].is_probability:  # a distribution over the classes
        torch.testing.assert_close(scores.double().sum(1), torch.ones(5).double(), rtol=0.02, atol=0)


@pytest.mark.parametrize("vote", VOTES)
def test_a_single_crop_decides_alone(vote: str) -> None:
    logits = torch.randn(20, 1, 7)
    assert torch.equal(VOTES[vote](logits).argmax(1), logits[:, 0].argmax(1))


def test_confidence_vote_by_hand() -> None:
    log = torch.log(torch.tensor([1.0, 2.0, 3.0, 6.0], dtype=torch.float64)).tolist()
    # Softmax of the rows: (1/3, 2/3), (3/4, 1/4), (6/7, 1/7); their largest are the weights.
    logits = crops([log[0], log[1]], [log[2], log[0]], [log[3], log[0]])
    weights = [2 / 3, 3 / 4, 6 / 7]
    first = (weights[0] * 1 / 3 + weights[1] * 3 / 4 + weights[2] * 6 / 7) / sum(weights)
    torch.testing.assert_close(confidence_vote(logits), torch.tensor([[first, 1 - first]], dtype=torch.float64))


def test_confidence_vote_against_a_loop() -> None:
    logits = 3 * torch.randn(50, 10, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for rows, scores in zip(logits.tolist(), confidence_vote(logits).tolist(), strict=True):
        sums, total = [0.0] * 7, 0.0
        for row in rows:
            odds = [math.exp(value) for value in row]
            shares = [odd / sum(odds) for odd in odds]
            total += max(shares)
            sums = [s + max(shares) * share for s, share in zip(sums, shares, strict=True)]
        assert scores == pytest.approx([s / total for s in sums], abs=1e-12)


def weighted(weights: tuple[float, ...]) -> WeightedVote:
    return WeightedVote("weighted", weights=weights)


def test_weighted_vote_by_hand() -> None:
    logits = crops([4, 0, 2], [0, 8, 2], [1, 1, 1])
    expected = torch.tensor([[0.5 * 4 + 0.25, 0.25 * 8 + 0.25, 0.5 * 2 + 0.25 * 2 + 0.25]], dtype=torch.float64)
    torch.testing.assert_close(weighted((0.5, 0.25, 0.25))(logits), expected)
    torch.testing.assert_close(weighted((1 / 3, 1 / 3, 1 / 3))(logits), soft_vote(logits))
    with pytest.raises(ValueError, match=r"`weights` \(=2 of them\) must be one for each of the 3 crops"):
        weighted((0.5, 0.5))(logits)


def unequal_crops(images: int, noise: list[float], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Crop logits [N, V, 5] around the logits that the labels were drawn from, each position with its own noise."""
    rng = np.random.default_rng(seed)
    truth = 2 * rng.normal(size=(images, 5))
    labels = np.array([rng.choice(5, p=np.exp(row) / np.exp(row).sum()) for row in truth])
    errors = rng.normal(size=(images, len(noise), 5)) * np.array(noise)[:, None]
    return truth[:, None] + errors, labels


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


@pytest.mark.parametrize(("lead", "images"), [(1.0, 4), (2.0, 4), (0.5, 3), (5.0, 100)])
def test_temperature_by_hand(lead: float, images: int) -> None:
    """One of n decisions is wrong, each by the same lead: likeliest where exp(lead / temperature) is n - 1 to 1."""
    scores, labels = np.tile([lead, 0.0], (images, 1)), np.arange(images) == 0
    assert fit_temperature(scores, labels.astype(np.int64)) == pytest.approx(lead / math.log(images - 1), rel=1e-6)


def test_temperature_of_decisions_all_right_or_all_wrong_is_the_end_of_its_range() -> None:
    scores = np.array([[1.0, 0.0], [2.0, 0.0]])
    assert fit_temperature(scores, np.array([0, 0])) == pytest.approx(TEMPERATURES[0], rel=2e-6)
    assert fit_temperature(scores, np.array([1, 1])) == pytest.approx(TEMPERATURES[1], rel=2e-6)


def test_what_networks_compute_in_single_precision_is_fitted_in_double() -> None:
    """A fitted value is the one of the same numbers in float64, to the last bit."""
    logits, labels = unequal_crops(50, [0.5, 1.0, 2.0])
    single = logits.astype(np.float32)
    double = single.astype(np.float64)
    assert fit_weights(single, labels) == fit_weights(double, labels)
    assert fit_temperature(single[:, 0], labels) == fit_temperature(double[:, 0], labels)
    thirds = np.array([1 / 3, 2 / 3], np.float32)  # their mean needs a bit more than float32 has
    assert fit_threshold(thirds, 0.5) == fit_threshold(thirds.astype(np.float64), 0.5)


def adaptive(threshold: float | None) -> AdaptiveVote:
    return AdaptiveVote("adaptive", threshold=threshold)


def test_adaptive_vote_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    full_map, logits = 2 * torch.randn(40, 7, generator=generator), torch.randn(40, 10, 7, generator=generator)
    outputs = CropOutputs(logits, full_map)
    deciding, scores = adaptive(0.6).deciding_crops(outputs), adaptive(0.6).scores(outputs)
    kinds = set()
    for of_map, of_crops, decides, score in zip(full_map, logits, deciding, scores, strict=True):
        odds = [math.exp(value) for value in of_map.tolist()]
        sure = max(odds) / sum(odds) > 0.6
        kinds.add(sure)
        assert torch.equal(decides, of_map.expand(10, 7) if sure else of_crops)
        torch.testing.assert_close(score, of_map if sure else of_crops.mean(dim=0))
    assert kinds == {True, False}
    assert torch.equal(adaptive(0.0).deciding_crops(outputs), full_map[:, None].expand(-1, 10, -1))
    # 100 against 0 is a certainty of exactly 1 in float32, and even that is not above 1.
    full_map[0] = torch.tensor([100.0, 0, 0, 0, 0, 0, 0])
    assert torch.equal(adaptive(1.0).scores(outputs), soft_vote(logits))


def test_the_adaptive_vote_is_refused_without_what_it_decides_by() -> None:
    logits, labels = torch.zeros(2, 10, 7), np.zeros(2, np.int64)
    for ask in (adaptive(0.5), lambda crops: adaptive(None).fit(CropOutputs(crops), labels, COST)):
        with pytest.raises(ValueError, match="needs the logits of the full map"):
            ask(logits)
    with pytest.raises(ValueError, match="needs a threshold fitted on validation images"):
        adaptive(None).scores(CropOutputs(logits, logits[:, 0]))
    with pytest.raises(ValueError, match="give `cost`"):
        adaptive(None).fit(CropOutputs(logits, logits[:, 0]), labels)


COST = AdaptiveCost(trunk=1.0, full_map=0.5, crops=4.0)


def test_the_share_that_a_cost_pays_for() -> None:
    assert (COST.cost_full_map, COST.cost_vote, COST.half) == (1.5, 5.0, 3.25)
    assert COST.share(1.5) == 0
    assert COST.share(3.5) == 0.5
    assert COST.share(5.5) == COST.share(100) == 1
    with pytest.raises(ValueError, match=r"`mean_gmacs` \(=1.4\) must be at least 1.5"):
        COST.share(1.4)


def test_threshold_cost_and_temperature_of_validation_images() -> None:
    rng = np.random.default_rng(0)
    full_map, crops = 2 * rng.normal(size=(400, 5)), 2 * rng.normal(size=(400, 10, 5))
    labels = full_map.argmax(axis=1)
    outputs = CropOutputs(torch.from_numpy(crops), torch.from_numpy(full_map))
    fitted = adaptive(None).fit(outputs, labels, replace(COST, limit=2.7))  # 0.3 of the images
    odds = np.exp(full_map)
    certainties = (odds / odds.sum(axis=1, keepdims=True)).max(axis=1)
    assert fitted.threshold is not None
    assert (certainties <= fitted.threshold).sum() == 120
    assert fitted.mean_gmacs == pytest.approx(2.7)
    taken = np.where((certainties > fitted.threshold)[:, None, None], full_map[:, None].repeat(10, axis=1), crops)
    assert fitted.temperature == fit_temperature(torch.from_numpy(taken).mean(dim=1), labels)
    half = adaptive(None).fit(outputs, labels, COST)
    assert half.mean_gmacs == pytest.approx(COST.half, abs=4.0 / 400)
    assert half.mean_gmacs <= COST.half


@pytest.mark.parametrize(
    ("certainties", "share", "threshold"),
    [
        ([0.25, 0.5, 0.75, 1.0], 0.5, 0.625),
        ([0.25, 0.5, 0.75, 1.0], 0.74, 0.625),
        ([0.25, 0.5, 0.75, 1.0], 0.0, 0.0),
        ([0.25, 0.5, 0.75, 1.0], 0.2, 0.0),
        ([0.25, 0.5, 0.75, 1.0], 1.0, 1.0),
        ([0.5, 0.5, 0.5, 1.0], 0.5, 0.0),  # three are equal: all of them would be too many
        ([1.0, 0.5, 0.5, 0.75], 0.5, 0.625),
    ],
)
def test_threshold_of_a_wished_share(certainties: list[float], share: float, threshold: float) -> None:
    assert fit_threshold(np.array(certainties), share) == threshold
    assert np.mean(np.array(certainties) <= threshold) <= share


@pytest.mark.parametrize(
    "vote",
    [
        SoftVote("soft", 1.5),
        WeightedVote("weighted", 1.5, weights=(0.25, 0.75)),
        AdaptiveVote("adaptive", 1.5, threshold=0.5, mean_gmacs=2.5),
    ],
)
def test_parameters_come_back_from_plain_values(vote: Vote) -> None:
    values = vote.to_values()
    assert find_vote(vote.name).from_values({**json.loads(json.dumps(values)), "best_epoch": 3}) == vote
    assert ("name" in values, values["temperature"]) == (False, 1.5)
    assert find_vote(vote.name).from_values({}).to_values() == {"temperature": 1.0}
    assert vote.require_fitted() is vote


@pytest.mark.parametrize(
    ("vote", "values", "match"),
    [
        ("soft", {"temperature": 0}, "`temperature`"),
        ("soft", {"temperature": float("nan")}, "`temperature`"),
        ("soft", {"temperature": float("inf")}, "`temperature`"),
        ("soft", {"temperature": "warm"}, r"`temperature` \(='warm'\) must be a number$"),
        ("weighted", {"weights": "even"}, "must be a list of numbers$"),
        ("weighted", {"weights": [0.5, 0.6]}, "`weights`"),
        ("weighted", {"weights": [-0.5, 1.5]}, "`weights`"),
        ("weighted", {"weights": []}, "`weights`"),
        ("weighted", {"weights": 1.0}, "`weights`"),
        ("adaptive", {"threshold": -0.1}, "`threshold`"),
        ("adaptive", {"threshold": 1.1}, "`threshold`"),
        ("adaptive", {"threshold": True}, "`threshold`"),
        ("adaptive", {"mean_gmacs": -0.1}, "`mean_gmacs`"),
        ("adaptive", {"mean_gmacs": float("inf")}, "`mean_gmacs`"),
    ],
)
def test_parameters_out_of_range_are_refused(vote: str, values: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        find_vote(vote).from_values(values)


@pytest.mark.parametrize(
    ("vote", "values"),
    [
        ("weighted", {"weights": [1.0, 0.0]}),
        ("adaptive", {"threshold": 0.0}),
        ("adaptive", {"threshold": 1.0}),
        ("adaptive", {"mean_gmacs": 0.0}),
    ],
)
def test_the_ends_of_a_parameters_range_are_in_it(vote: str, values: dict[str, Any]) -> None:
    assert find_vote(vote).from_values(values).to_values() == {"temperature": 1.0, **values}


def test_a_vote_that_lacks_a_parameter_says_which() -> None:
    with pytest.raises(ValueError, match=r"needs a weight fitted .*\(votes\.weighted\.weights in its result\.json\)"):
        find_vote("weighted").require_fitted()
    with pytest.raises(ValueError, match="needs a weight fitted"):
        find_vote("weighted")(torch.zeros(2, 10, 7))
    for name in VOTES:
        assert find_vote(name).require_fitted() is VOTES[name]
    with pytest.raises(
        ValueError, match=r"`vote` \(='loud'\) must be one of soft, softprob, hard, confidence, weighted"
    ):
        find_vote("loud")


def test_the_epoch_of_a_vote_is_its_own_or_the_soft_votes() -> None:
    own = {vote: vote for vote in VOTES}
    assert {name: vote.epoch_vote for name, vote in ALL_VOTES.items()} == {
        **own,
        "weighted": "soft",
        "adaptive": "soft",
    }


def test_probabilities_of_shares_know_no_temperature_and_those_of_logits_do() -> None:
    logits = torch.randn(5, 10, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for vote in VOTES.values():
        scores = vote(logits)
        expected = scores if vote.is_probability else (scores / 2).softmax(1)
        torch.testing.assert_close(replace(vote, temperature=2.0).probabilities(CropOutputs(logits)), expected)


@pytest.mark.parametrize("name", ALL_VOTES)
def test_the_configuration_makes_the_vote(name: str) -> None:
    assert instantiate(OmegaConf.load(CONF_DIR / "voting" / f"{name}.yaml")) == ALL_VOTES[name]


class MedianVote(Vote):
    """A vote of somebody's own."""

    def scores(self, outputs: CropOutputs) -> Tensor:
        return outputs.crops.median(dim=1).values


def test_a_vote_of_ones_own_is_a_class_and_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "voting").mkdir()
    (tmp_path / "voting" / "median.yaml").write_text(f"_target_: {__name__}.MedianVote\nname: median\n")
    monkeypatch.setattr("fer_voting.config.CONF_DIR", tmp_path)
    vote = find_vote("median")
    logits, labels = unequal_crops(300, [0.5, 0.5, 2.0])
    fitted = vote.fit(CropOutputs(torch.tensor(logits)), labels)
    assert fitted.to_values() == {"temperature": fit_temperature(np.median(logits, axis=1), labels)}
    assert (vote.epoch_vote, vote.is_probability, vote.needs_full_map) == ("median", False, False)


def test_what_cannot_be_fitted_says_why() -> None:
    outputs, labels = CropOutputs(torch.zeros(0, 10, 7), torch.zeros(0, 7)), np.zeros(0, np.int64)
    for vote in ALL_VOTES.values():
        with pytest.raises(ValueError, match="at least one image"):
            vote.fit(outputs, labels, COST)
    with pytest.raises(ValueError, match="at least one image"):
        fit_threshold(np.zeros(0), 0.5)
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"`share` \(={share}\) must be from 0 to 1"):
            fit_threshold(np.ones(3), share)


def test_names_of_votes_need_no_torch() -> None:
    code = "import sys, fer_voting.votes; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
