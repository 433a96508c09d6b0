"""Decode a data set once: `python -m fer_voting.pack dataset=... dataset.root=DIR`.

Training builds a missing pack itself; this command builds it beforehand, e.g. on a machine without a GPU.
"""

import time

from omegaconf import DictConfig, OmegaConf

from fer_voting.config import command
from fer_voting.system.messages import duration


def job(cfg: DictConfig) -> None:
    from fer_voting.data.module import make_datamodule

    start = time.monotonic()
    pack = make_datamodule(OmegaConf.to_container(cfg.dataset, resolve=True)).make_pack()  # type: ignore[arg-type]
    mib = sum(path.stat().st_size for path in pack.folder.iterdir()) / 2**20
    seconds = time.monotonic() - start
    print(f"{pack.folder}: {pack.good.sum():,} images, {mib:.1f} MiB, after {duration(seconds)}")
    if pack.problems:
        print(f"{len(pack.problems):,} images can't be used: python -m fer_voting.audit lists them")


def main() -> None:
    command(job, "pack")


if __name__ == "__main__":
    main()
