"""The plan of a job: its resolved configuration, the name of its run, and the runs that it needs."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from fer_voting.config import CONF_DIR, compose_config, compose_with_choices
from fer_voting.runs.identity import name_run, resolve, setting_of


def plan_job(overrides: Sequence[str], config: DictConfig, choices: Mapping[str, str]) -> dict[str, Any]:
    """The resolved configuration of a job, with the names of its run and of the runs that it needs.

    Args:
        overrides: the job's words on the command line.
        config: what they compose to, without Hydra's node.
        choices: the option of each group.

    Sets `name`, and adds `run`: the `setting` (`identity.setting_of`), the `architecture` (the option of `model`), and
    what it `needs`: of the run whose weights it starts from (`weights`), of its teacher where that is given as a split
    (`teacher`), and of the run that selected the epochs of a refit (`selection`), the name (`run`) and the command that
    trains it (`command`).
    """
    needs: dict[str, Any] = {}
    planned = {
        **resolve(config),
        "name": config.name or name_run(config, choices),
        "run": {"setting": setting_of(config, choices), "architecture": choices["model"], "needs": needs},
    }
    if planned["init_from"] in _options("dataset"):
        needs["weights"] = _needed(_words_for_dataset(overrides, planned["init_from"]))
        planned["init_from"] = needs["weights"]["run"]
    if planned["teacher"] in _options("split"):
        # The teacher of a narrower network is as wide as its data set's or experiment's networks are.
        words = words_without(overrides, "teacher", "distillation", "split", "model", "refit", "name")
        needs["teacher"] = _needed([*words, f"split={planned['teacher']}"])
        planned["teacher"] = needs["teacher"]["run"]
    if planned["refit"]:
        needs["selection"] = _needed(words_without(overrides, "refit", "name"))
    return planned


def _needed(words: Sequence[str]) -> dict[str, str]:
    name = name_run(*compose_with_choices(words))
    return {"run": name, "command": " ".join(["python -m fer_voting.train", *map(shlex.quote, words)])}


def _options(group: str) -> set[str]:
    return {path.stem for path in (CONF_DIR / group).glob("*.yaml")}


def _words_for_dataset(overrides: Sequence[str], dataset: str) -> list[str]:
    """The words of the run of another data set that is like this one: its own values of `dataset` hold there too,
    where there is such a value, but for where and in which form the files lie."""
    known = compose_config([f"dataset={dataset}"]).dataset.keys() - {"root", "layout", "manifest"}
    words = [f"dataset={dataset}"]
    for word in words_without(overrides, "init_from", "refit", "name"):
        group, _, key = _key(word).partition(".")
        if group != "dataset" or key.split(".")[0] in known:
            words.append(word)
    return words


def words_without(words: Iterable[str], *keys: str) -> list[str]:
    """The words that don't set one of these keys, or a value below it."""
    return [w for w in words if not any(f"{_key(w)}.".startswith(f"{key}.") for key in keys)]


def _key(word: str) -> str:
    """`dataset.size` of `+dataset.size=48`."""
    return word.lstrip("+~").partition("=")[0]
