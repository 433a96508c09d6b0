"""The face input of a trained network: how prediction cuts faces out of photos for it, as the network's file says."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

COLOURS = ("rgb", "grey")


@dataclass(frozen=True)
class FaceInput:
    """The facts by which prediction makes of a photo faces like those that a network was trained on.

    Raises ValueError for a value of another type or out of range.
    """

    colour: str = "rgb"
    """`grey`: all its training images were grey, so it is shown grey, which a cast of the light hardly changes."""
    margin: float = 0.05
    """A face is a square of 1 + `margin` times its box's longer side. FER2013's images are squares 1.05 times as high
    as CenterFace's box in them (median of 150)."""
    align: bool = True
    """Faces are turned upright by their landmarks."""
    detector: str = "centerface"
    """Whose boxes `margin` is counted from, by its name in `fer_voting.inference.faces.DETECTORS`, or a user's own."""

    def __post_init__(self) -> None:
        if self.colour not in COLOURS:
            raise ValueError(f"`colour` (={self.colour!r}) must be {' or '.join(COLOURS)}")
        if isinstance(self.margin, bool) or not isinstance(self.margin, int | float) or not -1 < self.margin < 100:
            raise ValueError(f"`margin` (={self.margin!r}) must be a number from -1 to 100")
        if type(self.align) is not bool:
            raise ValueError(f"`align` (={self.align!r}) must be true or false")
        if not isinstance(self.detector, str) or not self.detector.isprintable() or len(self.detector) > 200:
            raise ValueError(f"`detector` (={str(self.detector)[:40]!r}) must be a name of one line")

    def to_values(self) -> dict[str, Any]:
        """Plain values by name; the inverse of `from_values`."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Any) -> "FaceInput":
        """From plain values by name, as a file that anyone wrote may have them; what is missing has its default.

        `colour` has none: nobody would notice that a network of grey images is shown colours.

        Raises ValueError that names what is missing, unknown, of another type or out of range.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or (unknown := [name for name in values if name not in names]):
            what = "a mapping" if not isinstance(values, Mapping) else f"only these names, not {unknown[0]!r}"
            raise ValueError(f"`faces` must be {what}: {', '.join(names)}")
        if "colour" not in values:
            raise ValueError(
                'the metadata lacks the colour in which the network sees faces: add "faces": {"colour": "grey"} if all '
                'images of its training were grey, else "faces": {"colour": "rgb"}'
            )
        return cls(**values)


def check_faces(faces: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The faces in contiguous memory. Raises ValueError unless they are uint8 `[B, size, size, 3]` with B >= 1."""
    if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[1:] != (size, size, 3) or not len(faces):
        raise ValueError(
            f"`faces` must be uint8 [B, {size}, {size}, 3] with B >= 1, not {faces.dtype} {list(faces.shape)}"
        )
    return np.ascontiguousarray(faces)
