"""The images that a network comes from: those of its training, and of each run whose weights or outputs it began with.

A run's folder keeps them in `trained_on.npz`, each run before with its own, so that nothing has to be found again:

    images    V16 [N], ascending: content hashes (`Pack.hashes`) of all that were trained on
    runs      str [G]: the run itself, and those before it
    trained   bool [G, N]
    unknown   str [U]: networks before it whose images are not known

Images are compared by the content of their files: the same picture saved as another file is another image.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz, write_npz
from fer_voting.system.text import counted

Hashes = NDArray[np.void]
"""Content hashes of images, V16 [n]."""


@dataclass(frozen=True)
class Lineage:
    """The images that a network comes from.

    Attributes:
        images: name of a run -> those that it was trained on, unique and ascending.
        unknown: names of runs, checkpoints and folders whose images are not known.
    """

    images: Mapping[str, Hashes]
    unknown: tuple[str, ...]

    @classmethod
    def of_network(cls, run: Run | None, name: str) -> "Lineage":
        """The lineage of a trained network: not known, unless it is of a run that has kept it.

        Args:
            run: in whose folder the network lies.
            name: of the network, if it lies in no run's folder.

        Raises ValueError if the run's file is damaged.
        """
        if run is None or not run.lineage_file.exists():
            return cls({}, (name if run is None else run.name,))
        arrays = read_npz(run.lineage_file, "images", "runs", "trained", "unknown")
        images, runs, trained = arrays["images"], arrays["runs"].tolist(), arrays["trained"]
        if images.dtype.kind != "V" or trained.dtype != bool or trained.shape != (len(runs), len(images)):
            raise ValueError(f"{run.lineage_file} is damaged: its arrays do not fit each other")
        names = [run.name, *map(str, runs[1:])]  # its folder may have been renamed, as a run before it is called
        of_runs = (cls({name: images[rows]}, ()) for name, rows in zip(names, trained, strict=True))
        return cls.joined([*of_runs, cls({}, tuple(map(str, arrays["unknown"].tolist())))])

    @classmethod
    def joined(cls, lineages: Iterable["Lineage"]) -> "Lineage":
        """All of several; of runs of the same name, the images of either."""
        images: dict[str, Hashes] = {}
        unknown: dict[str, None] = {}
        for lineage in lineages:
            unknown |= dict.fromkeys(lineage.unknown)
            for name, own in lineage.images.items():
                images[name] = np.union1d(images[name], own) if name in images else own
        return cls(images, tuple(unknown))

    def keep(self, run: Run, trained: Hashes) -> None:
        """Write into a run's folder what it was trained on, and behind it this lineage."""
        of_run = [np.unique(trained), *self.images.values()]
        images = np.unique(np.concatenate(of_run))
        write_npz(
            run.lineage_file,
            images=images,
            runs=np.array([run.name, *self.images], np.str_),
            trained=np.stack([np.isin(images, own) for own in of_run]),
            unknown=np.array(self.unknown, np.str_),
        )

    def overlap(self, parts: Mapping[str, Hashes]) -> dict[str, Any]:
        """How many images of each part (`val`, `test`) were trained on, as plain values.

        Returns `images` (part -> number trained on by any run), `by_run` (run -> part -> number) and `unknown`.
        """

        def count(runs: Iterable[Hashes]) -> dict[str, int]:
            known = np.concatenate([np.empty(0, "V16"), *runs])
            return {part: int(np.isin(hashes, known).sum()) for part, hashes in parts.items()}

        return {
            "images": count(self.images.values()),
            "by_run": {name: count([own]) for name, own in self.images.items()},
            "unknown": list(self.unknown),
        }


def overlap_lines(overlap: Mapping[str, Any]) -> list[str]:
    """Sentences about an `overlap`: `34 test images are among those that A was trained on`; none if there is none."""
    lines = []
    for part, number in overlap["images"].items():
        if number:
            runs = ", ".join(name for name, counts in overlap["by_run"].items() if counts[part])
            lines.append(f"{counted(number, f'{part} image', 'is/are')} among those that {runs} was trained on")
    if overlap["unknown"]:
        lines.append(f"it is not known which images {', '.join(overlap['unknown'])} was trained on")
    return lines


def inherited_lines(results: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each finished run with images that a network which it starts or learns from was trained on."""
    return [
        f"{result['name']}: {'; '.join(lines)}"
        for result in results
        if (inherited := result.get("inherited")) and (lines := overlap_lines(inherited))
    ]
