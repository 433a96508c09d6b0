"""Runs that are missing from a table: the command that makes them, and its estimated cost."""

import functools
import itertools
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from fer_voting.config import compose, options_of_group, refuse_foreign_code
from fer_voting.models.cost import count_gmacs
from fer_voting.models.registry import build_network
from fer_voting.results.load import OTHER_DATA, RunGroup, RunRecord, RunTable
from fer_voting.runs.identity import resolve
from fer_voting.runs.naming import drop_overrides
from fer_voting.system.messages import duration
from fer_voting.system.text import counted

TRAINING_IMAGES = {"affectnet": 287_401 - 7 * 1000, "rafdb": 12_271 - 1_227}
"""Training images of the paper, used before any run has counted them."""

SET_HERE = (
    *("split", "seed", "dataset.fold", "refit", "voting", "output_dir", "name", "sweep", "logger", "hydra"),
    *("selection", "continue_from"),
)


@dataclass(frozen=True)
class MissingRuns:
    """The number of missing runs, the command that makes them, and its estimated cost.

    Attributes:
        seconds: None where the cost is unknown.
        basis: what the estimate is computed from, or why there is none.
    """

    jobs: int
    command: str
    seconds: float | None
    basis: str

    @property
    def cost(self) -> str:
        runs = counted(self.jobs, "run")
        if self.seconds is None:
            return f"{runs}: {self.basis}"
        days = self.seconds / 86400
        return f"{runs}: about {f'{days:.0f} days' if days >= 3 else duration(self.seconds)}; {self.basis}"

    def __str__(self) -> str:
        return f"# {self.cost}\n{self.command}"


def missing_runs(table: RunTable, group: RunGroup, splits: Sequence[str], refit: str = "") -> MissingRuns | None:
    """The command for the missing runs of `splits`; None if there are none that a command could make.

    It names whole splits, seeds and folds, because a sweep trains only what is not finished. It leaves out what is
    running, and runs on other data, which training refuses to overwrite.
    """

    def can_be_trained(split: str, seed: int, fold: int | None) -> bool:
        reasons = group.missing(split, refit, [seed], [fold]).values()
        return any(reason != "running" and not reason.startswith(OTHER_DATA) for reason in reasons)

    places = list(itertools.product(group.seeds, group.folds))
    lacking = {split: [place for place in places if can_be_trained(split, *place)] for split in splits}
    lacking = {split: seeds for split, seeds in lacking.items() if seeds}
    if not lacking:
        return None
    overrides = _training_overrides(table, group)
    seeds, folds = (sorted(set(each)) for each in zip(*itertools.chain(*lacking.values()), strict=True))
    sweep = [*overrides, f"split={','.join(lacking)}", f"seed={','.join(map(str, seeds))}"]
    if folds != [None]:
        sweep.append(f"dataset.fold={','.join(map(str, folds))}")
    if refit:
        sweep += ["refit=true", *([f"voting={refit}"] if refit != "soft" else [])]
    config = group.runs[0].config if group.runs else _composed(overrides)
    total: float | None = 0.0
    bases: dict[str, None] = {}
    for split, of_split in lacking.items():
        try:
            seconds, basis = _estimate(table, group, config, split)
        except Exception as error:  # the configuration of a run may be a stranger's
            seconds, basis = None, f"cost unknown: {error}"
        total = None if total is None or seconds is None else total + len(of_split) * seconds
        bases[basis] = None
    jobs = sum(map(len, lacking.values()))
    return MissingRuns(jobs, shlex.join(["python", "-m", "fer_voting.train", "-m", *sweep]), total, "; ".join(bases))


def audit_command(table: RunTable, group: RunGroup) -> str:
    """The command that counts the data set's images."""
    overrides = [f"dataset={group.dataset}", *_places(table, group)]
    return shlex.join(["python", "-m", "fer_voting.audit", *overrides])


def _training_overrides(table: RunTable, group: RunGroup) -> list[str]:
    """The overrides that make a run of the group, without split, seed and refit."""
    if recorded := _recorded_overrides(group):
        return recorded + _output(table)
    overrides = [f"dataset={group.dataset}"]
    if group.variant in options_of_group("experiment"):
        overrides.insert(0, f"experiment={group.variant}")
    elif group.variant:
        overrides.append(f"<what makes the variant {group.variant}>")
    return overrides + _places(table, group)


def _recorded_overrides(group: RunGroup) -> list[str]:
    """The overrides that made one of the group's runs; none if there is no run, or its record names code to run."""
    for run in group.runs:
        composition = run.config["composition"]
        # A record that names code may be a stranger's: then the command has a placeholder.
        if composition["overrides"] and not any("_target_" in override for override in composition["overrides"]):
            kept = drop_overrides(composition["overrides"], *SET_HERE)
            # An experiment that only says what to sweep over is no part of the variant, and would sweep again.
            swept = [f"experiment={name}" for name in options_of_group("experiment") if not _is_of(name, run)]
            return [override for override in kept if override not in swept]
    return []


def _is_of(experiment: str, run: RunRecord) -> bool:
    return f"{run.recorded_variant}-".startswith(f"{experiment}-")


def _places(table: RunTable, group: RunGroup) -> list[str]:
    """The overrides that say where the data set's files are (DIR before its first run) and where the output goes."""
    if group.runs:
        root = group.runs[0].config["dataset"].get("root")
    else:
        config = _composed([f"dataset={group.dataset}"])
        needs_root = config is None or config["dataset"].get("root", "none") is None
        root = "DIR" if needs_root else None
    return [*([f"dataset.root={root}"] if root else []), *_output(table)]


def _output(table: RunTable) -> list[str]:
    return [] if table.output_dir.as_posix() == "outputs" else [f"output_dir={table.output_dir}"]


def _composed(overrides: Sequence[str]) -> dict[str, Any] | None:
    """The configuration of these overrides; None if they are not complete."""
    try:
        return resolve(compose([override for override in overrides if not override.startswith("<")]))
    except Exception:  # Hydra reports it to the user who types the command
        return None


# --- the cost of a run ------------------------------------------------------------------------------------------


def _estimate(table: RunTable, group: RunGroup, config: dict[str, Any] | None, split: str) -> tuple[float, str]:
    """Seconds of one run, and what the estimate is computed from: the most similar finished runs of the same network.

    Raises an exception that says what is not known.
    """
    if same := group.finished(split, refit=None):
        return fmean(run.result["seconds"] for run in same), "as its finished runs took"
    if config is None:
        raise ValueError("the variant's overrides are not known here")
    dataset = config["dataset"]
    refuse_foreign_code(config["model"], "model", "the variant's overrides")
    gmacs = _gmacs(json.dumps(config["model"]), split, dataset["classes"] or 7, dataset["size"])
    if others := group.finished(refit=None):
        seconds = gmacs * fmean(run.result["seconds"] / run.result["gmacs"] for run in others)
        return seconds, "from the finished runs of other splits, by multiply-accumulates"
    finished = [run for run in table.runs if not run.problem]
    counted = (sum(run.result["counts"]["train"].values()) for run in finished if run.dataset == group.dataset)
    # The number of drawn faces is a value of their configuration.
    images = dataset.get("train_size") or next(counted, TRAINING_IMAGES.get(group.dataset))
    if images is None:
        raise ValueError("how many images there are is not known before a first run")
    timed = [run for run in finished if run.config["model"] == config["model"] and run.result["images_per_second"]]
    rates = {run.result["images_per_second"] * run.result["gmacs"]: run for run in timed}
    if not rates:
        raise ValueError("no run of this network is finished")
    rate = max(rates)
    basis = f"at the rate of {rates[rate].name} on {rates[rate].result['device']}, {rate:.0f} GMACs a second"
    return gmacs * images * config["trainer"]["max_epochs"] / rate, basis


@functools.cache
def _gmacs(model: str, split: str, num_classes: int, image_size: int) -> float:
    """GMACs of an image, of the network that a `model` node describes; the node as JSON, so that it can be cached.

    Built with `pretrained: false`: weights do not change the count and may have to be fetched.
    """
    node = json.loads(model)
    if "pretrained" in node:
        node["pretrained"] = False
    return count_gmacs(build_network(node, split, num_classes, image_size), image_size)
