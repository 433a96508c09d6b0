"""Runs that are missing from a table: the command that makes them, and its estimated cost."""

import functools
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from fer_voting.config import CONF_DIR, compose_config, refuse_foreign_code
from fer_voting.models.cost import count_gmacs
from fer_voting.models.registry import build_network
from fer_voting.results.load import OTHER_DATA, RunGroup, RunRecord, RunTable
from fer_voting.results.paper import paper
from fer_voting.runs.identity import resolve
from fer_voting.runs.plan import words_without
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.messages import duration

ASSUMED_GMACS_PER_SECOND = 450
"""Training rate of a GPU like the paper's, used before any run has been timed: 30 % of the RTX 2070 Super's 9 TFLOP/s
in float32; a training step is three forward passes of two operations a multiply-accumulate."""
ASSUMPTION = "assumed: a GPU like the paper's in float32, 450 GMACs a second"

SET_HERE = ("split", "seed", "refit", "voting", "output_dir", "name", "sweep", "logger", "hydra")


@dataclass(frozen=True)
class MissingRuns:
    """The number of missing runs, the command that makes them, and its estimated cost.

    Attributes:
        seconds: None where the number of images an epoch is unknown.
        basis: what the estimate is computed from.
    """

    jobs: int
    command: str
    seconds: float | None
    basis: str

    @property
    def cost(self) -> str:
        time = self.basis if self.seconds is None else f"about {_long_duration(self.seconds)}; {self.basis}"
        return f"{self.jobs} {'run' if self.jobs == 1 else 'runs'}: {time}"

    def __str__(self) -> str:
        return f"# {self.cost}\n{self.command}"


def _long_duration(seconds: float) -> str:
    days = seconds / 86400
    return f"{days:.0f} days" if days >= 3 else duration(seconds)


def missing_runs(runs: RunTable, section: RunGroup, splits: Sequence[str], refit: str = "") -> MissingRuns | None:
    """The command for the missing runs of `splits`; None if there are none that a command could make.

    It names whole splits and seeds, for a sweep trains only what is not finished. It leaves out what is running, and
    runs on other data, which training refuses to overwrite.
    """
    lacking: dict[str, list[int]] = {split: [] for split in splits}  # split -> seeds
    for split, seed in ((split, seed) for split in splits for seed in section.seeds):
        reasons = section.missing(split, refit, [seed]).values()
        if any(reason != "running" and not reason.startswith(OTHER_DATA) for reason in reasons):
            lacking[split].append(seed)
    lacking = {split: seeds for split, seeds in lacking.items() if seeds}
    if not lacking:
        return None
    words = _training_words(runs, section)
    seeds = sorted({seed for of_split in lacking.values() for seed in of_split})
    sweep = [*words, f"split={','.join(lacking)}", f"seed={','.join(map(str, seeds))}"]
    if refit:
        sweep += ["refit=true", *([f"voting={refit}"] if refit != "soft" else [])]
    command = " ".join(["python -m fer_voting.train -m", *map(shlex.quote, sweep)])
    config = _composed(words)
    estimates = [(len(of_split), _estimate(runs, section, config, split)) for split, of_split in lacking.items()]
    basis = "; ".join(dict.fromkeys(basis for _, (_, basis) in estimates))
    costs = [None if seconds is None else count * seconds for count, (seconds, _) in estimates]
    known = [cost for cost in costs if cost is not None]
    jobs = sum(count for count, _ in estimates)
    return MissingRuns(jobs, command, sum(known) if len(known) == len(costs) else None, basis)


def audit_command(runs: RunTable, section: RunGroup) -> str:
    """The command that counts the data set's images."""
    words = [f"dataset={section.dataset}", *_files_and_output(runs, section)]
    return " ".join(["python -m fer_voting.audit", *map(shlex.quote, words)])


def _training_words(runs: RunTable, section: RunGroup) -> list[str]:
    """The overrides that make a run of the section, without split, seed and refit."""
    words = _words_of_a_sweep(runs, section)
    if words is None:
        words = [f"dataset={section.dataset}"]
        if (CONF_DIR / "experiment" / f"{section.setting}.yaml").exists():
            words.insert(0, f"experiment={section.setting}")
        elif section.setting:
            words.append(f"<what makes the setting {section.setting}>")
        return words + _files_and_output(runs, section)
    return words + _output(runs)


def _files_and_output(runs: RunTable, section: RunGroup) -> list[str]:
    root = _root(section)
    return [*([f"dataset.root={root}"] if root else []), *_output(runs)]


def _output(runs: RunTable) -> list[str]:
    return [] if runs.output_dir.as_posix() == "outputs" else [f"output_dir={runs.output_dir}"]


def _words_of_a_sweep(runs: RunTable, section: RunGroup) -> list[str] | None:
    """The overrides of a recorded sweep that made one of the section's runs, if there is one."""
    names = {run.name for run in section.runs}
    for folder in sorted((runs.output_dir / "sweeps").glob("*/")):
        try:
            jobs = [(job["run"], job["overrides"]) for job in Sweep(folder).jobs()]
        except (OSError, ValueError):
            continue  # no metric depends on sweep.json; without it the command has a placeholder
        for run, overrides in jobs:
            # What names code to run may be a stranger's: then the command has a placeholder.
            if run in names and not any("_target_" in word for word in overrides):
                return [w for w in words_without(overrides, *SET_HERE) if not _only_sweeps(w, section.setting)]
    return None


def _only_sweeps(word: str, setting: str) -> bool:
    """Whether it is an experiment that only says what to sweep over, and is therefore no part of the setting."""
    return word.startswith("experiment=") and not f"{setting}-".startswith(f"{word.removeprefix('experiment=')}-")


def _root(section: RunGroup) -> str | None:
    """Where the section's runs had their files, DIR if there are none yet; None if the data set has no `root`."""
    if section.runs:
        return section.runs[0].config["dataset"].get("root")
    config = _composed([f"dataset={section.dataset}"])
    if config is None:
        return "DIR"
    named_by_the_environment = config["dataset"].get("root") is not None
    return "DIR" if "root" in config["dataset"] and not named_by_the_environment else None


def _composed(words: Sequence[str]) -> dict[str, Any] | None:
    """The configuration of these overrides; None if they are not complete."""
    try:
        return resolve(compose_config([word for word in words if not word.startswith("<")]))
    except Exception:  # Hydra reports it to whoever types the command
        return None


# --- what a run costs -------------------------------------------------------------------------------------------


def _estimate(runs: RunTable, section: RunGroup, config: dict[str, Any] | None, split: str) -> tuple[float | None, str]:
    """Seconds of one run, and what the estimate is computed from: the most similar finished runs, or an assumption."""
    if same := section.finished(split, refit=None):
        return fmean(run.result["seconds"] for run in same), "as its finished runs took"
    if config is None:
        return None, "cost unknown: the setting's overrides are not known here"
    size = config["dataset"]["size"]
    try:
        refuse_foreign_code(config["model"], "model", "the setting's overrides")
        gmacs = _gmacs(json.dumps(config["model"]), split, config["dataset"]["classes"] or 7, size)
    except ValueError as error:
        return None, f"cost unknown: {error}"
    if others := section.finished(refit=None):
        costs = [run.result["seconds"] / run.result["gmacs"] for run in others]
        return gmacs * fmean(costs), "from the finished runs of other splits, by multiply-accumulates"
    images = _images_an_epoch(runs, section.dataset, config)
    if images is None:
        return None, "cost unknown: how many images there are is not known before a first run"
    rate, basis = _gmacs_per_second(runs)
    return gmacs * images * config["trainer"]["max_epochs"] / rate, basis


@functools.cache
def _gmacs(model: str, split: str, num_classes: int, image_size: int) -> float:
    """GMACs of an image, of the network that a `model` node describes; the node as JSON, so that it can be cached.

    Built with `pretrained: false`, for weights do not change the count and may have to be fetched.
    """
    node = json.loads(model)
    if "pretrained" in node:
        node["pretrained"] = False
    return count_gmacs(build_network(node, split, num_classes, image_size), image_size)


def _images_an_epoch(runs: RunTable, dataset: str, config: dict[str, Any]) -> int | None:
    if "train_size" in config["dataset"]:  # drawn faces: as many as the setting says
        return config["dataset"]["train_size"]
    for run in runs.runs:
        if run.dataset == dataset and not run.problem:
            return sum(run.result["counts"]["train"].values())
    published = paper()["datasets"]
    if dataset == "affectnet":
        of_class = published[dataset]
        left_out = (
            of_class["official_validation_as_test_per_class"] + of_class["new_validation_from_training_per_class"]
        )
        return of_class["used_7_classes"] - of_class["classes"] * left_out
    if dataset == "rafdb":
        return round(published[dataset]["train"] * (1 - published[dataset]["validation_fraction_of_train"]))
    return None


def _gmacs_per_second(runs: RunTable) -> tuple[float, str]:
    """The fastest rate that a finished run of any data set trained at, or an assumed one."""
    finished = [run for run in runs.runs if not run.problem and run.result["images_per_second"]]
    if not finished:
        return ASSUMED_GMACS_PER_SECOND, ASSUMPTION

    def rate(run: RunRecord) -> float:
        return run.result["images_per_second"] * run.result["gmacs"]

    best = max(finished, key=rate)
    return rate(best), f"at the rate of {best.name} on {best.result['device']}, {rate(best):.0f} GMACs a second"
