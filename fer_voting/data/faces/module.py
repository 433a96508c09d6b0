"""The embedded data set: drawn faces (renderer.py), never downloaded. Results on it are marked synthetic."""

from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np

from fer_voting.data.faces.parameters import draw_units, valence_and_arousal
from fer_voting.data.faces.renderer import SIZES, render_faces
from fer_voting.data.images import PREPARATION_VERSION, PreparedImage, content_hash
from fer_voting.data.index import PARTS, Index, Sample
from fer_voting.data.labels import CLASSES
from fer_voting.data.module import FERDataModule
from fer_voting.data.pack import Source
from fer_voting.data.sampling import apportion
from fer_voting.targets import NUMBERS

# RAF-DB's training images of each class, in CLASSES' order: the drawn faces are as imbalanced.
_WEIGHTS = (2524, 4772, 1982, 1290, 281, 717, 705)
_IMAGES_PER_PERSON = 4


def image_and_person(part: str, number: int) -> tuple[int, int]:
    """The renderer's numbers of a part's image `number` and of the person in it; no number is in two parts."""
    part_id = PARTS.index(part)
    return len(PARTS) * number + part_id, len(PARTS) * (number // _IMAGES_PER_PERSON) + part_id


def renderer_digest(folder: Path = Path(__file__).parent) -> str:
    """Hex digest of this package's source files, which together determine the pixels."""
    return content_hash(*(path.read_bytes() for path in sorted(folder.glob("*.py")))).hex()


class FacesDataModule(FERDataModule):
    """Drawn faces with seven expressions; training, validation and test show different people.

    Valence and arousal follow from each face's action units (`parameters.valence_and_arousal`).

    Args:
        train_size, val_size, test_size: images; a larger data set does not contain the smaller one.
        shared: see FERDataModule; another `data_seed` gives another data set.
    """

    synthetic: ClassVar[bool] = True
    numbers: ClassVar[tuple[str, ...]] = NUMBERS

    def __init__(self, *, train_size: int, val_size: int, test_size: int, **shared: Any) -> None:
        super().__init__(**shared)
        if self.size not in SIZES:
            raise ValueError(f"dataset.size={self.size} must be {SIZES[0]} to {SIZES[-1]} for drawn faces")
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for part, size in self.sizes.items():
            if size < len(_WEIGHTS):
                raise ValueError(f"dataset.{part}_size={size} must be at least {len(_WEIGHTS)}")

    def source(self) -> Source:
        return Source(
            place={
                "dataset": type(self).__name__,
                "sizes": self.sizes,
                "data_seed": self.data_seed,
                "size": self.size,
            },
            state={
                "preparation": PREPARATION_VERSION,
                "source": renderer_digest(),
                "counts": {part: self._class_counts(part) for part in PARTS},
                "opencv": cv2.__version__,
                "numpy": np.__version__,  # its random generators may change between releases
            },
            read=self._read,
            decoder=self._draw,
        )

    def _class_counts(self, part: str) -> dict[str, int]:
        return dict(zip(CLASSES[: len(_WEIGHTS)], apportion(self.sizes[part], _WEIGHTS), strict=True))

    def _read(self) -> Index:
        samples = []
        for part_id, part in enumerate(PARTS):
            labels = [label for label, count in self._class_counts(part).items() for _ in range(count)]
            labels = np.random.default_rng((self.data_seed, part_id)).permutation(labels).tolist()
            samples += [
                Sample(f"{part}/{number:06d}", label, part, columns=self._numbers(part, number, label))
                for number, label in enumerate(labels)
            ]
        return Index(samples)

    def _numbers(self, part: str, number: int, label: str) -> dict[str, float]:
        units = draw_units(self.data_seed, image_and_person(part, number)[0], label)
        return dict(zip(NUMBERS, valence_and_arousal(units), strict=True))

    def _draw(self, sample: Sample, size: int) -> PreparedImage:
        image, person = image_and_person(sample.part, int(sample.name.rpartition("/")[2]))
        pixels = render_faces(self.data_seed, [image], [sample.label], [person], size)[0]
        return pixels, content_hash(pixels.tobytes())
