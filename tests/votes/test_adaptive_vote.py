"""The adaptive vote and its costs, against loops over the images and counts by hand."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fer_voting.votes import AdaptiveCost, AdaptiveVote, CropOutputs, fit_temperature, fit_threshold, soft_vote


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
    assert fit_threshold(torch.tensor(certainties), share) == threshold
    assert np.mean(np.array(certainties) <= threshold) <= share


def test_a_threshold_between_neighbours_in_float32_moves_no_image_over_it() -> None:
    certainties = torch.tensor([1 - 2**-24] * 4 + [1.0] * 6)
    assert (certainties <= fit_threshold(certainties, 0.4)).sum() == 4
