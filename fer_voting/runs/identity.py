"""The identity and the name of a run, from its configuration."""

import functools
import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer_voting.config import compose_with_choices, flatten

__all__ = ["identity", "name_run", "name_word", "resolve"]

MAX_NAME_LENGTH = 120

# What a run's figures don't depend on: where things lie, who is told what, on how many devices; and values that
# stand elsewhere in the configuration too.
NOT_IDENTITY = re.compile(
    r"name|output_dir|sweep|compile|voting\..*|logger\..*|callbacks\..*|needs\..*"
    r"|dataset\.(root|cache_dir|num_workers|resident|seed|augment|augment\..*|init_from|schedule\.epochs)"
    r"|trainer\.(accelerator|devices|num_nodes|strategy|use_distributed_sampler)"
)
# What has a place of its own in the name.
PLACED_IN_NAME = re.compile(r"seed|split\..*|dataset\.name|refit|refit_voting|init_from")
NAMING_GROUPS = ("model", "optimizer", "augment", "trainer")


def resolve(config: DictConfig) -> dict[str, Any]:
    """The configuration as plain containers, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True)  # type: ignore[return-value]


def identity(config: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a resolved configuration that a run's figures depend on, by dotted key.

    One training serves every vote: `voting` counts for a refit alone, whose length comes from it.
    """
    kept = {key: value for key, value in flatten(dict(config)).items() if not NOT_IDENTITY.fullmatch(key)}
    return {**kept, "refit_voting": config["voting"]["name"]} if config["refit"] else kept


def name_run(config: DictConfig, choices: Mapping[str, str]) -> str:
    """`<dataset>-<split>-seed<k>`, with whatever else tells the run from the defaults before the seed.

    Args:
        config: configuration of the run.
        choices: option of each group.

    Raises ValueError if so much differs that no name of at most 120 characters says it.
    """
    values = resolve(config)
    parts = [values["dataset"]["name"], values["split"]["name"]]
    chosen = tuple(f"{group}={choices[group]}" for group in ("dataset", "split"))
    reference, usual = _reference(chosen)
    if choices["experiment"] != "null":
        chosen += (f"experiment={choices['experiment']}",)
        of_experiment, usual = _reference(chosen)
        if of_experiment != reference:  # some experiments only say what to sweep over
            parts.append(choices["experiment"])
    switched = {group: choices[group] for group in NAMING_GROUPS if choices[group] != usual[group]}
    reference, _ = _reference((*chosen, *(f"{group}={option}" for group, option in switched.items())))
    parts += switched.values()
    for key, value in sorted(identity(values).items()):
        if reference.get(key, ...) != value and not PLACED_IN_NAME.fullmatch(key):
            parts.append(name_word(key.rpartition(".")[2] + str(value)))
    if values["init_from"] != values["dataset"]["init_from"]:
        parts.append(f"from_{name_word(str(values['init_from']))}")
    if values["refit"]:
        parts.append(f"refit_{values['voting']['name']}")
    name = "-".join([*map(str, parts), f"seed{values['seed']}"])
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"this run differs from the defaults in too much to be named by it ({name[:60]}…): "
            "give it a name with name=..."
        )
    return name


@functools.lru_cache
def _reference(overrides: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Identity, and option of each group, of the configuration that these words alone give."""
    config, choices = compose_with_choices(overrides)
    return identity(resolve(config)), choices


def name_word(text: str) -> str:
    """Text without what a path or Hydra's command line takes for its own."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("_.")
