"""Decode a data set once: `python -m fer_voting.pack dataset=... dataset.root=DIR`.

Training builds a missing pack itself; this command builds it beforehand, e.g. on a machine without a GPU.
"""

if __name__ == "__main__":  # compose first, import afterwards: `--help` and a misspelt key are answered at once
    from fer_voting.config import command

    command("fer_voting.pack:job", "pack")
    raise SystemExit

import time

from omegaconf import DictConfig

from fer_voting.config import make
from fer_voting.system.messages import duration


def job(config: DictConfig) -> None:
    start = time.monotonic()
    pack = make(config.dataset).make_pack()
    mib = sum(path.stat().st_size for path in pack.folder.iterdir()) / 2**20
    seconds = time.monotonic() - start
    print(f"{pack.folder}: {pack.good.sum():,} images, {mib:.1f} MiB, after {duration(seconds)}")
    if pack.problems:
        print(f"{len(pack.problems):,} images can't be used: python -m fer_voting.audit lists them")
