"""The division of a data set into train, val and test: counts, leaks and digests. Functions of a pack's arrays."""

import itertools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.images import content_hash
from fer_voting.data.index import PARTS, Counts
from fer_voting.data.pack import Pack
from fer_voting.data.sampling import Positions
from fer_voting.system.text import counted

log = logging.getLogger(__name__)

Division = dict[str, Positions]
"""part -> positions in the pack"""


def count_classes(class_ids: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, int]:
    """Class -> images; `class_ids` [n] are positions in `class_names`."""
    counts = np.bincount(class_ids, minlength=len(class_names)).tolist()
    return dict(zip(class_names, counts, strict=True))


def format_counts(counts: Mapping[str, int]) -> str:
    """`"happy 1,234, sad 56"`."""
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def official_counts(pack: Pack, usable: NDArray[np.bool_], class_names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Official part -> class -> usable images (bool [N]); without empty parts."""
    class_ids = pack.class_ids(class_names)
    return {p: count_classes(class_ids[rows], class_names) for p, rows in official_parts(pack, usable).items()}


def official_parts(pack: Pack, usable: NDArray[np.bool_]) -> Division:
    """Positions of the usable images (bool [N]) of each official part that has any."""
    division = {part: np.flatnonzero(usable & (pack.part_ids == i)) for i, part in enumerate(PARTS)}
    return {part: positions for part, positions in division.items() if len(positions)}


def renamed_counts(counts: Counts, names: Mapping[str, str | None]) -> Counts:
    """The counts by other names of the classes, without those whose name is None (`Pack.renamed`)."""
    renamed: dict[str, Counter[str]] = {part: Counter() for part in counts}
    for part, of_part in counts.items():
        for label, count in of_part.items():
            if (name := names.get(label, label)) is not None:
                renamed[part][name] += count
    return renamed


def differences(counts: Counts, published: Counts) -> Iterator[str]:
    """How the images of each official part differ from the published numbers, where these are known."""
    for part, here in counts.items():
        expected = {label: published.get(part, {}).get(label, count) for label, count in here.items()}
        if here != expected:
            classes = ", ".join(
                f"{label} {count:,} instead of {expected[label]:,}"
                for label, count in here.items()
                if count != expected[label]
            )
            yield (
                f"the official {part} part has {counted(sum(here.values()), 'image')} here "
                f"instead of {sum(expected.values()):,} ({classes})"
            )


def without_leaks(division: Division, hashes: NDArray[np.void], name: str) -> Division:
    """The division without training images that also occur in val or test, and without val images that do in test.

    Args:
        division: its parts in the order train, val, test.
        hashes: V16 [N], content of each image.
        name: of the data set, for the log.
    """
    disjoint, parts = dict(division), list(division)
    for place, part in enumerate(parts[:-1], start=1):
        later = np.concatenate([division[other] for other in parts[place:]])
        leaks = np.isin(hashes[division[part]], hashes[later])
        disjoint[part] = division[part][~leaks]
        log.info(f"{name}: left out {counted(leaks.sum(), f'{part} image')}, also in {' or '.join(parts[place:])}")
    return disjoint


def same_content(hashes: NDArray[np.void]) -> list[Positions]:
    """Groups of two or more positions whose content hashes (V16 [N]) are equal, in order of their first position."""
    _, group, sizes = np.unique(hashes, return_inverse=True, return_counts=True)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(sizes)[:-1])
    return sorted((positions for positions in members if len(positions) > 1), key=lambda positions: positions[0])


def count_duplicates(
    groups: Sequence[NDArray[np.int64]], part_ids: NDArray[np.uint8], label_ids: NDArray[np.int64]
) -> tuple[dict[str, int], dict[str, int]]:
    """Pair of parts -> images with a copy, and -> images with a copy of another label; without pairs that have none.

    "train-val" counts the training images that also occur in validation. "train-train" counts the training images
    beyond the first of each content; for conflicts, all images whose copies disagree.

    Args:
        groups: rows of equal content.
        part_ids, label_ids: of every row [N].
    """
    duplicates: Counter[str] = Counter()
    conflicts: Counter[str] = Counter()
    for group in groups:
        by_part = {part: label_ids[group[part_ids[group] == i]] for i, part in enumerate(PARTS)}
        for part, labels in by_part.items():
            duplicates[f"{part}-{part}"] += max(len(labels) - 1, 0)
            conflicts[f"{part}-{part}"] += len(labels) if len(set(labels)) > 1 else 0
        for (part, labels), (other, other_labels) in itertools.combinations(by_part.items(), 2):
            if len(other_labels):
                duplicates[f"{part}-{other}"] += len(labels)
                conflicts[f"{part}-{other}"] += sum(bool(set(other_labels) - {label}) for label in labels)
    return dict(+duplicates), dict(+conflicts)


def copies_between(division: Division, pack: Pack) -> dict[str, int]:
    """Pair of parts, e.g. "train-test" -> images of the first that occur in the second too; without pairs of none."""
    rows = np.concatenate(list(division.values()))
    part_ids = np.full(len(pack), len(PARTS), np.uint8)
    for part, positions in division.items():
        part_ids[positions] = PARTS.index(part)
    groups = [rows[members] for members in same_content(pack.hashes[rows])]
    counts, _ = count_duplicates(groups, part_ids, pack.label_ids)
    return {pair: count for pair, count in counts.items() if len(set(pair.split("-"))) == 2}


def part_digest(pack: Pack, positions: Positions, labels: NDArray[np.int64], targets: NDArray[Any]) -> str:
    """Hex digest of a part's names, labels, targets, content, and positions, which augmentation depends on."""
    arrays = (labels[positions], targets[positions], pack.hashes[positions], positions)
    return content_hash("\0".join(pack.names(positions)).encode(), *(array.tobytes() for array in arrays)).hex()
