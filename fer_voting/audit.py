"""Audit a data set: `python -m fer_voting.audit dataset=... dataset.root=DIR`.

Decodes every file completely, by building the pack that training uses, and counts images, problems and duplicates.
Writes `audit.json` and `class_distribution.png` (the paper's Figure 4) to the folder `out=`, the table to stdout.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer_voting.config import command
from fer_voting.data.index import PARTS
from fer_voting.system.atomic import write_json
from fer_voting.system.text import escape


def format_report(report: Mapping[str, Any]) -> str:
    """The report as text for a terminal."""
    return "\n".join(map(escape, _lines(report)))


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"{report['dataset']}: layout {report['layout'] or 'drawn'} in {report['root'] or report['pack']}"
    parts, expected = report["parts"], report["expected"]
    classes = list(next(iter(parts.values()), {}))
    table = [["images", *classes, "all"]]
    for part in PARTS:
        for what, counts in ((part, parts.get(part)), (f"{part}, published", expected.get(part))):
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
        yield "no unusable or blank images"
    for pair, count in report["duplicates"].items():
        part, other = pair.split("-")
        also = "are copies of others there" if part == other else f"also occur in {other}"
        conflicts = report["conflicts"].get(pair, 0)
        yield f"identical images: {count:,} of {part} {also}; {conflicts:,} with conflicting labels"
    if not report["duplicates"]:
        yield "no identical images"
    if report["near_duplicates"] is not None:
        yield f"similar images: {len(report['near_duplicates']):,} pairs"


def job(cfg: DictConfig) -> None:
    from fer_voting.data.quality import audit
    from fer_voting.results.plots import draw_class_distribution

    config: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True)  # type: ignore[assignment]
    report = audit(config)
    out = Path(config["out"])
    draw_class_distribution(out / "class_distribution.png", report["parts"], report["dataset"], report["synthetic"])
    write_json(out / "audit.json", report)
    print(format_report(report))
    print(f"written: {out / 'audit.json'}, class_distribution.png")


def main() -> None:
    command(job, "audit")


if __name__ == "__main__":
    main()
