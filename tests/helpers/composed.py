"""Configurations for tests of what is done with one: those that `compose` gives, in a tenth of its time."""

import copy
import functools
import re
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from fer_voting.config import Schema, as_typed, compose
from fer_voting.system.conf_folders import conf_dirs


def composed(words: Sequence[str], config_name: str = "config") -> DictConfig:
    """`compose(words, config_name)`, the caller's own.

    The words that choose the options of groups are composed once for all tests of a process. Those that set the value
    of a key are then applied, which is what Hydra does with them, too.
    """
    typed = [as_typed(word, sweeps=False) for word in words]
    values = [word for word in typed if _sets_a_value(word)]
    groups = tuple(word for word in typed if word not in values)
    config = copy.deepcopy(_composed(groups, config_name, tuple(conf_dirs())))
    try:
        for override in OverridesParser.create().parse_overrides(values):
            key, adds = override.key_or_group, override.is_add() or override.is_force_add()
            if override.is_add() and OmegaConf.select(config, key) is not None:
                return compose(words, config_name)
            value = override.value()
            if config_name == "config" and "." not in key:  # of the type that the schema has
                schema = OmegaConf.structured(Schema)
                OmegaConf.update(schema, key, value)
                value = schema[key]
            with flag_override(config, "struct", True):  # so that a key that does not exist is an error
                OmegaConf.update(config, key, value, merge=True, force_add=adds)
    except OmegaConfBaseException:
        return compose(words, config_name)  # which says what is wrong
    config.composition.overrides = typed
    return config


@functools.cache
def _composed(groups: tuple[str, ...], config_name: str, folders: tuple[Path, ...]) -> DictConfig:
    return compose(groups, config_name)


def _sets_a_value(word: str) -> bool:
    """Whether a word is `key=value` of a plain value: nothing that is removed, expanded or interpolated."""
    match = re.fullmatch(r"\+{0,2}([a-z_]+)(\.\w+)*=[^~$]*", word)
    return match is not None and (bool(match[2]) or not any((folder / match[1]).is_dir() for folder in conf_dirs()))
