"""The identity of a run: every value of its configuration that its results depend on.

`NOT_IDENTITY` lists the other values, each with its reason. What a run reads besides its configuration (data, initial
weights) is compared by `runs.run.Run.check_inputs`.
"""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer_voting.config import flatten

NOT_IDENTITY: dict[str, str] = {
    "name": "the run's label",
    "output_dir": "a place",
    "sweep": "the sweep's label",
    "composition.*": "how the other keys came about",
    "protocol.*": "defaults to which trainer.max_epochs, scheduler.lr_gamma_per_epoch and init_from refer",
    "voting.*": "one training serves every vote; a refit, whose length a vote decides, has `refit_voting`",
    "plots": "pictures of the metrics",
    "logger*": "loggers copy metrics and change none",
    "callbacks.forward_memory.*": "measures on a copy of the network",
    "callbacks.throughput.*": "measures only time",
    "dataset.root": "a place; the data fingerprint identifies what lies there",
    "dataset.cache_dir": "a place",
    "dataset.num_workers": "random numbers depend on seed, epoch and image, not on the process that loads it",
    "dataset.resident": "decides where the images are kept, not which they are",
    "trainer.accelerator": "device placement; the device is recorded",
    "trainer.devices": "the global batch is the same on any number of ranks; see `batchnorm_ranks`",
    "trainer.num_nodes": "as trainer.devices",
    "trainer.strategy": "device placement",
}
"""Key pattern -> why no result depends on it."""


def resolve(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a resolved configuration that a run's results depend on, by dotted key.

    Two values are derived: `refit_voting`, the vote of a refit, and `batchnorm_ranks`, where it is not 1. Without a
    `teacher`, `distillation` is left out.
    """
    kept = {key: value for key, value in flatten(dict(config)).items() if not matches(key, NOT_IDENTITY)}
    if not kept.get("teacher"):
        kept = {key: value for key, value in kept.items() if not matches(key, ("teacher", "distillation.*"))}
    if config["refit"]:
        kept["refit_voting"] = config["voting"]["name"]
    if (ranks := batchnorm_ranks(config)) != 1:
        kept["batchnorm_ranks"] = ranks
    return kept


def matches(key: str, patterns: Mapping[str, Any] | Sequence[str]) -> bool:
    """Whether a dotted key matches one of the patterns, in which `*` stands for any text."""
    return any(fnmatchcase(key, pattern) for pattern in patterns)


def batchnorm_ranks(config: Mapping[str, Any]) -> int:
    """Number of ranks among which BatchNorm's batch is divided: 1 where `trainer.sync_batchnorm` joins them."""
    trainer = config["trainer"]
    if trainer.get("sync_batchnorm"):
        return 1
    devices, nodes = trainer.get("devices", 1), int(trainer.get("num_nodes") or 1)
    if isinstance(devices, Sequence) and not isinstance(devices, str):
        return len(devices) * nodes
    if isinstance(devices, str) and "," in devices:
        return len([d for d in devices.split(",") if d.strip()]) * nodes
    if str(devices) in ("auto", "-1"):
        return _device_count(trainer.get("accelerator")) * nodes
    return int(devices) * nodes


def _device_count(accelerator: str | None) -> int:
    """The devices that Lightning takes for `devices=auto`: every GPU, or one process on a CPU."""
    if accelerator == "cpu":
        return 1
    import torch  # takes a second, which most commands need not spend

    return max(1, torch.cuda.device_count())
