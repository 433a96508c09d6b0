"""The forms of a network: what validation gives them, and what is refused."""

import pytest
import torch
from scipy.special import softmax

from fer_voting.votes import (
    AdaptiveCost,
    AdaptiveVote,
    CropOutputs,
    check_forms,
    fit_forms,
    soft_vote,
    vote_of_form,
)

COST = AdaptiveCost(trunk=1.0, full_map=2.0, crops=19.0)


def outputs(images: int = 100) -> tuple[CropOutputs, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    crops, full_map = (torch.randn(images, *shape, generator=generator) for shape in ((10, 4), (4,)))
    return CropOutputs(crops, full_map), torch.randint(4, (images,), generator=generator)


def test_the_adaptive_form_costs_a_quarter_of_the_full_one():
    found, labels = outputs()
    forms = fit_forms(found, labels, COST)
    # A quarter of 20 is 5: the whole map's 3, and 2 of 19 for crops, of 10.5 % of the images.
    certainty = softmax(found.full_map.numpy(), axis=1).max(axis=1)
    assert (certainty <= forms["adaptive"]["threshold"]).sum() == 10
    assert forms["adaptive"]["mean_gmacs"] == pytest.approx(3 + 1.9)
    assert (forms["whole"]["threshold"], forms["whole"]["mean_gmacs"]) == (0, 3)
    whole = vote_of_form("whole", soft_vote, forms, has_crops=True)
    assert torch.equal(whole.scores(found).argmax(1), found.full_map.argmax(1))
    assert check_forms(forms) == forms


def test_where_the_whole_map_costs_more_than_a_quarter_no_crop_is_computed():
    found, labels = outputs()
    forms = fit_forms(found, labels, AdaptiveCost(trunk=10.0, full_map=2.0, crops=10.0))
    assert forms["adaptive"]["threshold"] == 0


def test_a_network_has_the_forms_that_it_can():
    forms = {"whole": {"threshold": 0.0, "temperature": 2.0}}
    assert vote_of_form("full", soft_vote, forms, has_crops=True) is soft_vote
    assert vote_of_form("whole", soft_vote, {}, has_crops=False) is soft_vote
    assert vote_of_form("whole", soft_vote, forms, has_crops=True) == AdaptiveVote("whole", 2.0, 0.0)
    for form, has_crops, words in (
        ("adaptive", False, "takes no crops, so that it has only its full form"),
        ("adaptive", True, "holds no parameters of this form"),
        ("fast", True, "must be one of full, adaptive, whole"),
    ):
        with pytest.raises(ValueError, match=words):
            vote_of_form(form, soft_vote, forms, has_crops)


@pytest.mark.parametrize(
    "stored",
    [[], {"full": {}}, {"whole": 1}, {"whole": {"temperature": 1.0}}, {"whole": {"threshold": 2}}, {"fast": {}}],
)
def test_damaged_forms_are_refused(stored: object):
    with pytest.raises(ValueError, match=r"forms|threshold"):
        check_forms(stored)
