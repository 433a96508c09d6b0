"""Decode a data set once: `python -m fer_voting.pack dataset=... dataset.root=DIR`.

Training does the same by itself where there is no fresh pack; doing it before is for machines that are shared.
"""

import time
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer_voting.config import command
from fer_voting.system.messages import duration

__all__ = ["main", "pack"]


def pack(config: dict[str, Any]) -> dict[str, Any]:
    """Make the pack of a resolved configuration's data set, or find it fresh.

    Returns `folder`, `images` (that can be used), `problems` (how many can't), `mib` and `seconds`.
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
