"""Decode a data set once: `python -m fer_voting.pack dataset=... dataset.root=DIR`.

Training builds a missing pack itself; this command builds it beforehand, e.g. on a machine without a GPU.
"""

import time
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer_voting.config import command
from fer_voting.system.messages import duration


def pack(config: dict[str, Any]) -> dict[str, Any]:
    """Build the pack of a resolved configuration's data set, if it does not exist or is out of date.

    Returns its `folder`, the numbers of usable `images` and of `problems`, its size in `mib` and the `seconds` taken.
    """
    from fer_voting.data.module import make_datamodule

    start = time.monotonic()
    made = make_datamodule(config["dataset"]).make_pack()
    return {
        "folder": str(made.folder),
        "images": int(made.good.sum()),
        "problems": len(made.problems),
        "mib": round(sum(path.stat().st_size for path in made.folder.iterdir()) / 2**20, 1),
        "seconds": round(time.monotonic() - start, 2),
    }


def job(cfg: DictConfig) -> None:
    done = pack(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[arg-type]
    print(f"{done['folder']}: {done['images']:,} images, {done['mib']} MiB, after {duration(done['seconds'])}")
    if done["problems"]:
        print(f"{done['problems']:,} images can't be used: python -m fer_voting.audit lists them")


def main() -> None:
    command(job, "pack")


if __name__ == "__main__":
    main()
