"""Votes: rules that make one decision of the logits of an image's crops (paper, section 3.1).

A vote is a subclass of `Vote`, and a file conf/voting/<name>.yaml that names it. The built-in ones are also here by
name, as they are before they are fitted. No module of this package imports torch before a vote is asked.
"""

from collections.abc import Mapping

from fer_voting.system.conf_folders import options_of_group
from fer_voting.system.packages import whole_package
from fer_voting.votes.adaptive import AdaptiveCost, AdaptiveVote, adaptive_curve, fit_threshold
from fer_voting.votes.forms import FORMS, Forms, check_forms, fit_forms, vote_of_form
from fer_voting.votes.simple import (
    ConfidenceVote,
    HardVote,
    SoftprobVote,
    SoftVote,
    certainty,
    confidence_vote,
    hard_vote,
    soft_vote,
    softprob_vote,
)
from fer_voting.votes.vote import CropOutputs, Vote, fit_temperature
from fer_voting.votes.weighted import WeightedVote, fit_weights

VOTES: Mapping[str, Vote] = {vote.name: vote for vote in (soft_vote, softprob_vote, hard_vote, confidence_vote)}
"""Built-in votes that select epochs. Training logs each one's accuracy and keeps the checkpoint of its best epoch."""

ALL_VOTES: Mapping[str, Vote] = {**VOTES, "weighted": WeightedVote("weighted"), "adaptive": AdaptiveVote("adaptive")}
"""All built-in votes."""

PAPER_VOTES = ("soft", "hard", "softprob")
"""The paper's two votes, and the other reading of its soft vote: the votes that tables show of every run."""


def find_vote(name: str) -> Vote:
    """The vote of that name before it is fitted: a built-in one, or a file of the group `voting`, also a user's own.

    Raises ValueError if there is none.
    """
    if name in ALL_VOTES:
        return ALL_VOTES[name]
    files = options_of_group("voting")
    if name not in files:
        known = ", ".join({**ALL_VOTES, **files})
        raise ValueError(f"`vote` (={name!r}) must be one of {known}, or of your own folder: --config-dir DIR")
    with whole_package():
        from hydra.utils import instantiate
        from omegaconf import OmegaConf
    vote = instantiate(OmegaConf.load(files[name]))
    if not isinstance(vote, Vote):
        raise ValueError(f"{files[name]} must name a vote by _target_, not a {type(vote).__name__}")
    return vote


def known_votes() -> dict[str, Vote]:
    """All votes by name, before they are fitted: the built-in ones, then those of a user's own."""
    return {**ALL_VOTES, **{name: find_vote(name) for name in options_of_group("voting") if name not in ALL_VOTES}}


__all__ = [
    "ALL_VOTES",
    "FORMS",
    "PAPER_VOTES",
    "VOTES",
    "AdaptiveCost",
    "AdaptiveVote",
    "ConfidenceVote",
    "CropOutputs",
    "Forms",
    "HardVote",
    "SoftVote",
    "SoftprobVote",
    "Vote",
    "WeightedVote",
    "adaptive_curve",
    "certainty",
    "check_forms",
    "confidence_vote",
    "find_vote",
    "fit_forms",
    "fit_temperature",
    "fit_threshold",
    "fit_weights",
    "hard_vote",
    "known_votes",
    "soft_vote",
    "softprob_vote",
    "vote_of_form",
]
