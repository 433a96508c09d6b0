"""Analyses of a network's stored predictions: fewer crops, their agreement, and the labels.

Pure functions of arrays. Shapes: N images, V crops an image, K classes.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from fer_voting.models.crops import CROPS
from fer_voting.votes import VOTES, soft_vote

PLACES = CROPS // 2
"""Number of crop places. `models.crops.ten_crops` takes each place of the map, then of the mirrored map."""
MIRRORED = (1, 0, 3, 2, 4)
"""Each place's place in the mirrored map: left is right there."""


def crop_choices() -> Mapping[str, list[tuple[int, ...]]]:
    """Number and kind of crops -> every choice of them, as positions among the ten.

    1, 2 and 5 of the five places, as they are and each with its mirror image.
    """
    choices: dict[str, list[tuple[int, ...]]] = {}
    for places in (1, 2, PLACES):
        chosen = list(itertools.combinations(range(PLACES), places))
        choices[f"{places}, not mirrored"] = chosen
        choices[f"{2 * places}, with mirror images"] = [(*one, *(PLACES + MIRRORED[i] for i in one)) for one in chosen]
    return choices


def mean_accuracy(logits: Tensor, labels: NDArray[np.int64], vote: str, choices: Sequence[tuple[int, ...]]) -> float:
    """Accuracy of a vote among fewer crops, the mean over the choices of crops.

    Args:
        logits: `[N, V, K]`.
        labels: class ids [N].
        vote: a key of `votes.VOTES`.
        choices: positions among the V crops.
    """
    targets = torch.from_numpy(labels)
    shares = [(VOTES[vote](logits[:, list(one)]).argmax(dim=1) == targets).double().mean().item() for one in choices]
    return sum(shares) / len(shares)


def agreeing_crops(logits: Tensor) -> NDArray[np.int64]:
    """How many of an image's crops decide as the soft vote does, each by its own logits: `[N, V, K]` -> [N]."""
    decisions = soft_vote(logits).argmax(dim=1)
    return (logits.argmax(dim=2) == decisions[:, None]).sum(dim=1).numpy()


def area_under_roc(scores: NDArray[np.number], positive: NDArray[np.bool_]) -> float:
    """Probability that a positive has a higher score than a negative, half where they are equal.

    The area under the receiver operating characteristic, by the ranks of Mann and Whitney (Hanley and McNeil 1982,
    doi:10.1148/radiology.143.1.7063747). nan without a positive or without a negative.

    Args:
        scores: [N].
        positive: [N].
    """
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(scores)
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))


class LabelShares(NamedTuple):
    """A network's decisions against two labels of the same images; shares of 1.

    Attributes:
        by_label, by_other: accuracy by the labels of the data set, and by the other labels.
        wrong: decisions that are not the data set's label: errors.
        of_label, of_network, of_neither: the errors whose decision is the other label (the label's error), whose two
            labels agree (the network's), and whose decision is neither of two different labels; shares of the errors.
    """

    by_label: float
    by_other: float
    wrong: float
    of_label: float
    of_network: float
    of_neither: float


def label_shares(
    decisions: NDArray[np.int64], labels: NDArray[np.int64], other_labels: NDArray[np.int64]
) -> LabelShares:
    """How much of the error is the label's. Images without another label (-1) are left out.

    Args:
        decisions, labels, other_labels: class ids [N].

    Raises ValueError if no image has another label.
    """
    known = other_labels >= 0
    if not known.any():
        raise ValueError("no image has another label")
    decisions, labels, other_labels = decisions[known], labels[known], other_labels[known]
    wrong, right, same = decisions != labels, decisions == other_labels, labels == other_labels
    of_errors = [int((wrong & kind).sum()) / max(int(wrong.sum()), 1) for kind in (right, same, ~same & ~right)]
    return LabelShares(1 - float(wrong.mean()), float(right.mean()), float(wrong.mean()), *of_errors)
