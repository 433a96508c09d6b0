"""The common parts of all votes: temperature, parameters, configuration, a vote of one's own."""

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
from helpers.logits import unequal_crops
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import Tensor

from fer_voting.config import CONF_DIR
from fer_voting.system.conf_folders import USER_CONF_VARIABLE
from fer_voting.votes import (
    ALL_VOTES,
    VOTES,
    AdaptiveCost,
    AdaptiveVote,
    CropOutputs,
    SoftVote,
    Vote,
    WeightedVote,
    find_vote,
    fit_temperature,
    fit_threshold,
    fit_weights,
)
from fer_voting.votes.vote import TEMPERATURES


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
    monkeypatch.setenv(USER_CONF_VARIABLE, str(tmp_path))
    vote = find_vote("median")
    logits, labels = unequal_crops(300, [0.5, 0.5, 2.0])
    fitted = vote.fit(CropOutputs(torch.tensor(logits)), labels)
    assert fitted.to_values() == {"temperature": fit_temperature(np.median(logits, axis=1), labels)}
    assert (vote.epoch_vote, vote.is_probability, vote.needs_full_map) == ("median", False, False)


class CarelessVote(Vote):
    """A vote that decides by the full map and says so nowhere."""

    def scores(self, outputs: CropOutputs) -> Tensor:
        return outputs.crops.mean(dim=1) if outputs.full_map is None else outputs.full_map


class FullMapVote(CarelessVote):
    needs_full_map = True


def test_no_vote_can_take_the_crops_for_the_full_map_that_it_needs() -> None:
    logits = torch.zeros(2, 10, 7)
    for vote in (CarelessVote("careless"), FullMapVote("whole")):
        with pytest.raises(ValueError, match="needs the logits of the full map"):
            vote(logits)
        with pytest.raises(ValueError, match="needs the logits of the full map"):
            vote.fit(CropOutputs(logits), np.zeros(2, np.int64))
        assert torch.equal(vote.scores(CropOutputs(logits, logits[:, 0])), logits[:, 0])
    assert FullMapVote("whole").epoch_vote == "soft"  # a training's validation computes only the crops


def test_what_cannot_be_fitted_says_why() -> None:
    outputs, labels = CropOutputs(torch.zeros(0, 10, 7), torch.zeros(0, 7)), np.zeros(0, np.int64)
    for vote in ALL_VOTES.values():
        with pytest.raises(ValueError, match="at least one image"):
            vote.fit(outputs, labels, AdaptiveCost(trunk=1.0, full_map=0.5, crops=4.0))
    with pytest.raises(ValueError, match="at least one image"):
        fit_threshold(np.zeros(0), 0.5)
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match=rf"`share` \(={share}\) must be from 0 to 1"):
            fit_threshold(np.ones(3), share)


def test_names_of_votes_need_no_torch() -> None:
    code = "import sys, fer_voting.votes; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_that_names_no_vote_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "voting").mkdir()
    (tmp_path / "voting" / "mine.yaml").write_text("_target_: builtins.dict\n")
    monkeypatch.setenv(USER_CONF_VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"voting/mine\.yaml must name a vote by _target_, not a \w+$"):
        find_vote("mine")
