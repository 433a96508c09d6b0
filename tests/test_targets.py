"""Targets: what is read, aimed at and measured, against values computed by hand."""

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torchmetrics.functional.classification import multiclass_recall

from fer_voting.targets import Classes, RaterVotes

NAMES = ("neutral", "happy", "sad")


class Images:
    """Five images: of three classes, of another label, and one that cannot be read."""

    good = np.array([True, True, True, True, False])
    columns: ClassVar = {
        "votes": np.array([[6, 2, 0, 2], [1, 9, 0, 0], [3, 3, 4, 0], [0, 0, 0, 10], [9, 0, 0, 1]]),
        "fer2013_class": np.array([0, 2, 2, 1, 0]),
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


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(ValueError, match="label_share"):
        RaterVotes(True, share)


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
