"""Forms of one trained network whose own vote is `soft`, from the most arithmetic to the least:

    full       all crops vote: the network as it was trained
    adaptive   the whole map decides where it is certain; elsewhere all crops do
    whole      the whole map decides, no crop is computed: the baseline with the same weights

All are the adaptive vote at one threshold: 1, one fitted on validation images, and 0. So one set of weights, and one
ONNX graph with the threshold as an input, holds all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fer_voting.votes.adaptive import AdaptiveCost, AdaptiveVote
from fer_voting.votes.vote import CropOutputs, Vote

if TYPE_CHECKING:
    from torch import Tensor

FORMS = ("full", "adaptive", "whole")
FORM_COST = 1 / 4
"""Wished mean cost of the form `adaptive`, as a share of the arithmetic of `full`."""

Forms = Mapping[str, Mapping[str, float]]
"""Form -> the adaptive vote's parameters by name; `full`, the network's own vote, has none here."""


def fit_forms(outputs: CropOutputs, labels: Tensor, cost: AdaptiveCost) -> Forms:
    """The parameters of the forms `adaptive` and `whole` that N validation images give.

    Args:
        outputs: with the full map.
        labels: class ids [N].
        cost: of the network's parts; its limit is replaced by `FORM_COST`.
    """
    limits = {"adaptive": max(cost.cost_full_map, FORM_COST * cost.cost_vote), "whole": cost.cost_full_map}
    fitted = {
        form: AdaptiveVote(form).fit(outputs, labels, replace(cost, limit=limit)) for form, limit in limits.items()
    }
    return {form: vote.to_values() for form, vote in fitted.items()}


def vote_of_form(form: str, own: Vote, forms: Forms, has_crops: bool) -> Vote:
    """The vote that computes a network in a form.

    Args:
        own: vote of the network.
        forms: parameters of the network's other forms.
        has_crops: whether the network takes crops; one without is whole already.

    Raises ValueError if the form is unknown, or the network does not have it.
    """
    if form not in FORMS:
        raise ValueError(f"`form` (={form!r}) must be one of {', '.join(FORMS)}")
    if form == "full" or (form == "whole" and not has_crops):
        return own
    if not has_crops:
        raise ValueError(f"`form` (={form!r}): the network takes no crops, so that it has only its full form")
    if form not in forms:
        raise ValueError(
            f"`form` (={form!r}): the network holds no parameters of this form, which a run with the soft vote has by "
            "its validation images, and a folder exported from one"
        )
    return AdaptiveVote(form).from_values(forms[form]).require_fitted()


def check_forms(forms: Any) -> dict[str, dict[str, float]]:
    """Forms as a file stores them. Raises ValueError for another form, or a value of the wrong type or range."""
    if not isinstance(forms, dict) or not all(
        form in FORMS[1:] and isinstance(values, dict) for form, values in forms.items()
    ):
        raise ValueError(f"`forms` (={forms!r}) must map {', '.join(FORMS[1:])} to values")
    return {form: AdaptiveVote(form).from_values(values).require_fitted().to_values() for form, values in forms.items()}
