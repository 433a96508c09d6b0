"""Targets: the kind of label that a network predicts, and how predictions are judged. The options of `conf/target/`.

A target decides which annotations of the images are read, what a training aims at, which metrics a vote gets, and which
of them decides the best epoch. Classes are the usual one. A target of one's own is a subclass, named by a file of a
folder `target`.

Shapes: N images of a data set, B of a batch, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix


class Annotations(Protocol):
    """The annotations of N images, as a pack (`data.pack.Pack`) holds them."""

    good: NDArray[np.bool_]
    """Whether an image is there, bool [N]."""

    def class_ids(self, class_names: Sequence[str]) -> NDArray[np.int64]:
        """Class of each image as a position in `class_names`, -1 for other labels: int64 [N]."""

    def column(self, name: str) -> NDArray[Any]:
        """Another annotation by name, int64 or float64 [N] or [N, n]. Raises ValueError if it is not there."""


class Target(ABC):
    """The kind of label. `names` are those of the network's outputs, in order."""

    best: ClassVar[str]
    """The metric that decides the best epoch: the more the better."""

    @abstractmethod
    def usable(self, images: Annotations, names: Sequence[str]) -> NDArray[np.bool_]:
        """Which images can be trained and evaluated on, bool [N]."""

    @abstractmethod
    def labels(self, images: Annotations, names: Sequence[str]) -> NDArray[Any]:
        """Values with which an evaluation compares: [N], or a row an image; any value where an image is not usable."""

    @abstractmethod
    def training_targets(self, images: Annotations, names: Sequence[str]) -> NDArray[Any]:
        """Values at which a training aims: as `labels`, or class probabilities float32 [N, K]."""

    @abstractmethod
    def metrics(self, names: Sequence[str], sync_on_compute: bool = True) -> MetricCollection:
        """The metrics of a vote, fed with its scores `[B, K]` and labels; of all ranks, unless `sync_on_compute` is
        false."""

    @abstractmethod
    def to_values(self, computed: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
        """Computed metrics as plain values, for result.json. `best` is one of them."""

    @abstractmethod
    def to_curves(self, values: Mapping[str, Any]) -> dict[str, float]:
        """The numbers among these values that an epoch logs, by name."""

    def judge(self, scores: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """The metrics of a vote's scores `[N, K]` of a whole part, on this process, as plain values."""
        metrics = self.metrics(names, sync_on_compute=False)
        metrics.update(scores, labels)
        return self.to_values(metrics.compute(), names)


class Classes(Target):
    """One class an image, judged by accuracy and recall (paper, section 3.4)."""

    best = "accuracy"

    def usable(self, images: Annotations, names: Sequence[str]) -> NDArray[np.bool_]:
        return images.good & (images.class_ids(names) >= 0)

    def labels(self, images: Annotations, names: Sequence[str]) -> NDArray[np.int64]:
        return images.class_ids(names)

    def training_targets(self, images: Annotations, names: Sequence[str]) -> NDArray[Any]:
        return images.class_ids(names)

    def metrics(self, names: Sequence[str], sync_on_compute: bool = True) -> MetricCollection:
        """Overall accuracy (equation 1) and confusion counts."""
        classes = len(names)
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(classes, average="micro", sync_on_compute=sync_on_compute),
                "confusion_counts": MulticlassConfusionMatrix(classes, sync_on_compute=sync_on_compute),
            }
        )

    def to_values(self, computed: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Any]:
        """`accuracy`, `mean_recall`, `recall` by class, `confusion_counts`.

        The recall of a class without images is None, and the mean is over the others, as scikit-learn's balanced
        accuracy. torchmetrics counts such a class as 0 if something was decided for it, else not at all.
        """
        counts = computed["confusion_counts"]  # (true class, decision)
        images = counts.sum(dim=1)
        recalls = counts.diagonal().float() / images.clamp(min=1)
        present = (images > 0).tolist()
        return {
            "accuracy": computed["accuracy"].item(),
            "mean_recall": (recalls / sum(present)).sum().item(),
            "recall": {
                name: recall if has_images else None
                for name, recall, has_images in zip(names, recalls.tolist(), present, strict=True)
            },
            "confusion_counts": counts.tolist(),
        }

    def to_curves(self, values: Mapping[str, Any]) -> dict[str, float]:
        recalls = {f"recall/{name}": recall for name, recall in values["recall"].items() if recall is not None}
        return {"accuracy": values["accuracy"], "mean_recall": values["mean_recall"], **recalls}


class RaterVotes(Classes):
    """Classes that several raters voted for (FER+): the column `votes` [N, n] has the classes first.

    Args:
        majority: use only images on which more than half of the raters agree, and train with that class; else all
            images, trained with the classes' shares of the votes.
        label_share: share of each training target that the class in the column `other_label` gets, 0 to 1.
        other_label: column with another class of each image, int64 [N]; read only if `label_share` is above 0.
    """

    def __init__(self, majority: bool, label_share: float = 0.0, other_label: str = "fer2013_class") -> None:
        if not 0 <= label_share <= 1:
            raise ValueError(f"`label_share` (={label_share}) must be from 0 to 1")
        self.majority, self.label_share, self.other_label = majority, label_share, other_label

    def usable(self, images: Annotations, names: Sequence[str]) -> NDArray[np.bool_]:
        usable = super().usable(images, names)
        if self.majority:
            votes = images.column("votes")
            usable &= 2 * votes.max(axis=1) > votes.sum(axis=1)
        return usable

    def training_targets(self, images: Annotations, names: Sequence[str]) -> NDArray[Any]:
        classes = images.class_ids(names)
        if self.majority and not self.label_share:
            return classes
        one_hot = np.eye(len(names), dtype=np.float32)
        if self.majority:
            targets = one_hot[classes]
        else:
            votes = images.column("votes")[:, : len(names)].astype(np.float32)
            # Rows without a vote for these classes are not usable; their zeros are never read.
            targets = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
        if self.label_share:
            targets = (1 - self.label_share) * targets + self.label_share * one_hot[images.column(self.other_label)]
        return targets
