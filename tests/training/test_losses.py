"""Losses against values computed by hand and against the formulas of their sources, in NumPy."""

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn

from fer_voting.targets import Both, Classes, RaterVotes, ValenceArousal
from fer_voting.training.losses import (
    ConcordanceLoss,
    CropLoss,
    CrossEntropy,
    Distillation,
    FocalLoss,
    GeneralizedCrossEntropy,
    SquaredError,
    WeightedSum,
    check_loss,
)
from fer_voting.votes import PAPER_VOTES, VOTES

SETTINGS = {"temperature": 4.0, "hard_weight": 0.1, "vote": "soft"}


class Fixed(nn.Module):
    """A teacher whose crop logits are known: linear in the images' first pixel."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.norm = nn.BatchNorm2d(3)

    def forward(self, images: Tensor) -> Tensor:
        self.norm(images)  # in training mode it would change its statistics
        return self.logits * images[:, 0, 0, 0, None, None]


def random_batch(batch: int = 4, own_crops: int = 1, crops: int = 10, classes: int = 5) -> tuple[Tensor, Fixed, Tensor]:
    """The trained network's crop logits (a leaf), a teacher, and images."""
    generator = torch.Generator().manual_seed(0)
    own = torch.randn(batch, own_crops, classes, generator=generator, dtype=torch.float64, requires_grad=True)
    teacher = Fixed(3 * torch.randn(batch, crops, classes, generator=generator))
    return own, teacher, torch.rand(batch, 3, 6, 6, generator=generator) + 0.5


def test_label_smoothing_by_hand() -> None:
    logits = torch.tensor([[[math.log(3.0), 0.0]]])  # probabilities 3/4 and 1/4
    smoothed = CrossEntropy(0.2)(logits, torch.tensor([0]))  # targets 0.9 and 0.1
    assert smoothed.item() == pytest.approx(-0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4))


def test_label_smoothing_of_probabilities_is_the_formula_of_its_source() -> None:
    logits, targets, share = np.random.default_rng(0).normal(size=(4, 10, 5)), np.eye(5)[[0, 2, 1, 4]], 0.3
    targets[3] = [0.5, 0.25, 0.25, 0, 0]
    spread = (1 - share) * targets + share / 5  # Szegedy et al., section 7: q' = (1 - e) q + e / K
    by_formula = -(spread[:, None] * log_softmax(logits, axis=2)).sum(axis=2).mean()
    ours = CrossEntropy(share)(torch.tensor(logits), torch.tensor(targets))
    assert ours.item() == pytest.approx(by_formula)


def test_labels_are_not_smoothed_in_evaluation() -> None:
    logits, labels = torch.randn(4, 10, 5), torch.tensor([0, 2, 1, 4])
    plain = CrossEntropy()(logits, labels)
    assert CrossEntropy(0.3).eval()(logits, labels) == plain
    assert CrossEntropy(0.3)(logits, labels) != plain


PROBABILITIES = [[0.5, 0.25, 0.25, 0, 0], [0, 0, 1, 0, 0], [0, 0.1, 0.9, 0, 0], [0, 0, 0, 0, 1]]


@pytest.mark.parametrize("targets", [[0, 2, 1, 4], PROBABILITIES], ids=["labels", "probabilities"])
@pytest.mark.parametrize(
    ("loss", "missed"),
    [
        (GeneralizedCrossEntropy(0.7), lambda p: (1 - p**0.7) / 0.7),
        (GeneralizedCrossEntropy(1), lambda p: 1 - p),
        (FocalLoss(2.0), lambda p: -((1 - p) ** 2) * np.log(p)),
        (FocalLoss(0), lambda p: -np.log(p)),
        (CrossEntropy(), lambda p: -np.log(p)),
    ],
    ids=["q0.7", "q1", "gamma2", "gamma0", "cross_entropy"],
)
def test_a_loss_is_the_formula_of_its_source(loss: CropLoss, missed: Callable, targets: list) -> None:
    logits = np.random.default_rng(0).normal(size=(4, 10, 5))
    weights = np.eye(5)[targets] if np.ndim(targets) == 1 else np.array(targets)
    by_formula = (weights[:, None] * missed(softmax(logits, axis=2))).sum(axis=2).mean()
    assert loss(torch.tensor(logits), torch.tensor(targets)).item() == pytest.approx(by_formula)


@pytest.mark.parametrize("loss", [GeneralizedCrossEntropy(0.7), FocalLoss(0.5), CrossEntropy()])
def test_a_class_that_is_ruled_out_has_a_finite_loss_and_gradient(loss: CropLoss) -> None:
    logits = torch.tensor([[[200.0, 0.0]], [[0.0, 200.0]]], requires_grad=True)
    loss(logits, torch.tensor([1, 1])).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: CrossEntropy(1.0), "label_smoothing"),
        (lambda: GeneralizedCrossEntropy(0), "q"),
        (lambda: GeneralizedCrossEntropy(1.1), "q"),
        (lambda: FocalLoss(-1), "gamma"),
    ],
)
def test_a_value_of_a_loss_out_of_range(make: Callable, key: str) -> None:
    with pytest.raises(ValueError, match=rf"loss\.{key}="):
        make()


@pytest.mark.parametrize("own_crops", [1, 10])
@pytest.mark.parametrize("vote", PAPER_VOTES)
def test_distillation_is_the_formula_of_its_source(vote: str, own_crops: int) -> None:
    own, teacher, images = random_batch(own_crops=own_crops)
    temperature, weight, hard_loss = 2.5, 0.3, torch.tensor(0.7, dtype=torch.float64)
    distillation = Distillation(teacher, temperature=temperature, hard_weight=weight, vote=vote)
    crops = (teacher.logits * images[:, 0, 0, 0, None, None]).detach().double() / temperature
    targets = {
        "soft": softmax(crops.mean(dim=1).numpy(), axis=1),
        "softprob": softmax(crops.numpy(), axis=2).mean(axis=1),
        "hard": VOTES["hard"](crops).numpy(),
    }[vote]
    log_own = log_softmax(own.detach().numpy() / temperature, axis=2)
    entropy = -np.where(targets > 0, targets * np.log(np.maximum(targets, 1e-300)), 0).sum(axis=1).mean()
    divergence = -(targets[:, None] * log_own).sum(axis=2).mean() - entropy
    by_formula = weight * 0.7 + (1 - weight) * temperature**2 * divergence
    assert distillation(hard_loss, own, images).item() == pytest.approx(by_formula, rel=1e-5)


def test_at_a_high_temperature_the_gradient_is_the_difference_of_the_logits() -> None:
    """Hinton et al., equation 4: dC/dz = (z - v) / (N T^2) for logits of mean zero; the loss is C times T^2."""
    own, teacher, images = random_batch()
    loss = Distillation(teacher, temperature=1000.0, hard_weight=0.0, vote="soft")(torch.tensor(0.0), own, images)
    loss.backward()
    voted = (teacher.logits * images[:, 0, 0, 0, None, None]).detach().mean(dim=1).double()
    z, v = own.detach()[:, 0], voted
    expected = ((z - z.mean(dim=1, keepdim=True)) - (v - v.mean(dim=1, keepdim=True))) / (z.shape[1] * len(z))
    assert own.grad is not None
    torch.testing.assert_close(own.grad[:, 0], expected, rtol=1e-2, atol=1e-3 * expected.abs().max().item())


def test_the_teacher_stays_as_it_is() -> None:
    own, teacher, images = random_batch()
    before = copy.deepcopy(teacher.state_dict())
    distillation = Distillation(teacher.train(), **SETTINGS)
    distillation(torch.tensor(0.0), own, images).backward()
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    assert teacher.logits.grad is None
    assert not teacher.training


def test_a_copy_shares_the_teacher() -> None:
    _, teacher, _ = random_batch()
    distillation = Distillation(teacher, **SETTINGS)
    assert copy.deepcopy(distillation).teacher is teacher


@pytest.mark.parametrize(
    ("key", "value"), [("temperature", 0.0), ("hard_weight", 1.5), ("hard_weight", -0.1), ("vote", "loud")]
)
def test_values_out_of_range(key: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=rf"distillation\.{key}={value}"):
        Distillation(random_batch()[1], **{**SETTINGS, key: value})


# Numbers ----------------------------------------------------------------------------------------------------------


def test_losses_of_numbers_are_their_formulas_over_all_crops() -> None:
    rng = np.random.default_rng(0)
    crops, targets = rng.normal(size=(6, 10, 2)), rng.uniform(-1, 1, (6, 2))
    each = np.repeat(targets, 10, axis=0)  # of each crop, [60, 2]
    flat = crops.reshape(60, 2)
    logits = torch.tensor(crops)
    assert SquaredError()(logits, torch.tensor(targets)).item() == pytest.approx(((flat - each) ** 2).mean())
    ccc = [
        2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        for x, y in zip(flat.T, each.T, strict=True)
    ]
    assert ConcordanceLoss()(logits, torch.tensor(targets)).item() == pytest.approx(1 - np.mean(ccc))


def test_concordance_is_finite_where_nothing_varies() -> None:
    crops = torch.full((1, 10, 2), 0.5, requires_grad=True)
    loss = ConcordanceLoss()(crops, torch.tensor([[0.5, 0.5]]))
    loss.backward()
    assert loss.item() == 1
    assert crops.grad is not None
    assert crops.grad.isfinite().all()


def test_both_losses_are_added_by_their_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 10, 5, generator=generator, dtype=torch.float64)
    class_ids, numbers = torch.tensor([0, 2, 1, 1]), torch.rand(4, 2, generator=generator)
    targets = torch.cat([torch.eye(3)[class_ids], numbers], dim=1).double()
    ours = WeightedSum(CrossEntropy(), SquaredError(), 0.5, 2.0)(logits, targets)
    expected = 0.5 * CrossEntropy()(logits[..., :3], class_ids) + 2 * SquaredError()(logits[..., 3:], numbers)
    torch.testing.assert_close(ours, expected)
    with pytest.raises(ValueError, match=r"loss\.classes is of numbers"):
        WeightedSum(SquaredError(), SquaredError(), 1, 1)
    with pytest.raises(ValueError, match=r"loss\.number_weight=-1 must be at least 0"):
        WeightedSum(CrossEntropy(), SquaredError(), 1, -1)


@pytest.mark.parametrize("target", [Classes(), RaterVotes(True), ValenceArousal(), Both()])
def test_a_loss_of_other_outputs_is_refused(target: Classes | ValenceArousal | Both) -> None:
    outputs = {Classes: "classes", RaterVotes: "classes", ValenceArousal: "numbers", Both: "both"}[type(target)]
    losses = (CrossEntropy(), SquaredError(), WeightedSum(CrossEntropy(), ConcordanceLoss(), 1, 1))
    for loss in losses:
        if loss.of == outputs:
            check_loss(loss, target, "mine")
        else:
            with pytest.raises(ValueError, match=r"loss=mine is of .*, and the target of "):
                check_loss(loss, target, "mine")
    check_loss(nn.CrossEntropyLoss(), target, "mine")  # a loss of one's own says nothing
