"""A division as a file that another lab can use: stage, name, label and content hash of each image, no pictures."""

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.pack import SPLITS, Pack
from fer_voting.system.atomic import write_atomically

__all__ = ["read_manifest", "write_manifest"]

_COLUMNS = ["split", "name", "label", "hash"]


def write_manifest(path: Path, pack: Pack, division: Mapping[str, NDArray[np.int64]]) -> None:
    """Write `division` (stage -> positions in the pack) to a CSV file."""
    with write_atomically(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        for stage, positions in division.items():
            for position, name in zip(positions, pack.names(positions), strict=True):
                label = pack.labels[pack.label_ids[position]]
                rows.writerow([stage, name, label, pack.hashes[position].tobytes().hex()])


def read_manifest(path: Path, pack: Pack, usable: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    """Stage -> positions in the pack, ascending, of the images that a manifest names.

    An image is known by its content; its name only tells copies of one picture apart, so that the same files in
    another layout do.

    Args:
        usable: bool [N], the rows that may be used.

    Raises:
        ValueError: it is no manifest, or names images that are missing here, unusable, or labelled differently.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows or list(rows[0]) != _COLUMNS or {row["split"] for row in rows} - set(SPLITS):
        raise ValueError(
            f"dataset.manifest={path} is no manifest: expected the columns {','.join(_COLUMNS)} "
            f"and the splits {', '.join(SPLITS)}"
        )
    names = pack.names()
    by_hash: dict[str, list[int]] = defaultdict(list)
    for row_number in np.flatnonzero(usable).tolist():
        by_hash[pack.hashes[row_number].tobytes().hex()].append(row_number)
    division: dict[str, list[int]] = defaultdict(list)
    missing: list[str] = []
    relabelled: list[str] = []
    # Rows whose name is here go first, so that a copy of theirs can't take their picture.
    known = set(names)
    for row in sorted(rows, key=lambda row: row["name"] not in known):
        candidates = by_hash.get(row["hash"], [])
        position = next((p for p in candidates if names[p] == row["name"]), candidates[0] if candidates else None)
        if position is None:
            missing.append(row["name"])
        elif pack.labels[pack.label_ids[position]] != row["label"]:
            relabelled.append(row["name"])
        else:
            candidates.remove(position)
            division[row["split"]].append(position)
    for amiss, what in ((missing, "are not here, or have other content"), (relabelled, "have another label here")):
        if amiss:
            raise ValueError(f"dataset.manifest={path}: {len(amiss)} of its {len(rows)} images {what}, e.g. {amiss[0]}")
    return {split: np.sort(np.array(division[split], np.int64)) for split in SPLITS if division[split]}
