"""The identity, the name and the setting of a run, from its configuration.

The identity holds every value of the configuration that a run's results depend on. `NOT_IDENTITY` lists the others,
each with its reason. What a run reads besides its configuration (data, initial weights) is compared by
`runs.run.Run.claim_inputs`.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer_voting.config import compose_with_choices, flatten

MAX_NAME_LENGTH = 120

NOT_IDENTITY: dict[str, str] = {
    "name": "the run's label",
    "output_dir": "a place",
    "sweep": "the sweep's label",
    "run.*": "derived from the other keys",
    "voting.*": "one training serves every vote; a refit, whose length a vote decides, has `refit_voting`",
    "plots": "pictures of the metrics",
    "logger.*": "trackers copy metrics and change none",
    "callbacks.forward_memory.*": "measures on a copy of the network",
    "callbacks.throughput.*": "measures time alone",
    "dataset.root": "a place; the data fingerprint identifies what lies there",
    "dataset.cache_dir": "a place",
    "dataset.num_workers": "random numbers depend on seed, epoch and image, not on the process that loads it",
    "dataset.resident": "decides where the images are kept, not which they are",
    "dataset.init_from": "the default of `init_from`, which counts",
    "dataset.schedule.epochs": "the default of `trainer.max_epochs`, which counts",
    "dataset.schedule.lr_gamma_per_epoch": "the default of `scheduler.lr_gamma_per_epoch`, which counts",
    "trainer.accelerator": "device placement; the device is recorded",
    "trainer.devices": "the global batch is the same on any number of ranks; see `batchnorm_ranks`",
    "trainer.num_nodes": "as trainer.devices",
    "trainer.strategy": "device placement",
}
"""Key pattern -> why no result depends on it."""

# Each has a place of its own in the name.
PLACED_IN_NAME = ("seed", "split.*", "dataset.name", "refit", "refit_voting", "init_from", "teacher")
COPY_OF_AUGMENT = ("dataset.augment", "dataset.augment.*")
NAMING_GROUPS = ("model", "optimizer", "scheduler", "augment", "mix", "distillation", "callbacks", "trainer")


def resolve(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a resolved configuration that a run's results depend on, by dotted key.

    Two values are derived: `refit_voting`, the vote of a refit, and `batchnorm_ranks`, where it is not 1. What a
    training does without is left out: `label_smoothing` of 0, and `distillation` without a `teacher`.
    """
    values = flatten(dict(config))
    # Copies of top-level values count where they were overridden.
    if values.get("dataset.seed") == values["seed"]:
        values.pop("dataset.seed", None)
    if config["dataset"].get("augment") == config["augment"]:
        values = {key: value for key, value in values.items() if not _matches(key, COPY_OF_AUGMENT)}
    kept = {key: value for key, value in values.items() if not _matches(key, NOT_IDENTITY)}
    if not kept.get("label_smoothing"):
        kept.pop("label_smoothing", None)
    if not kept.get("teacher"):
        kept = {key: value for key, value in kept.items() if not _matches(key, ("teacher", "distillation.*"))}
    if config["refit"]:
        kept["refit_voting"] = config["voting"]["name"]
    if (ranks := batchnorm_ranks(config)) != 1:
        kept["batchnorm_ranks"] = ranks
    return kept


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
    """As Lightning resolves `devices=auto`: every GPU, or one process on a CPU."""
    if accelerator == "cpu":
        return 1
    import torch  # takes a second, which most commands need not spend

    return max(1, torch.cuda.device_count())


def name_run(config: DictConfig, choices: Mapping[str, str]) -> str:
    """The name of a run: `run_name` of its data set, split, setting, refit and seed.

    Args:
        config: configuration of the run.
        choices: option of each group.

    Raises ValueError if so much differs from the defaults that the name would exceed 120 characters.
    """
    values = resolve(config)
    refit = values["voting"]["name"] if values["refit"] else ""
    setting = setting_of(config, choices)
    name = run_name(values["dataset"]["name"], values["split"]["name"], setting, refit, values["seed"])
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"the run differs from the defaults in too many values to be named by them ({name[:60]}…): "
            "set its name by name=..."
        )
    return name


def run_name(dataset: str, split: str, setting: str, refit: str, seed: int) -> str:
    """`<dataset>-<split>[-<setting>][-refit_<vote>]-seed<k>`.

    Args:
        refit: vote of a refit, "" for a run that selects by validation.
    """
    parts = [dataset, split, setting, refit and f"refit_{refit}", f"seed{seed}"]
    return "-".join(part for part in parts if part)


def setting_of(config: DictConfig, choices: Mapping[str, str]) -> str:
    """What distinguishes a run from its data set's defaults, besides split, seed and refit; "" if nothing does.

    A run whose name the user chose has that name as its setting, so that no table mixes it with others.
    """
    values = resolve(config)
    if values["name"]:
        return str(values["name"])
    parts = []
    chosen = tuple(f"{group}={choices[group]}" for group in ("dataset", "split"))
    reference, usual = _reference(chosen)
    if choices["experiment"] != "null":
        chosen += (f"experiment={choices['experiment']}",)
        of_experiment, usual = _reference(chosen)
        if of_experiment != reference:  # an experiment that only lists what to sweep over is no setting
            parts.append(choices["experiment"])
    if values["teacher"]:
        chosen += ("teacher=any",)  # so that the reference has the keys of a distillation
    switched = {group: choices[group] for group in NAMING_GROUPS if choices[group] != usual[group]}
    reference, _ = _reference((*chosen, *(f"{group}={option}" for group, option in switched.items())))
    parts += switched.values()
    for key, value in sorted(identity(values).items()):
        if reference.get(key, ...) != value and not _matches(key, PLACED_IN_NAME):
            parts.append(name_word(key.rpartition(".")[2] + str(value)))
    if values["init_from"] != values["dataset"]["init_from"]:
        parts.append(f"from_{name_word(str(values['init_from']))}")
    if values["teacher"]:
        parts.append(f"teacher_{name_word(values['teacher'])}")
    return "-".join(map(str, parts))


def _matches(key: str, patterns: Mapping[str, Any] | Sequence[str]) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in patterns)


@functools.lru_cache
def _reference(overrides: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Identity, and option of each group, of the configuration that these overrides alone give."""
    config, choices = compose_with_choices(overrides)
    return identity(resolve(config)), choices


def name_word(text: str) -> str:
    """`text` with runs of characters that file names or Hydra's command line reserve replaced by `_`."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("_.")
