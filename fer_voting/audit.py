"""Audit a data set: `python -m fer_voting.audit dataset=... dataset.root=DIR`.

Decodes every file completely, by building the pack that training uses, and counts images, problems and duplicates.
Writes `audit.json` and `class_distribution.png` (the paper's Figure 4) to the folder `out=`, the table to stdout.
"""

if __name__ == "__main__":  # compose first, import afterwards: `--help` and a misspelt key are answered at once
    from fer_voting.config import command

    command("fer_voting.audit:job", "audit")
    raise SystemExit

from pathlib import Path

from omegaconf import DictConfig

from fer_voting.config import make
from fer_voting.data.quality import audit, format_report
from fer_voting.results.plots import draw_class_distribution
from fer_voting.system.atomic import write_json


def job(config: DictConfig) -> None:
    data = make(config.dataset)
    report = audit(data, config.near_duplicate_bits)
    out = Path(config.out)
    draw_class_distribution(out / "class_distribution.png", report["parts"], report["dataset"], report["synthetic"])
    write_json(out / "audit.json", report)
    print(format_report(report))
    print(f"written: {out / 'audit.json'}, class_distribution.png")
