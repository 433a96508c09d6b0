"""The base class of all votes, and the network's outputs that a vote takes.

Shapes: B images, V crops an image, K classes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:  # commands that only need the votes' names start without torch
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from fer_voting.votes.adaptive import AdaptiveCost

TEMPERATURES = (0.05, 20.0)
"""Bounds of the fitted temperature: where every decision is right, the likelihood has no maximum above 0."""


class CropOutputs:
    """The logits that a network gives for B images, floating point.

    Args:
        crops: logits of the crops, `[B, V, K]`.
        full_map: logits of the whole map that the crops were taken from, `[B, K]`, where they were computed.
    """

    def __init__(self, crops: Tensor, full_map: Tensor | None = None) -> None:
        self.crops, self._full_map = crops, full_map

    @property
    def has_full_map(self) -> bool:
        return self._full_map is not None

    @property
    def full_map(self) -> Tensor:
        """Logits of the whole map, `[B, K]`. Raises ValueError if they were not computed: no vote can do without them
        silently."""
        if self._full_map is None:
            raise ValueError("this vote needs the logits of the full map (`CropOutputs.full_map`) besides the crops'")
        return self._full_map

    def split(self, classes: int) -> tuple[CropOutputs, Tensor]:
        """The logits of the first `classes` of K outputs, and the crops' numbers, which are the others: `[B, V, n]`.

        Without the full map, by which no vote decides where a network has numbers.
        """
        return CropOutputs(self.crops[..., :classes]), self.crops[..., classes:]

    def double(self) -> CropOutputs:
        """The same in float64."""
        return CropOutputs(self.crops.double(), self.full_map.double() if self.has_full_map else None)


@dataclass(frozen=True)
class Vote(ABC):
    """A rule that makes one decision of an image's crop logits (paper, section 3.1).

    A subclass implements `scores`. It is what `_target_` in a file of conf/voting names; the file's other keys are the
    constructor's arguments. A vote is immutable: `fit` and `from_values` return another one.

    The fields after `name` are parameters that `fit` finds on validation images. `result.json` and exported files keep
    them by name. A subclass with more parameters is a frozen dataclass, each parameter a number or a tuple of numbers.
    """

    name: str
    temperature: float = 1.0
    """Divisor of scores that are logits, before their softmax (Guo et al. 2017, arXiv:1706.04599, section 4.2)."""

    is_probability: ClassVar[bool] = False
    """Whether scores are probabilities: 0 to 1, a row sums to 1. Else they are logits."""
    is_continuous: ClassVar[bool] = True
    """Whether scores change little where logits do. The hard vote jumps where two classes of a crop are equal."""
    needs_full_map: ClassVar[bool] = False
    """Whether `scores` reads `CropOutputs.full_map`. Only a network that crops one of its maps has such a vote."""
    has_rule_for_numbers: ClassVar[bool] = False
    """Whether a network without classes can decide by this vote. Another vote's `numbers` would be the soft vote's."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Parameters without which the vote cannot decide. A vote that has some selects no epoch, because its accuracy on
    the images that it was fitted on is optimistic; it is fitted once, at the end of a training."""

    def __post_init__(self) -> None:
        """Raises ValueError for a parameter out of range."""
        check_number("temperature", self.temperature, "greater than 0", lambda value: 0 < value < math.inf)

    @abstractmethod
    def scores(self, outputs: CropOutputs) -> Tensor:
        """Scores `[B, K]` of the crops' dtype; their argmax over K is the decision.

        Raises ValueError if the vote needs the full map or a parameter that is missing.
        """

    def __call__(self, crops: Tensor) -> Tensor:
        """`scores` of crop logits: `[B, V, K]` -> `[B, K]`."""
        return self.scores(CropOutputs(crops))

    def numbers(self, crops: Tensor) -> Tensor:
        """One value of the crops' for each number, such as valence: `[B, V, n]` -> `[B, n]`. Here their mean."""
        return crops.mean(dim=1)

    def takes(self, classes: int, numbers: int) -> bool:
        """Whether a network with outputs for so many classes and numbers can decide by this vote."""
        return not numbers or (not self.needs_full_map if classes else self.has_rule_for_numbers)

    def probabilities(self, outputs: CropOutputs) -> Tensor:
        """Probabilities of the classes `[B, K]`: a row sums to 1, its argmax is the decision."""
        scores = self.scores(outputs)
        return scores if self.is_probability else (scores / self.temperature).softmax(dim=1)

    def deciding_crops(self, outputs: CropOutputs) -> Tensor:
        """The crop logits `[B, V, K]` that the vote decides by."""
        return outputs.crops

    def undecided(self, full_map: Tensor) -> Tensor:
        """Which images' crops the vote needs after it has seen the logits of the full map: `[B, K]` -> bool `[B]`."""
        return full_map.new_ones(len(full_map)).bool()

    def fit(self, outputs: CropOutputs, labels: Tensor | NDArray[np.int64], cost: AdaptiveCost | None = None) -> Self:
        """This vote with the parameters that validation images give: here, the temperature.

        Args:
            outputs: of N images.
            labels: class ids [N].
            cost: of the parts of the network, for votes that choose between them.

        Raises ValueError if there are no images.
        """
        if not len(labels):
            raise ValueError("a vote needs at least one image to be fitted on")
        if self.is_probability:
            return self
        return replace(self, temperature=fit_temperature(self.scores(outputs.double()), labels))

    @property
    def epoch_vote(self) -> str:
        """Name of the vote whose best epoch's checkpoint this vote uses: itself, or `soft` if it selects none.

        A vote that is fitted afterwards selects none, nor one that needs the full map: a training's validation does
        not compute it."""
        return "soft" if self.needs or self.needs_full_map else self.name

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(field.name for field in fields(self) if field.name != "name")

    def to_values(self) -> dict[str, Any]:
        """The parameters that are known, by name: numbers and lists of numbers."""
        values = {name: getattr(self, name) for name in self.parameters}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None
        }

    def from_values(self, values: Mapping[str, Any]) -> Self:
        """This vote with the parameters of `to_values`; other names are ignored.

        Raises ValueError for a value of the wrong type or out of range.
        """
        known: dict[str, Any] = {
            name: tuple(values[name]) if isinstance(values[name], list) else values[name]
            for name in self.parameters
            if values.get(name) is not None
        }
        return replace(self, **known)

    def require_fitted(self) -> Self:
        """This vote. Raises ValueError if it lacks a parameter without which it cannot decide."""
        for name in self.needs:
            if getattr(self, name) is None:
                raise ValueError(
                    f"`vote` (={self.name!r}) needs a {name.removesuffix('s')} fitted on validation images: "
                    f"use a finished run that has one (votes.{self.name}.{name} in its result.json)"
                )
        return self


def check_number(name: str, value: Any, meaning: str, is_valid: Callable[[float], bool]) -> None:
    """Raises ValueError unless `value` is a number for which `is_valid` is true."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"`{name}` (={value!r}) must be a number")
    if not is_valid(value):
        raise ValueError(f"`{name}` (={value}) must be {meaning}")


def fit_temperature(scores: Tensor | NDArray[np.floating], labels: Tensor | NDArray[np.int64]) -> float:
    """The temperature at which scores that are logits make the labels most likely (Guo et al. 2017, section 4.2).

    No decision changes.

    Args:
        scores: [N, K], N >= 1.
        labels: class ids [N].
    """
    import numpy as np
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    scores = np.asarray(scores, np.float64)
    rows, classes = np.arange(len(labels)), np.asarray(labels)

    def loss(log_temperature: float) -> float:
        return -float(log_softmax(scores / np.exp(log_temperature), axis=1)[rows, classes].mean())

    # Convex in 1 / temperature, so that there is one minimum.
    fitted = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded", options={"xatol": 1e-6})
    return float(np.exp(fitted.x))
