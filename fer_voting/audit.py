"""What is in a data set, and what is wrong with it: `python -m fer_voting.audit dataset=... dataset.root=DIR`.

Every file is decoded fully (by packing, whose pack training then uses). The folder `out=` gets `audit.json` and
`class_distribution.png`, the paper's Figure 4; the table goes to stdout.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from fer_voting.config import command
from fer_voting.data.base import Counts, FERDataModule, make_datamodule
from fer_voting.data.duplicates import near_pairs, perceptual_hashes, same_content
from fer_voting.data.index import Problem
from fer_voting.data.pack import SPLITS, Pack
from fer_voting.files import write_json
from fer_voting.tables.figures import save

__all__ = ["audit", "draw_class_distribution", "format_report", "main"]

BLANK_LEVELS = 8
"""A picture whose brightest and darkest values differ by less shows nothing."""
_ROWS_AT_ONCE = 4096


def audit(config: Mapping[str, Any]) -> dict[str, Any]:
    """Audit the data set of a resolved configuration, and write `audit.json` and the picture into `config["out"]`.

    Returns what audit.json holds:
        dataset, root, layout, pack: what was looked at ("root" and "layout" are null for drawn faces);
        splits, expected: official split -> class -> images here, and as published (where known);
        left_out: why -> images that the data set's own rules leave out;
        problems: `kind`, `path` and `reason` of each unusable picture, and of blank ones (which are used);
        duplicates: "train-val", say -> training images whose very content also occurs in validation;
            "train-train" -> superfluous copies inside training;
        conflicts: the same for those whose label differs from a copy's;
        duplicate_groups: name, split and label of each copy;
        near_duplicates: pairs that look alike but differ in content, by their names and the bits that differ; null
            if `near_duplicate_bits` is.
    """
    bits = config["near_duplicate_bits"]
    if bits is not None and not (isinstance(bits, int) and 0 <= bits <= 8):
        raise ValueError(f"near_duplicate_bits={bits} must be null or 0 to 8")
    node = dict(config["dataset"])
    if "on_error" in node:
        node["on_error"] = "skip"  # an audit reports, it does not stop
    data = make_datamodule(node)
    pack = data.make_pack()
    rows = np.flatnonzero(data.usable(pack))
    blank, looks = _look_at(pack, rows, want_hashes=bits is not None)
    groups = [rows[members] for members in same_content(pack.hashes[rows])]
    duplicates, conflicts = count_duplicates(groups, pack.split_ids, pack.label_ids)
    report: dict[str, Any] = {
        "dataset": data.name,
        "root": pack.identity.get("root"),
        "layout": pack.identity.get("layout"),
        "pack": str(pack.folder),
        "splits": data.official_counts(pack, data.usable(pack)),
        "expected": {split: {c: counts.get(c, 0) for c in data.class_names} for split, counts in data.expected.items()},
        "left_out": {**pack.left_out, **_not_asked_for(data, pack)},
        "problems": [asdict(problem) for problem in (*pack.problems, *blank)],
        "duplicates": duplicates,
        "conflicts": conflicts,
        "duplicate_groups": [[_described(pack, row) for row in group] for group in groups],
        "near_duplicates": None if bits is None else _near_duplicates(pack, rows, looks, bits),
    }
    out = Path(config["out"])
    draw_class_distribution(out / "class_distribution.png", report["splits"], data.name, data.synthetic)
    write_json(out / "audit.json", report)
    return report


def _look_at(pack: Pack, rows: NDArray[np.int64], want_hashes: bool) -> tuple[list[Problem], NDArray[np.uint64]]:
    """The blank pictures among `rows`, and the perceptual hash of each of them (if wanted)."""
    blank: list[Problem] = []
    hashes = np.zeros(len(rows), np.uint64)
    with tqdm(total=len(rows), desc="looking", unit="image") as progress:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            images = pack.images[some]
            flat = images.reshape(len(images), -1)
            spread = flat.max(axis=1).astype(int) - flat.min(axis=1)
            for row in np.flatnonzero(spread < BLANK_LEVELS):
                reason = "all values are equal" if not spread[row] else f"values differ by {spread[row]} of 255 at most"
                blank += [Problem("blank", name, reason) for name in pack.names(some[row : row + 1])]
            if want_hashes:
                hashes[start : start + len(some)] = perceptual_hashes(images)
            progress.update(len(some))
    return blank, hashes


def _not_asked_for(data: FERDataModule, pack: Pack) -> dict[str, int]:
    """Pictures of other classes, e.g. contempt where there are seven, and those whose raters don't agree enough."""
    counts = np.bincount(pack.label_ids[pack.good], minlength=len(pack.labels))
    others = {n: int(c) for n, c in zip(pack.labels, counts, strict=True) if n not in data.class_names}
    undecided = int((pack.good & (data.class_ids(pack) >= 0) & ~data.usable(pack)).sum())
    return others | ({"no majority of votes": undecided} if undecided else {})


def count_duplicates(
    groups: Sequence[NDArray[np.int64]], split_ids: NDArray[np.uint8], label_ids: NDArray[np.int64]
) -> tuple[dict[str, int], dict[str, int]]:
    """How many images have a copy, and how many a copy with another label, by pair of splits.

    "train-val" counts the training images that also occur in validation; "train-train" the images of training
    beyond the first of each content, and, of conflicts, all images whose copies disagree. Pairs without any are
    left out.

    Args:
        groups: rows of equal content.
        split_ids, label_ids: of every row [N].
    """
    duplicates: Counter[str] = Counter()
    conflicts: Counter[str] = Counter()
    for group in groups:
        parts = {split: label_ids[group[split_ids[group] == i]] for i, split in enumerate(SPLITS)}
        for split, labels in parts.items():
            duplicates[f"{split}-{split}"] += max(len(labels) - 1, 0)
            conflicts[f"{split}-{split}"] += len(labels) if len(set(labels)) > 1 else 0
        for (split, labels), (other, theirs) in itertools.combinations(parts.items(), 2):
            if len(theirs):
                duplicates[f"{split}-{other}"] += len(labels)
                conflicts[f"{split}-{other}"] += sum(bool(set(theirs) - {label}) for label in labels)
    return dict(+duplicates), dict(+conflicts)


def _near_duplicates(
    pack: Pack, rows: NDArray[np.int64], hashes: NDArray[np.uint64], max_bits: int
) -> list[dict[str, Any]]:
    pairs = near_pairs(hashes, max_bits)
    differ = pack.hashes[rows[pairs[:, 0]]] != pack.hashes[rows[pairs[:, 1]]]
    return [
        {
            "bits": int(np.bitwise_count(hashes[first] ^ hashes[second])),
            "images": [_described(pack, row) for row in rows[[first, second]]],
        }
        for first, second in pairs[differ]
    ]


def _described(pack: Pack, row: int) -> dict[str, str]:
    position = np.array([row])
    return {
        "name": pack.names(position)[0],
        "split": SPLITS[pack.split_ids[row]],
        "label": pack.labels[pack.label_ids[row]],
    }


# --------------------------------------------------------------------------------------------------------------
# For people
# --------------------------------------------------------------------------------------------------------------


def draw_class_distribution(path: Path, splits: Counts, name: str, synthetic: bool) -> None:
    """Images of each class in each official split, as bars (the paper's Figure 4)."""
    classes = list(next(iter(splits.values()), {}))
    figure = Figure(figsize=(1.1 * len(classes) + 1.5, 3.6))
    axes = figure.add_subplot()
    width = 0.8 / max(len(splits), 1)
    for place, (split, counts) in enumerate(splits.items()):
        bars = axes.bar(
            np.arange(len(classes)) + (place - (len(splits) - 1) / 2) * width,
            [counts[label] for label in classes],
            width,
            label=f"{split} ({sum(counts.values()):,})",
            color=("#0072B2", "#D55E00", "#009E73")[SPLITS.index(split)],
        )
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=6)
    axes.set_xticks(np.arange(len(classes)), classes)
    axes.set_ylabel("images")
    axes.set_title(f"{name}: images of each class" + (" (synthetic faces)" if synthetic else ""))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, path)


def format_report(report: Mapping[str, Any]) -> str:
    """The report as text for a terminal."""
    return "\n".join(_lines(report))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{report['dataset']}: layout {report['layout'] or 'drawn'} in {report['root'] or report['pack']}"
    splits, expected = report["splits"], report["expected"]
    classes = list(next(iter(splits.values()), {}))
    table = [["images", *classes, "all"]]
    for split in SPLITS:
        for what, counts in ((split, splits.get(split)), (f"{split}, published", expected.get(split))):
            if counts is not None:
                table.append([what, *(f"{counts[c]:,}" for c in classes), f"{sum(counts.values()):,}"])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        yield "  " + "  ".join(cells)
    for why, count in report["left_out"].items():
        yield f"left out by the data set's rules: {why} {count:,}"
    for kind, count in Counter(problem["kind"] for problem in report["problems"]).most_common():
        first = next(problem for problem in report["problems"] if problem["kind"] == kind)
        yield f"{kind}: {count:,}, e.g. {first['path']}: {first['reason']}"
    if not report["problems"]:
        yield "no unusable or blank picture"
    for pair, count in report["duplicates"].items():
        split, other = pair.split("-")
        also = "that occur there before" if split == other else f"that also occur in {other}"
        conflicts = report["conflicts"].get(pair, 0)
        yield f"identical pictures: {count:,} of {split} {also}; {conflicts:,} with conflicting labels"
    if not report["duplicates"]:
        yield "no identical pictures"
    if report["near_duplicates"] is not None:
        yield f"pictures that look alike: {len(report['near_duplicates']):,} pairs"


def job(cfg: DictConfig) -> None:
    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    print(format_report(audit(config)))
    print(f"written: {Path(config['out']) / 'audit.json'}, class_distribution.png")


def main() -> None:
    command(job, "audit")


if __name__ == "__main__":
    main()
