"""Names of runs: what a configuration's run is called, and which runs it needs.

`settle` turns a composed configuration into the one that `train` works by and records.
"""

import functools
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fer_voting.config import compose, options_of_group, with_composition
from fer_voting.runs.identity import different_values, identity, matches, recipe, resolve
from fer_voting.system.atomic import json_digest

MAX_NAME_LENGTH = 120

# Keys that do not hold for the runs that a run needs.
OF_ONE_RUN = ("refit", "selection", "name")
# Each has a place of its own in the name.
PLACED_IN_NAME = ("seed", "dataset.fold", "split.*", "dataset.name", "refit", "refit_voting", "init_from", "teacher")
NAMING_GROUPS = (
    *("model", "target", "loss", "optimizer", "scheduler", "augment", "mix", "distillation", "callbacks", "trainer"),
)


def settle(config: DictConfig) -> DictConfig:
    """The configuration, resolved, with the run's name and the names of the runs that it needs. Idempotent.

    Sets `name`; in `init_from` and `teacher` the name of a run where a data set or a split was given; and in
    `composition` the `variant` (`variant_of`), `needs`: of the run whose weights it starts from (`weights`), of its
    teacher (`teacher`), and of the run that selected the epochs of a refit (`selection`), the name (`run`), the
    `overrides` that make it, and the data set or split that was asked for (`of`); and `row`: the split and a digest of
    the recipe, which runs that may be averaged share.

    Raises ValueError if the configuration was composed neither by `fer_voting.compose` nor by a running command; if
    it needs a run, and has values that its overrides do not give; or if it has a `selection` and is no refit.
    """
    if "variant" in config.composition:
        return config
    if not config.composition.options:
        if not HydraConfig.initialized():
            raise ValueError("compose the configuration by fer_voting.compose: a run is named by how it was composed")
        hydra = HydraConfig.get()
        config = with_composition(config.copy(), hydra.overrides.task, hydra.runtime.choices)
    overrides, variant = list(config.composition.overrides), variant_of(config)
    named = config.copy()
    named.name = name_run(config)
    settled = resolve(named)  # with the name in the values that refer to it: the folders of loggers
    needs = {}
    if settled["init_from"] in options_of_group("dataset"):
        needs["weights"] = _needed(_overrides_for_dataset(overrides, settled["init_from"]), of=settled["init_from"])
        settled["init_from"] = needs["weights"]["run"]
    if settled["teacher"] in options_of_group("split"):
        # The teacher of a narrower network is as wide as its data set's or experiment's networks are.
        own = drop_overrides(overrides, *OF_ONE_RUN, "teacher", "distillation", "split", "model")
        needs["teacher"] = _needed([*own, f"split={settled['teacher']}"], of=settled["teacher"])
        settled["teacher"] = needs["teacher"]["run"]
    if settled["refit"]:
        needs["selection"] = _needed(drop_overrides(overrides, *OF_ONE_RUN), settled["selection"])
    elif settled["selection"]:
        raise ValueError(f"selection={settled['selection']} names the run whose epochs a refit trains: add refit=true")
    if needs and (changed := different_values(identity(resolve(compose(overrides))), identity(resolve(config)))):
        raise ValueError(
            f"the runs that this one needs are made by its overrides, which do not give all of its values ({changed}): "
            "compose it with these as overrides"
        )
    settled["composition"] |= {"variant": variant, "needs": needs}
    settled["composition"]["row"] = row_of(settled)
    return OmegaConf.create(settled)


def row_of(config: Mapping[str, Any]) -> str:
    """The split and a digest of the recipe of a settled, resolved configuration: `m1 0a1b2c`."""
    return f"{config['split']['name']} {json_digest(recipe(config))[:6]}"


def _needed(overrides: Sequence[str], name: str | None = None, **asked: str) -> dict[str, Any]:
    overrides = drop_overrides(overrides, "continue_from")
    return {"run": name or name_run(compose(overrides)), "overrides": overrides, **asked}


def needed_config(need: Mapping[str, Any]) -> dict[str, Any]:
    """The settled, resolved configuration that a needed run must have (an entry of `composition.needs`)."""
    return resolve(settle(compose(list(need["overrides"]))))


def training_command(overrides: Iterable[str], name: str | None = None) -> str:
    """The command that trains the run of these overrides, e.g. `python -m fer_voting.train split=m1`."""
    return shlex.join(["python", "-m", "fer_voting.train", *overrides, *([f"name={name}"] if name else [])])


def _overrides_for_dataset(overrides: Sequence[str], dataset: str) -> list[str]:
    """The overrides of the run of another data set that is like this one.

    Overrides of `dataset` are kept if the other data set has the key, except for its place and its division.
    """
    known = compose([f"dataset={dataset}"]).dataset.keys() - {"root", "layout", "manifest", "group", "folds", "fold"}
    kept = [f"dataset={dataset}"]
    for override in drop_overrides(overrides, *OF_ONE_RUN, "init_from"):
        group, _, key = _key(override).partition(".")
        if group != "dataset" or key.split(".")[0] in known:
            kept.append(override)
    return kept


def drop_overrides(overrides: Iterable[str], *keys: str) -> list[str]:
    """The overrides that don't set one of these keys, or a value below it."""
    return [each for each in overrides if not any(f"{_key(each)}.".startswith(f"{key}.") for key in keys)]


def _key(override: str) -> str:
    """`dataset.size` of `+dataset.size=48`."""
    return override.lstrip("+~").partition("=")[0]


def name_run(config: DictConfig) -> str:
    """The name of a composed configuration's run: the user's, or `run_name` of what the run is.

    Raises ValueError if so much differs from the defaults that the name would exceed 120 characters.
    """
    if config.name:
        return str(config.name)
    refit = config.voting.name if config.refit else ""
    name = run_name(
        config.dataset.name, config.split.name, variant_of(config), refit, config.seed, config.dataset.get("fold")
    )
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"the run differs from the defaults in too many values to be named by them ({name[:60]}…): "
            "set its name by name=..."
        )
    return name


def run_name(dataset: str, split: str, variant: str, refit: str, seed: int, fold: int | None = None) -> str:
    """`<dataset>-<split>[-<variant>][-refit_<vote>][-fold<k>]-seed<k>`.

    Args:
        refit: vote of a refit, "" for a run that selects by validation.
    """
    of_fold = "" if fold is None else f"fold{fold}"
    parts = [dataset, split, variant, refit and f"refit_{refit}", of_fold, f"seed{seed}"]
    return "-".join(part for part in parts if part)


def variant_of(config: DictConfig) -> str:
    """The differences of a run from its data set's defaults, besides split, seed and refit; "" if there are none.

    A name that the user chose makes no other variant.
    """
    values, options = resolve(config), config.composition.options
    parts = []
    chosen = tuple(f"{group}={options[group]}" for group in ("dataset", "split"))
    reference, usual = _reference(chosen)
    if options["experiment"] != "null":
        chosen += (f"experiment={options['experiment']}",)
        plain, (reference, usual) = reference, _reference(chosen)
        if reference != plain:  # an experiment that only lists what to sweep over is no variant
            parts.append(options["experiment"])
    if options["target"] != usual["target"]:  # a target chooses the loss
        parts.append(options["target"])
        chosen += (f"target={options['target']}",)
        reference, usual = _reference(chosen)
    usual_source = reference.get("init_from")
    # So that the reference has the keys that are of use only with initial weights, and with a teacher.
    if values["init_from"] or usual_source:
        chosen += (f"init_from={'any' if values['init_from'] else 'null'}",)
    if values["teacher"]:
        chosen += ("teacher=any",)
    switched = {group: options[group] for group in NAMING_GROUPS if options[group] != usual[group]}
    reference, _ = _reference((*chosen, *(f"{group}={option}" for group, option in switched.items())))
    parts += switched.values()
    parts += difference_words(identity(values), reference)
    if values["init_from"] != usual_source:
        parts.append(f"from_{name_word(str(values['init_from']))}")
    if values["teacher"]:
        parts.append(f"teacher_{name_word(values['teacher'])}")
    return "-".join(map(str, parts))


def difference_words(ours: Mapping[str, Any], reference: Mapping[str, Any]) -> list[str]:
    """Words for a name: each key of an identity whose value is not the reference's, by the shortest form that is no
    other key's, with the value: `width16`, `erase.probability0.3`; `no_erase` for what the reference has and it lacks.
    A callback that was added is named by its key: its class and values would not fit.
    """
    keys = {key for key in ours.keys() | reference.keys() if not matches(key, PLACED_IN_NAME)}
    callbacks = {key.split(".")[1] for key in reference if key.startswith("callbacks.")}
    words: dict[str, None] = {}
    for key in sorted(keys):
        if key.startswith("callbacks.") and key.split(".")[1] not in callbacks:
            words[name_word(key.split(".")[1])] = None
        elif key not in ours:
            parts = key.split(".")
            parents = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
            gone = next(parent for parent in parents if not any(f"{one}.".startswith(f"{parent}.") for one in ours))
            words[name_word(f"no_{_shortest(gone, {*keys, gone})}")] = None
        elif reference.get(key, ...) != ours[key]:
            place, value = key, ours[key]
            if key.endswith("._target_"):  # of a class, its name
                place, value = key.removesuffix("._target_"), str(value).rpartition(".")[2]
            words[name_word(f"{_shortest(place, {*keys, place})}{value}")] = None
    return list(words)


def _shortest(key: str, keys: Iterable[str]) -> str:
    """The last words of a dotted key, as many as no other of the keys ends with."""
    parts = key.split(".")
    for start in range(len(parts) - 1, -1, -1):
        form = ".".join(parts[start:])
        if not any(f".{other}".endswith(f".{form}") for other in keys if other != key):
            return form
    return key


@functools.lru_cache
def _reference(overrides: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, str]]:
    """Identity, and option of each group, of the configuration that only these overrides give."""
    config = compose(overrides)
    return identity(resolve(config)), dict(config.composition.options)


def name_word(text: str) -> str:
    """`text` with runs of characters that file names or Hydra's command line reserve replaced by `_`."""
    return re.sub(r"[^A-Za-z0-9._]+", "_", text).strip("_.")
