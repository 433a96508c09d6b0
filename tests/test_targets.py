"""Targets: what is read, aimed at and measured, against values computed by hand."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_recall

from fer_voting.targets import NUMBERS, Both, Classes, RaterVotes, ValenceArousal, target_of
from fer_voting.votes import ALL_VOTES, CropOutputs

NAMES = ("neutral", "happy", "sad")


class Images:
    """Five images: of three classes, of another label, and one that cannot be read."""

    good = np.array([True, True, True, True, False])
    columns: ClassVar = {
        "votes": np.array([[6, 2, 0, 2], [1, 9, 0, 0], [3, 3, 4, 0], [0, 0, 0, 10], [9, 0, 0, 1]]),
        "fer2013_class": np.array([0, 2, 2, 1, 0]),
        "valence": np.array([0.5, -0.25, np.nan, 0.1, 0.2]),
        "arousal": np.array([0.0, 1.0, 0.5, 0.1, 0.2]),
    }

    def class_ids(self, class_names: tuple[str, ...]) -> NDArray[np.int64]:
        labels = ("neutral", "happy", "sad", "unknown", "neutral")
        return np.array([class_names.index(label) if label in class_names else -1 for label in labels])

    def column(self, name: str) -> NDArray[np.int64]:
        return self.columns[name]


def test_classes_use_what_is_there_and_of_a_class() -> None:
    target = Classes()
    assert target.usable(Images(), NAMES).tolist() == [True, True, True, False, False]
    assert target.labels(Images(), NAMES).tolist() == [0, 1, 2, -1, 0]
    assert target.training_targets(Images(), NAMES).tolist() == [0, 1, 2, -1, 0]


def test_a_majority_uses_images_on_which_more_than_half_agree() -> None:
    target = RaterVotes(majority=True)
    assert target.usable(Images(), NAMES).tolist() == [True, True, False, False, False]
    assert target.training_targets(Images(), NAMES).tolist() == [0, 1, 2, -1, 0]


def test_shares_of_the_votes_are_the_aim_of_a_training() -> None:
    target = RaterVotes(majority=False)
    assert target.usable(Images(), NAMES).tolist() == [True, True, True, False, False]
    expected = [[0.75, 0.25, 0], [0.1, 0.9, 0], [0.3, 0.3, 0.4]]
    np.testing.assert_allclose(target.training_targets(Images(), NAMES)[:3], expected, rtol=1e-6)
    assert target.labels(Images(), NAMES)[:3].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("majority", "expected"),
    [
        (True, [[1, 0, 0], [0, 0.75, 0.25], [0, 0, 1]]),
        (False, [[0.8125, 0.1875, 0], [0.075, 0.675, 0.25], [0.225, 0.225, 0.55]]),
    ],
)
def test_another_label_gets_its_share(majority: bool, expected: list[list[float]]) -> None:
    targets = RaterVotes(majority, label_share=0.25).training_targets(Images(), NAMES)
    assert targets.dtype == np.float32
    np.testing.assert_allclose(targets[:3], expected, rtol=1e-6)


def test_votes_are_of_their_classes_where_one_is_left_out() -> None:
    names, order = ("happy", "sad"), (*NAMES, "unknown")
    targets = RaterVotes(majority=False, order=order).training_targets(Images(), names)
    np.testing.assert_allclose(targets[1:3], [[1, 0], [3 / 7, 4 / 7]], rtol=1e-6)
    targets = RaterVotes(majority=False, label_share=0.25, order=order).training_targets(Images(), names)
    np.testing.assert_allclose(targets[:3], [[1, 0], [0.75, 0.25], [9 / 28, 19 / 28]], rtol=1e-6)  # the first: neutral


@pytest.mark.parametrize("make", [Classes, lambda: RaterVotes(True)])
def test_metrics_by_hand(make: Callable[[], Classes]) -> None:
    decisions, labels = torch.tensor([0, 0, 1, 1, 2, 0]), torch.tensor([0, 0, 0, 1, 2, 2])
    values = make().judge(torch.nn.functional.one_hot(decisions, 3).float(), labels, NAMES)
    recall = {"neutral": 2 / 3, "happy": 1.0, "sad": 0.5}
    assert values == {
        "accuracy": pytest.approx(4 / 6),
        "mean_recall": pytest.approx((2 / 3 + 1 + 0.5) / 3),
        "recall": pytest.approx(recall),
        "confusion_counts": [[2, 1, 0], [0, 1, 0], [1, 0, 1]],  # true class, decision
    }
    assert make().to_curves(values) == {
        "accuracy": values["accuracy"],
        "mean_recall": values["mean_recall"],
        **{f"recall/{name}": pytest.approx(value) for name, value in recall.items()},
    }
    assert make().best in make().to_curves(values)


@pytest.mark.parametrize("wrong", [0, 2])
def test_a_class_without_images_is_named_and_not_in_the_mean(wrong: int) -> None:
    """The same as scikit-learn's balanced accuracy: whether errors fall into the class makes no difference."""
    decisions, labels = torch.tensor([0] * 10 + [wrong] * 10), torch.tensor([0] * 10 + [1] * 10)
    values = Classes().judge(torch.eye(3)[decisions], labels, NAMES)
    assert values["mean_recall"] == 0.5
    assert values["recall"] == {"neutral": 1.0, "happy": 0.0, "sad": None}
    assert "recall/sad" not in Classes().to_curves(values)


def test_recalls_are_those_of_torchmetrics_where_every_class_has_images() -> None:
    """To the last bit: the metrics of trainings stay what they were."""
    generator = torch.Generator().manual_seed(0)
    scores, labels = torch.randn(400, 3, generator=generator), torch.randint(3, (400,), generator=generator)
    values = Classes().judge(scores, labels, NAMES)
    assert values["mean_recall"] == multiclass_recall(scores, labels, 3, average="macro").item()
    assert list(values["recall"].values()) == multiclass_recall(scores, labels, 3, average=None).tolist()


# Numbers ----------------------------------------------------------------------------------------------------------


def reference(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> dict[str, float]:
    """The metrics of one number by their formulas, in NumPy."""
    cov = np.cov(scores, labels)
    apart = (scores.mean() - labels.mean()) ** 2
    return {
        "rmse": np.sqrt(((scores - labels) ** 2).mean()),
        "pearson": np.corrcoef(scores, labels)[0, 1],
        "ccc": 2 * cov[0, 1] / (cov[0, 0] + cov[1, 1] + apart),
        "sign_agreement": (np.sign(scores) == np.sign(labels)).mean(),
    }


def some_numbers(images: int = 50) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    labels = rng.uniform(-1, 1, (images, 2)).round(1)  # some are exactly 0
    return np.where(labels, 0.6 * labels + rng.normal(0.1, 0.3, labels.shape), 0), labels


def test_numbers_use_images_of_a_class_that_have_both() -> None:
    target = ValenceArousal()
    assert target.usable(Images(), NAMES).tolist() == [True, True, False, False, False]
    labels = target.labels(Images(), NAMES)
    assert labels.dtype == np.float32
    assert labels[:2].tolist() == [[0.5, 0.0], [-0.25, 1.0]]
    assert Both().usable(Images(), NAMES).tolist() == [True, True, False, False, False]
    assert Both().labels(Images(), NAMES)[:2].tolist() == [[1, 0, 0, 0.5, 0.0], [0, 1, 0, -0.25, 1.0]]


def test_metrics_of_numbers_are_their_formulas() -> None:
    scores, labels = some_numbers()
    values = ValenceArousal().judge(torch.tensor(scores).float(), torch.tensor(labels).float(), NAMES)
    for place, name in enumerate(NUMBERS):
        for metric, expected in reference(scores[:, place], labels[:, place]).items():
            assert values[metric][name] == pytest.approx(expected, abs=1e-5), metric
    assert values["mean_ccc"] == pytest.approx(sum(values["ccc"].values()) / 2)
    curves = ValenceArousal().to_curves(values)
    assert curves["ccc/arousal"] == values["ccc"]["arousal"]
    assert curves[ValenceArousal.best] == values["mean_ccc"]


def test_metrics_of_batches_are_those_of_the_whole() -> None:
    scores, labels = (torch.tensor(each).float() for each in some_numbers())
    target = ValenceArousal()
    metrics = target.metrics(NAMES)
    for first in range(0, 50, 20):
        target.update(metrics, scores[first : first + 20], labels[first : first + 20], NAMES)
    whole = target.judge(scores, labels, NAMES)
    assert target.to_values(metrics.compute(), NAMES)["ccc"] == pytest.approx(whole["ccc"], abs=1e-5)


def test_a_network_that_says_the_same_of_every_image_correlates_with_nothing() -> None:
    values = ValenceArousal().judge(torch.full((20, 2), 0.3), torch.rand(20, 2), NAMES)  # warnings are errors here
    assert values["pearson"] == values["ccc"] == {"valence": 0.0, "arousal": 0.0}


def test_both_judges_classes_and_numbers_as_each_for_itself() -> None:
    numbers, labelled = (torch.tensor(each).float() for each in some_numbers())
    decisions, class_ids = torch.arange(50) % 3, torch.arange(50) % 2
    scores = torch.cat([torch.eye(3)[decisions], numbers], dim=1)
    labels = torch.cat([torch.eye(3)[class_ids], labelled], dim=1)
    values = Both().judge(scores, labels, NAMES)
    of_classes = Classes().judge(torch.eye(3)[decisions], class_ids, NAMES)
    assert values == of_classes | ValenceArousal().judge(numbers, labelled, NAMES)
    assert Both("mean_ccc").best in Both().to_curves(values)
    with pytest.raises(ValueError, match=r"target\.best=rmse must be accuracy or mean_ccc"):
        Both("rmse")


@pytest.mark.parametrize("vote", ["soft", "hard", "weighted"])
def test_both_votes_on_its_parts(vote: str) -> None:
    generator = torch.Generator().manual_seed(0)
    crops = torch.randn(30, 10, 5, generator=generator)
    labels = torch.cat([torch.eye(3)[torch.arange(30) % 3], torch.rand(30, 2, generator=generator)], dim=1)
    outputs, of_classes = CropOutputs(crops), CropOutputs(crops[..., :3])
    fitted = Both().fit(ALL_VOTES[vote], outputs, labels, None)
    assert fitted == ALL_VOTES[vote].fit(of_classes, torch.arange(30) % 3)
    scores = Both().scores(fitted, outputs, NAMES)
    assert torch.equal(scores[:, :3], fitted.scores(of_classes))
    assert torch.equal(scores[:, 3:], fitted.numbers(crops[..., 3:]))
    arrays = Both().to_arrays(outputs, scores, labels, NAMES)
    shapes = {name: array.shape for name, array in arrays.items()}
    assert shapes == {
        **{"logits": (30, 10, 3), "scores": (30, 3), "labels": (30,)},
        **{"number_crops": (30, 10, 2), "number_scores": (30, 2), "number_labels": (30, 2)},
    }
    assert arrays["labels"].tolist() == (torch.arange(30) % 3).tolist()


def test_the_target_of_a_networks_outputs() -> None:
    assert target_of(NAMES, ()) is None
    assert isinstance(target_of(NAMES, NUMBERS), Both)
    assert isinstance(target_of((), NUMBERS), ValenceArousal)
    with pytest.raises(ValueError, match="a network of the numbers age is evaluated by a target of its own"):
        target_of((), ("age",))
