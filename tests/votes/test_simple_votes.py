"""Votes of the crop logits against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from fer_voting.votes import VOTES, confidence_vote, hard_vote, soft_vote, softprob_vote

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
