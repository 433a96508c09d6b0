"""Audits a data set: counts, unusable and blank images, duplicates and near duplicates."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fer_voting.data.division import count_duplicates, official_counts, official_parts, same_content
from fer_voting.data.groups import groups_between
from fer_voting.data.index import PARTS, Problem
from fer_voting.data.module import FERDataModule
from fer_voting.data.pack import Pack
from fer_voting.system.messages import progress_bar
from fer_voting.system.text import counted, escape

BLANK_LEVELS = 8
"""An image whose brightest and darkest values differ by less is blank."""
_ROWS_AT_ONCE = 4096

_HASH_BITS = 64
_PAIRS_AT_ONCE = 2**22
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def perceptual_hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A 64-bit hash of each image; similar images have similar hashes: [N, S, S, 3] -> [N].

    Whether each of the 8x8 lowest spatial frequencies (discrete cosine transform) of the grey image is above their
    median: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010), section 3.2.1.
    """
    side = images.shape[1]
    # Without the constant term, which is the brightness.
    frequencies = np.arange(1, 9)[:, None] * np.pi * (np.arange(side) + 0.5) / side
    cosines = np.cos(frequencies).astype(np.float32)
    spectrum = (cosines @ (images @ _GREY) @ cosines.T).reshape(len(images), _HASH_BITS)
    bits = spectrum > np.median(spectrum, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def near_pairs(
    hashes: NDArray[np.uint64], max_bits: int, others: NDArray[np.uint64] | None = None
) -> NDArray[np.int64]:
    """Pairs of positions (first < second) whose hashes (uint64 [N]) differ in at most `max_bits` bits: [M, 2].

    The bits are divided into max_bits + 1 bands. Two such hashes agree in at least one band, so only hashes that
    agree in a band are compared.

    Args:
        others: hashes of the same images in another view, uint64 [N]: pairs are near if the hash of one is near to the
            other view of the other.
    """
    others = hashes if others is None else others
    bands = np.array_split(np.arange(_HASH_BITS, dtype=np.uint64), max_bits + 1)
    pairs = [np.empty((0, 2), np.int64)]
    for band in bands:
        keys, other_keys = ((h >> band[0]) & np.uint64(2 ** len(band) - 1) for h in (hashes, others))
        order = np.argsort(other_keys, kind="stable")
        starts = np.searchsorted(other_keys[order], keys, "left")
        counts = np.searchsorted(other_keys[order], keys, "right") - starts
        ends = np.cumsum(counts)
        for rows in np.split(
            np.arange(len(keys)), np.searchsorted(ends, np.arange(_PAIRS_AT_ONCE, counts.sum(), _PAIRS_AT_ONCE))
        ):
            first = np.repeat(rows, counts[rows])
            within = np.arange(len(first)) - np.repeat(np.cumsum(counts[rows]) - counts[rows], counts[rows])
            second = order[np.repeat(starts[rows], counts[rows]) + within]
            near = (first != second) & (np.bitwise_count(hashes[first] ^ others[second]) <= max_bits)
            pairs.append(np.sort(np.stack([first[near], second[near]], axis=1), axis=1))
    return np.unique(np.concatenate(pairs), axis=0)


@dataclass(frozen=True)
class View:
    """How the middle of an image is seen: turned by degrees, cut to a share of its side, mirrored."""

    change: str
    degrees: float = 0
    share: float = 1
    mirrored: bool = False

    def of(self, images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The middle 80 % of each side, without the corners that turning leaves empty: uint8 [N, 32, 32, 3]."""
        side = images.shape[1]
        scale, angle = 0.8 * self.share * side / _VIEW, np.deg2rad(self.degrees)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        turn[:, 0] *= -1 if self.mirrored else 1
        shift = (side - 1) / 2 - turn @ np.full(2, (_VIEW - 1) / 2)
        matrix = np.column_stack([turn, shift])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.stack([cv2.warpAffine(image, matrix, (_VIEW, _VIEW), flags=flags) for image in images])


_VIEW = 32
UPRIGHT = View("alike")
VIEWS = tuple(
    View(" and ".join(filter(None, (change, "mirrored" * mirrored))), degrees, share, mirrored)
    for mirrored in (False, True)
    for change, degrees, share in (
        ("", 0, 1),
        *((f"turned by about {abs(degrees)} degrees", degrees, 1) for degrees in (-9, -6, -3, 3, 6, 9)),
        ("cropped", 0, 0.9),
    )
    if change or mirrored
)
"""The changes that the search for similar images sees through, besides those of brightness, size and compression."""


def audit(data: FERDataModule, near_duplicate_bits: int | None = None) -> dict[str, Any]:
    """The audit of a data set, as plain values. It lists all problems, whatever `data.on_error` says.

    Args:
        near_duplicate_bits: also find images whose perceptual hashes differ by at most so many bits, 0 to 8.

    Returns:
        dataset, synthetic, root, layout, pack: what was audited ("root" and "layout" are null for drawn faces);
        parts, expected: official part -> class -> images here, and as published (if known);
        left_out: reason -> images that the data set's own rules exclude, and other files;
        notes: what the reader assumed, and what contradicts it;
        refused: why a training on this data set would be refused, null if it would not: a class without images;
        problems: `kind`, `path` and `reason` of each unusable image, and of blank ones (which are used);
        duplicates: "train-val", for example -> training images whose content also occurs in validation;
            "train-train" -> superfluous copies inside training;
        conflicts: the same, counting only those whose label differs from a copy's;
        groups: pair of official parts -> the groups (`dataset.group`) with images in both; null if there are no groups;
        duplicate_groups: name, part and label of each copy;
        near_duplicates: pairs of similar images with different content: their names, the number of different hash
            bits and the change (`VIEWS`); null without `near_duplicate_bits`.
    """
    bits = near_duplicate_bits
    if bits is not None and not (isinstance(bits, int) and 0 <= bits <= 8):
        raise ValueError(f"near_duplicate_bits={bits} must be null or 0 to 8")
    data.on_error = "skip"
    pack = data.make_pack()
    usable = data.usable(pack)
    rows = np.flatnonzero(usable)
    blank, hashes = _scan(pack, rows, want_hashes=bits is not None)
    groups = [rows[members] for members in same_content(pack.hashes[rows])]
    duplicates, conflicts = count_duplicates(groups, pack.part_ids, pack.label_ids)
    words = data.groups(pack, usable)
    return {
        "dataset": data.name,
        "synthetic": data.synthetic,
        "root": data.base and str(data.base),
        "layout": pack.key.get("layout"),
        "pack": str(pack.folder),
        "parts": official_counts(pack, usable, data.class_names),
        "expected": {part: {c: counts.get(c, 0) for c in data.class_names} for part, counts in data.expected.items()},
        "left_out": {**pack.left_out, **data.unused(pack)},
        "notes": pack.notes,
        "refused": None if data.synthetic else data.lacks_classes(official_parts(pack, usable).get("train", rows[:0])),
        "problems": [asdict(problem) for problem in (*pack.problems, *blank)],
        "duplicates": duplicates,
        "conflicts": conflicts,
        "groups": None if words is None else groups_between(official_parts(pack, usable), words),
        "duplicate_groups": [[_described(pack, row) for row in group] for group in groups],
        "near_duplicates": None if bits is None else _near_duplicates(pack, rows, hashes, bits),
    }


def format_report(report: Mapping[str, Any]) -> str:
    """The report as text for a terminal."""
    return "\n".join(map(escape, _lines(report)))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{report['dataset']}: layout {report['layout'] or 'drawn'} in {report['root'] or report['pack']}"
    parts, expected = report["parts"], report["expected"]
    classes = list(next(iter(parts.values()), {}))
    table = [["images", *classes, "all"]]
    for part in PARTS:
        for title, counts in ((part, parts.get(part)), (f"{part}, published", expected.get(part))):
            if counts is not None:
                table.append([title, *(f"{counts[c]:,}" for c in classes), f"{sum(counts.values()):,}"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        yield "  " + "  ".join(cells)
    for reason, count in report["left_out"].items():
        yield f"left out: {reason} {count:,}"
    yield from (f"note: {note}" for note in report["notes"])
    if report["refused"]:
        yield f"training is refused: {report['refused']}"
    for kind, count in Counter(problem["kind"] for problem in report["problems"]).most_common():
        first = next(problem for problem in report["problems"] if problem["kind"] == kind)
        yield f"{kind}: {count:,}, e.g. {first['path']}: {first['reason']}"
    if not report["problems"]:
        yield "no unusable or blank images"
    for pair, count in report["duplicates"].items():
        part, other = pair.split("-")
        also = "are copies of others there" if part == other else f"also occur in {other}"
        conflicts = report["conflicts"].get(pair, 0)
        yield f"identical images: {count:,} of {part} {also}; {conflicts:,} with conflicting labels"
    if not report["duplicates"]:
        yield "no identical images"
    if report["groups"] is not None:
        for pair, groups in report["groups"].items():
            yield f"groups: {len(groups):,} have images in {pair.replace('-', ' and ')}, e.g. {groups[0]}"
        if not report["groups"]:
            yield "no group has images in two official parts"
    if report["near_duplicates"] is not None:
        pairs = report["near_duplicates"]
        across = sum(len({image["part"] for image in pair["images"]}) > 1 for pair in pairs)
        yield f"similar images: {counted(len(pairs), 'pair')}, {across:,} of them in two parts"
        for change, count in Counter(pair["change"] for pair in pairs).most_common():
            yield f"  {change}: {count:,}"


def _scan(
    pack: Pack, rows: NDArray[np.int64], want_hashes: bool
) -> tuple[list[Problem], dict[View | None, NDArray[np.uint64]]]:
    """The blank images among `rows`, and (if wanted) the perceptual hash of each row in each view; None: as a whole."""
    blank: list[Problem] = []
    views = (None, UPRIGHT, *VIEWS) if want_hashes else ()
    hashes = {view: np.zeros(len(rows), np.uint64) for view in views}
    with progress_bar(total=len(rows), desc="scanning", unit="image") as progress:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = rows[start : start + _ROWS_AT_ONCE]
            images = pack.images[chunk]
            spread = np.ptp(images, axis=(1, 2, 3))
            for row, levels in zip(chunk[spread < BLANK_LEVELS], spread[spread < BLANK_LEVELS], strict=True):
                reason = f"values differ by at most {levels} of 255" if levels else "all values are equal"
                blank.append(Problem("blank", pack.names([row])[0], reason))
            for view in views:
                seen = images if view is None else view.of(images)
                hashes[view][start : start + len(chunk)] = perceptual_hashes(seen)
            progress.update(len(chunk))
    return blank, hashes


def _near_duplicates(
    pack: Pack, rows: NDArray[np.int64], hashes: Mapping[View | None, NDArray[np.uint64]], max_bits: int
) -> list[dict[str, Any]]:
    found: dict[tuple[int, int], dict[str, Any]] = {}  # each pair by the first view in which it is near
    for view, seen in hashes.items():
        upright = hashes[None if view is None else UPRIGHT]
        pairs = near_pairs(upright, max_bits, seen)
        differ = pack.hashes[rows[pairs[:, 0]]] != pack.hashes[rows[pairs[:, 1]]]
        for first, second in pairs[differ].tolist():
            bits = min(int(np.bitwise_count(upright[a] ^ seen[b])) for a, b in ((first, second), (second, first)))
            images = [_described(pack, row) for row in rows[[first, second]]]
            change = (view or UPRIGHT).change
            found.setdefault((first, second), {"bits": bits, "change": change, "images": images})
    return [found[pair] for pair in sorted(found)]


def _described(pack: Pack, row: int) -> dict[str, str]:
    return {
        "name": pack.names([row])[0],
        "part": PARTS[pack.part_ids[row]],
        "label": pack.labels[pack.label_ids[row]],
    }
