"""The embedded data set: drawn faces (see renderer.py), never downloaded. Its results are synthetic."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.division import apportion
from fer_voting.data.faces import renderer
from fer_voting.data.index import Index, Sample
from fer_voting.data.labels import CLASSES
from fer_voting.data.module import Division, FERDataModule, Source
from fer_voting.data.pack import PREPARATION, SPLITS, Pack, Prepared, content_hash

__all__ = ["FacesDataModule", "picture_and_person"]

# RAF-DB's training images of each class, in CLASSES' order: the drawn faces are as unbalanced.
_WEIGHTS = (2524, 4772, 1982, 1290, 281, 717, 705)
_PICTURES_A_PERSON = 4


def picture_and_person(split: str, number: int) -> tuple[int, int]:
    """The renderer's numbers for a split's picture `number` and whom it shows: none is in two splits."""
    part = SPLITS.index(split)
    return len(SPLITS) * number + part, len(SPLITS) * (number // _PICTURES_A_PERSON) + part


class FacesDataModule(FERDataModule):
    """Drawn faces with seven expressions; training, validation and test show different people.

    Args:
        train_size, val_size, test_size: images; a larger data set does not contain the smaller one.
        shared: see FERDataModule; `data_seed` draws another data set.
    """

    synthetic: ClassVar[bool] = True

    def __init__(self, *, train_size: int, val_size: int, test_size: int, **shared: Any) -> None:
        super().__init__(**shared)
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for split, size in self.sizes.items():
            if size < len(_WEIGHTS):
                raise ValueError(f"dataset.{split}_size={size} must be at least {len(_WEIGHTS)}")

    def source(self) -> Source:
        identity = {
            "dataset": type(self).__name__,
            "sizes": self.sizes,
            "data_seed": self.data_seed,
            "size": self.size,
            "preparation": PREPARATION,
            "source": content_hash(Path(renderer.__file__).read_bytes()).hex(),
        }
        return Source(identity, self._read, self._draw)

    def _read(self) -> Index:
        samples = []
        for split, size in self.sizes.items():
            labels = np.repeat(CLASSES[: len(_WEIGHTS)], apportion(size, _WEIGHTS))
            labels = np.random.default_rng((self.data_seed, SPLITS.index(split))).permutation(labels)
            samples += [
                Sample(name=f"{split}/{number:06d}", label=str(label), split=split)
                for number, label in enumerate(labels)
            ]
        return Index(samples)

    def _draw(self, samples: Sequence[Sample], size: int) -> list[Prepared]:
        numbers = [picture_and_person(s.split, int(s.name.rpartition("/")[2])) for s in samples]
        pictures = renderer.render_faces(
            seed=self.data_seed,
            indices=[picture for picture, _ in numbers],
            expressions=[sample.label for sample in samples],
            identities=[person for _, person in numbers],
            size=size,
        )
        return [(picture, content_hash(picture.tobytes())) for picture in pictures]

    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        return {split: np.flatnonzero(usable & (pack.split_ids == i)) for i, split in enumerate(SPLITS)}
