"""Targets: the kind of label that a network predicts, and how predictions are judged. The options of `conf/target/`.

A target decides which annotations of the images are read, what a training aims at, which metrics a vote gets, and which
of them decides the best epoch. Classes are the usual one; valence and arousal are numbers. A target of one's own is a
subclass, named by a file of a folder `target`.

Shapes: N images of a data set, B of a batch, K classes, n numbers.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.regression import ConcordanceCorrCoef, MeanSquaredError, PearsonCorrCoef
from torchmetrics.wrappers import MultitaskWrapper

from fer_voting.votes import CropOutputs, Vote

NUMBERS = ("valence", "arousal")
"""Columns of a data set with numbers from -1 to 1 (Russell's circumplex); NaN where an image has none."""
Metrics = MetricCollection | MultitaskWrapper


class Annotations(Protocol):
    """The annotations of N images, as a pack (`data.pack.Pack`) holds them."""

    good: NDArray[np.bool_]
    """Whether an image is there, bool [N]."""

    def class_ids(self, class_names: Sequence[str]) -> NDArray[np.int64]:
        """Class of each image as a position in `class_names`, -1 for other labels: int64 [N]."""

    def column(self, name: str) -> NDArray[Any]:
        """Another annotation by name, int64 or float64 [N] or [N, n]. Raises ValueError if it is not there."""


class Target(ABC):
    """The kind of label. `names` are those of the data set's classes, in order."""

    best: str
    """The metric that decides the best epoch: the more the better."""
    has_classes: ClassVar[bool] = True
    """Whether the network has outputs for the data set's classes."""
    numbers: ClassVar[tuple[str, ...]] = ()
    """Names of the network's outputs that are numbers; they follow those of the classes."""

    @property
    def lacking(self) -> str:
        """The reason why an image of a class is not `usable`."""
        return f"no {' or '.join(self.numbers)}" if self.numbers else f"not usable for {type(self).__name__}"

    def takes(self, vote: Vote) -> bool:
        """Whether a network of this target can decide by a vote."""
        return vote.takes(self.has_classes, len(self.numbers))

    def fit(self, vote: Vote, outputs: CropOutputs, labels: Tensor, cost: Any) -> Vote:
        """The vote with the parameters that N validation images give (`Vote.fit`)."""
        return vote.fit(outputs, labels, cost)

    def scores(self, vote: Vote, outputs: CropOutputs, names: Sequence[str]) -> Tensor:
        """A vote's scores, with which `metrics` are fed: `[B, K]`."""
        return vote.scores(outputs)

    def update(self, metrics: Any, scores: Tensor, labels: Tensor, names: Sequence[str]) -> None:
        """Feed `metrics` with a vote's scores and labels."""
        metrics.update(scores, labels)

    @abstractmethod
    def usable(self, images: Annotations, names: Sequence[str]) -> NDArray[np.bool_]:
        """Which images can be trained and evaluated on, bool [N]."""

    @abstractmethod
    def labels(self, images: Annotations, names: Sequence[str]) -> NDArray[Any]:
        """Values with which an evaluation compares: [N], or a row an image; any value where an image is not usable."""

    def training_targets(self, images: Annotations, names: Sequence[str]) -> NDArray[Any]:
        """Values at which a training aims: here `labels`; of classes also their probabilities, float32 [N, K]."""
        return self.labels(images, names)

    @abstractmethod
    def metrics(self, names: Sequence[str], sync_on_compute: bool = True) -> Metrics:
        """The metrics of a vote, fed with its scores `[B, K]` and labels by `update`; of all ranks, unless
        `sync_on_compute` is false."""

    @abstractmethod
    def to_values(self, computed: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """Computed metrics as plain values, for result.json. `best` is one of them."""

    @abstractmethod
    def to_curves(self, values: Mapping[str, Any]) -> dict[str, float]:
        """The numbers among these values that an epoch logs, by name."""

    def judge(self, scores: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """The metrics of a vote's scores `[N, K]` of a whole part, on this process, as plain values."""
        metrics = self.metrics(names, sync_on_compute=False)
        self.update(metrics, scores, labels, names)
        return self.to_values(metrics.compute(), names)

    def to_arrays(self, outputs: CropOutputs, scores: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
        """The arrays that a run keeps of a part's predictions, by name.

        Classes have crop `logits` [N, V, K], the vote's `scores` [N, K], `labels` [N], and where they were computed the
        `whole` map's logits [N, K]; numbers have `number_crops` [N, V, n], `number_scores` and `number_labels` [N, n].
        """
        whole = {"whole": outputs.full_map} if outputs.has_full_map else {}
        tensors = {"logits": outputs.crops, "scores": scores, "labels": labels, **whole}
        return {name: tensor.numpy() for name, tensor in tensors.items()}


class Classes(Target):
    """One class an image, judged by accuracy and recall (paper, section 3.4)."""

    best = "accuracy"

    def usable(self, images: Annotations, names: Sequence[str]) -> NDArray[np.bool_]:
        return images.good & (images.class_ids(names) >= 0)

    def labels(self, images: Annotations, names: Sequence[str]) -> NDArray[np.int64]:
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
    """Classes that several raters voted for (FER+), by the column `votes` [N, n].

    Args:
        majority: use only images on which more than half of the raters agree, and train with that class; else all
            images, trained with the classes' shares of the votes.
        label_share: share of each training target, 0 to 1, that another class of the image gets, by the column
            `fer2013_class`, int64 [N]. Where that class is none of the network's, the votes have it all.
        order: names of the n columns, which `fer2013_class` counts too; None: the network's classes are the first.
    """

    lacking = "no majority of votes"

    def __init__(self, majority: bool, label_share: float = 0.0, order: Sequence[str] | None = None) -> None:
        self.majority, self.label_share, self.order = majority, label_share, order

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
        order = names if self.order is None else self.order
        columns = [order.index(name) for name in names]
        if self.majority:
            targets = np.eye(len(names), dtype=np.float32)[classes]
        else:
            votes = images.column("votes")[:, columns].astype(np.float32, order="C")
            # Rows without a vote for these classes are not usable; their zeros are never read.
            targets = votes / np.maximum(votes.sum(axis=1, keepdims=True), 1)
        if self.label_share:
            other = np.eye(len(order), dtype=np.float32)[:, columns][images.column("fer2013_class")]
            mixed = (1 - self.label_share) * targets + self.label_share * other
            targets = np.where(other.any(axis=1, keepdims=True), mixed, targets)
        return targets


class SignAgreement(Metric):
    """Share of the images whose prediction has the label's sign, of each of n numbers; 0 has that of 0 only.

    SAGR of Nicolaou, Gunes and Pantic 2011 (doi:10.1109/T-AFFC.2011.9), which AffectNet's paper reports.
    """

    agreeing: Tensor
    images: Tensor

    def __init__(self, numbers: int, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("agreeing", torch.zeros(numbers), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, scores: Tensor, labels: Tensor) -> None:
        self.agreeing += (scores.sign() == labels.sign()).sum(dim=0)
        self.images += len(labels)

    def compute(self) -> Tensor:
        return self.agreeing / self.images


class _WithoutWarning:
    """Before a metric's class: no warning where numbers don't vary, as those of a network that has learned nothing."""

    def compute(self) -> Tensor:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The variance of predictions or target")
            return super().compute()  # type: ignore[misc]


class Pearson(_WithoutWarning, PearsonCorrCoef):
    pass


class Concordance(_WithoutWarning, ConcordanceCorrCoef):
    pass


class ValenceArousal(Target):
    """Valence and arousal as the network's only outputs, judged as in AffectNet's paper (Mollahosseini et al. 2019).

    Labels and training targets are float32 [N, 2]; scores are the vote's numbers.
    """

    best = "mean_ccc"
    has_classes = False
    numbers = NUMBERS

    def usable(self, images: Annotations, names: Sequence[str]) -> NDArray[np.bool_]:
        """Images of one of the classes that have both numbers."""
        return images.good & (images.class_ids(names) >= 0) & np.isfinite(self.labels(images, names)).all(axis=1)

    def labels(self, images: Annotations, names: Sequence[str]) -> NDArray[np.float32]:
        return np.stack([images.column(name) for name in self.numbers], axis=1).astype(np.float32)

    def fit(self, vote: Vote, outputs: CropOutputs, labels: Tensor, cost: Any) -> Vote:
        return vote  # mean and median have no parameters

    def scores(self, vote: Vote, outputs: CropOutputs, names: Sequence[str]) -> Tensor:
        return vote.numbers(outputs.crops)

    def metrics(self, names: Sequence[str], sync_on_compute: bool = True) -> Metrics:
        of_each: dict[str, Any] = {"sync_on_compute": sync_on_compute}
        count = len(self.numbers)
        return MetricCollection(
            {
                "rmse": MeanSquaredError(squared=False, num_outputs=count, **of_each),
                "pearson": Pearson(num_outputs=count, **of_each),
                "ccc": Concordance(num_outputs=count, **of_each),
                "sign_agreement": SignAgreement(count, **of_each),
            }
        )

    def to_values(self, computed: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """`rmse`, `pearson`, `ccc` (concordance) and `sign_agreement` by number, and `mean_ccc`.

        Both correlations of numbers that don't vary are 0.
        """
        values = {
            name: dict(zip(self.numbers, tensor.nan_to_num(0.0).tolist(), strict=True))
            for name, tensor in computed.items()
        }
        return {**values, "mean_ccc": sum(values["ccc"].values()) / len(self.numbers)}

    def to_curves(self, values: Mapping[str, Any]) -> dict[str, float]:
        metrics = ("rmse", "pearson", "ccc", "sign_agreement")
        by_number = {f"{metric}/{name}": value for metric in metrics for name, value in values[metric].items()}
        return {"mean_ccc": values["mean_ccc"], **by_number}

    def to_arrays(self, outputs: CropOutputs, scores: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
        tensors = {"number_crops": outputs.crops, "number_scores": scores, "number_labels": labels}
        return {name: tensor.numpy() for name, tensor in tensors.items()}


class Both(Target):
    """The data set's classes, and valence and arousal, by one network of K + 2 outputs.

    Labels and training targets are float32 [N, K + 2]: probabilities of the classes (1 for the image's), the numbers.

    Args:
        best: metric that decides the best epoch, `accuracy` or `mean_ccc`.
    """

    numbers = NUMBERS

    def __init__(self, best: str = "accuracy") -> None:
        if best not in (Classes.best, ValenceArousal.best):
            raise ValueError(f"target.best={best} must be {Classes.best} or {ValenceArousal.best}")
        self.best = best
        self._classes, self._numbers = Classes(), ValenceArousal()

    def usable(self, images: Annotations, names: Sequence[str]) -> NDArray[np.bool_]:
        return self._classes.usable(images, names) & self._numbers.usable(images, names)

    def labels(self, images: Annotations, names: Sequence[str]) -> NDArray[np.float32]:
        one_hot = np.eye(len(names), dtype=np.float32)[images.class_ids(names)]
        return np.concatenate([one_hot, self._numbers.labels(images, names)], axis=1)

    def fit(self, vote: Vote, outputs: CropOutputs, labels: Tensor, cost: Any) -> Vote:
        classes = labels.shape[1] - len(self.numbers)
        return vote.fit(outputs.split(classes)[0], labels[:, :classes].argmax(dim=1), cost)

    def scores(self, vote: Vote, outputs: CropOutputs, names: Sequence[str]) -> Tensor:
        """Scores of the classes, and the vote's numbers: `[B, K + 2]`."""
        classes, numbers = outputs.split(len(names))
        return torch.cat([vote.scores(classes), vote.numbers(numbers)], dim=1)

    def update(self, metrics: Any, scores: Tensor, labels: Tensor, names: Sequence[str]) -> None:
        (classes, numbers), (class_ids, number_labels) = (_split(each, len(names)) for each in (scores, labels))
        class_ids = class_ids.argmax(dim=1)
        metrics.update({"classes": classes, "numbers": numbers}, {"classes": class_ids, "numbers": number_labels})

    def metrics(self, names: Sequence[str], sync_on_compute: bool = True) -> Metrics:
        parts = {"classes": self._classes, "numbers": self._numbers}
        return MultitaskWrapper({key: part.metrics(names, sync_on_compute) for key, part in parts.items()})

    def to_values(self, computed: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
        """The values of `Classes` and of `ValenceArousal`."""
        of_classes = self._classes.to_values(computed["classes"], names)
        return of_classes | self._numbers.to_values(computed["numbers"], names)

    def to_curves(self, values: Mapping[str, Any]) -> dict[str, float]:
        return self._classes.to_curves(values) | self._numbers.to_curves(values)

    def to_arrays(self, outputs: CropOutputs, scores: Tensor, labels: Tensor, names: Sequence[str]) -> dict[str, Any]:
        of_classes, crops = outputs.split(len(names))
        (class_scores, numbers), (class_ids, number_labels) = (_split(each, len(names)) for each in (scores, labels))
        return self._classes.to_arrays(of_classes, class_scores, class_ids.argmax(dim=1), names) | (
            self._numbers.to_arrays(CropOutputs(crops), numbers, number_labels, names)
        )


def _split(values: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    return values[:, :classes], values[:, classes:]


def target_of(class_names: Sequence[str], number_names: Sequence[str]) -> Target | None:
    """The target by which a network with numbers is evaluated; None for one of classes, which a data set judges.

    Raises ValueError for other numbers than valence and arousal.
    """
    if not number_names:
        return None
    if tuple(number_names) != NUMBERS:
        raise ValueError(f"a network of the numbers {', '.join(number_names)} is evaluated by a target of its own")
    return Both() if class_names else ValenceArousal()
