"""A train/val/test split as a CSV file: part, name, label and content hash of each image, no images."""

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.index import PARTS
from fer_voting.data.pack import Pack
from fer_voting.data.tables import open_table
from fer_voting.system.atomic import write_atomically
from fer_voting.system.text import counted, csv_safe

_COLUMNS = ["part", "name", "label", "hash"]


def write_manifest(path: Path, pack: Pack, division: Mapping[str, NDArray[np.int64]]) -> None:
    """Write `division` (part -> positions in the pack) to a CSV file, names and labels by `system.text.csv_safe`."""
    with write_atomically(path) as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(_COLUMNS)
        names = pack.names()
        for part, positions in division.items():
            for position in positions:
                label = csv_safe(pack.labels[pack.label_ids[position]])
                rows.writerow([part, csv_safe(names[position]), label, pack.hashes[position].tobytes().hex()])


def read_manifest(path: Path, pack: Pack, usable: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    """Part -> positions in the pack, ascending, of the images that a manifest lists.

    Images are identified by content, so the same files in another layout match; names only distinguish copies of one
    image.

    Args:
        usable: bool [N], the rows that may be used.

    Raises ValueError if the file is no manifest or lists images that are missing, unusable or labelled differently.
    """
    rows = _read_rows(path, f"dataset.manifest={path}")
    names = [csv_safe(name) for name in pack.names()]
    labels = [csv_safe(label) for label in pack.labels]
    by_hash: dict[str, list[int]] = defaultdict(list)
    for position in np.flatnonzero(usable).tolist():
        by_hash[pack.hashes[position].tobytes().hex()].append(position)
    division: dict[str, list[int]] = defaultdict(list)
    missing: list[str] = []
    relabelled: list[str] = []
    # Rows whose name exists here first, so that no copy takes their image.
    known = set(names)
    for row in sorted(rows, key=lambda row: row["name"] not in known):
        candidates = by_hash.get(row["hash"], [])
        chosen = next((p for p in candidates if names[p] == row["name"]), candidates[0] if candidates else None)
        if chosen is None:
            missing.append(row["name"])
        elif labels[pack.label_ids[chosen]] != row["label"]:
            relabelled.append(row["name"])
        else:
            candidates.remove(chosen)
            division[row["part"]].append(chosen)
    for wrong, reason in ((missing, "are not here, or have other content"), (relabelled, "have another label here")):
        if wrong:
            raise ValueError(
                f"dataset.manifest={path}: {len(wrong)} of its {counted(len(rows), 'image')} {reason}, e.g. {wrong[0]}"
            )
    return {part: np.array(sorted(division[part])) for part in PARTS if division[part]}


def _read_rows(path: Path, shown: str) -> list[dict[str, str]]:
    with open_table(path, _COLUMNS) as table:
        columns, rows = table.columns, list(table.by_column())
    if (
        not rows
        or columns != _COLUMNS
        or any(row["part"] not in PARTS or None in row.values() or None in row for row in rows)
    ):
        raise ValueError(
            f"{shown} is no manifest: expected the columns {','.join(_COLUMNS)} and the parts {', '.join(PARTS)}"
        )
    return [{str(column): str(cell) for column, cell in row.items()} for row in rows]
