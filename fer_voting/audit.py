"""Audit a data set: `python -m fer_voting.audit dataset=... dataset.root=DIR`.

Decodes every file completely, by building the pack that training uses, and counts images, problems and duplicates.
Writes `audit.json` and `class_distribution.png` (the paper's Figure 4) to the folder `out=`, the table to stdout.
"""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from fer_voting.config import command
from fer_voting.system.atomic import write_json


def job(cfg: DictConfig) -> None:
    from fer_voting.data.module import make_datamodule
    from fer_voting.data.quality import audit, format_report
    from fer_voting.results.plots import draw_class_distribution

    data = make_datamodule(OmegaConf.to_container(cfg.dataset, resolve=True))  # type: ignore[arg-type]
    report = audit(data, cfg.near_duplicate_bits)
    out = Path(cfg.out)
    draw_class_distribution(out / "class_distribution.png", report["parts"], report["dataset"], report["synthetic"])
    write_json(out / "audit.json", report)
    print(format_report(report))
    print(f"written: {out / 'audit.json'}, class_distribution.png")


def main() -> None:
    command(job, "audit")


if __name__ == "__main__":
    main()
