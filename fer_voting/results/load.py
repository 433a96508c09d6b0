"""Run folders as records, sorted into sections: the runs of one data set under one setting.

Nothing here raises for a run that is damaged, unfinished or gone: it leaves a hole with a name and a reason.
"""

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from fer_voting.models import SPLITS
from fer_voting.runs.run import Run

__all__ = ["DEFAULT_SEEDS", "NOT_RUN", "Decisions", "RunRecord", "Runs", "Section", "load_runs", "setting_of"]

DEFAULT_SEEDS = (0, 1, 2)
NOT_RUN = "not run"

TITLES = {"affectnet": "AffectNet", "rafdb": "RAF-DB", "fer2013": "FER2013", "ferplus": "FER+", "faces": "drawn faces"}

# What the tables read of a finished run's result.json.
NEEDED = (
    *("synthetic", "class_names", "counts", "epochs", "votes", "seconds", "device", "precision", "versions"),
    *("gmacs", "parameters", "forward_mib_per_image", "images_per_second", "git_commit", "started"),
)


class Place(NamedTuple):
    """Where a run stands in a section: `refit` is the vote of a refit, "" for a run that selects by validation."""

    split: str
    seed: int
    refit: str = ""


@dataclass(frozen=True)
class Decisions:
    """What a run said of each image: `names`, `labels` and `decided` (class ids), each [N]."""

    names: NDArray[np.str_]
    labels: NDArray[np.int64]
    decided: NDArray[np.int64]

    @property
    def correct(self) -> NDArray[np.bool_]:
        return self.labels == self.decided


@dataclass(frozen=True)
class RunRecord:
    """A run's folder as it was found.

    Attributes:
        setting: what the run's name says between split and seed, i.e. how it differs from the data set's defaults;
            "" is the paper's protocol.
        problem: "" of a finished run, else what is the matter with it; `result` is then empty.
        config: resolved.
    """

    run: Run
    dataset: str
    setting: str
    place: Place
    problem: str
    result: dict[str, Any]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.run.name

    def figures(self, vote: str, stage: str) -> dict[str, Any] | None:
        """`accuracy`, `mean_recall`, `recall` by class, `confusion_counts`; None if the run has no such figures."""
        return self.result["votes"].get(vote, {}).get(stage)

    def decisions(self, vote: str, stage: str) -> Decisions:
        """Raises ValueError if the file of the predictions is gone or damaged."""
        path = self.run.predictions_file(vote, stage)
        try:
            # Opened here, for np.load leaves open what it finds damaged.
            with path.open("rb") as file, np.load(file) as arrays:
                return Decisions(arrays["names"], arrays["labels"], arrays["scores"].argmax(axis=1))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            what = "missing" if isinstance(error, FileNotFoundError) else "damaged"
            raise ValueError(f"{path.parent.name}/{path.name} is {what}") from error


@dataclass(frozen=True)
class Section:
    """The runs of one data set under one setting. `seeds` are those that are asked for."""

    dataset: str
    setting: str
    seeds: tuple[int, ...]
    records: dict[Place, RunRecord]
    strays: dict[str, str]

    @property
    def title(self) -> str:
        title = TITLES.get(self.dataset, self.dataset)
        if self.synthetic:
            title += " (synthetic)"
        return f"{title}, setting {self.setting}" if self.setting else title

    @cached_property
    def synthetic(self) -> bool:
        return self.dataset == "faces" or any(record.result["synthetic"] for record in self.finished())

    @cached_property
    def lacks_test(self) -> bool:
        """The data set as it was found here has no test images, so that there is nothing to judge a refit on."""
        finished = self.finished()
        return bool(finished) and not any("test" in record.result["counts"] for record in finished)

    def splits(self, refit: str = "") -> list[str]:
        """The paper's four, and crops before the network where that was run; by cost, the costliest first."""
        found = {place.split for place in self.records if place.refit == refit}
        return [*(split for split in SPLITS if split in found - {"baseline"} | {"m1", "m2", "m3"}), "baseline"]

    def finished(self, split: str | None = None, refit: str | None = "") -> list[RunRecord]:
        """Finished runs by split and seed; of any split, or any refit, where that is None."""
        return [
            record
            for place, record in sorted(self.records.items())
            if not record.problem
            and split in (None, place.split)
            and refit in (None, place.refit)
            and place.seed in self.seeds
        ]

    def holes(self, split: str, refit: str = "") -> dict[str, str]:
        """Name of each run of the split that is asked for and gives no figures -> why."""
        holes = {}
        for seed in self.seeds:
            record = self.records.get(Place(split, seed, refit))
            if record is None:
                name = self.run_name(split, seed, refit)
                holes[name] = self.strays.get(name, NOT_RUN)
            elif record.problem:
                holes[record.name] = record.problem
        return holes

    def run_name(self, split: str, seed: int, refit: str = "") -> str:
        parts = [self.dataset, split, self.setting, refit and f"refit_{refit}", f"seed{seed}"]
        return "-".join(part for part in parts if part)


@dataclass(frozen=True)
class Runs:
    """All run folders of an output folder; `strays` are those of which not even the place can be told: name -> why."""

    output_dir: Path
    records: list[RunRecord]
    strays: dict[str, str]

    def section(self, dataset: str, setting: str = "", seeds: Sequence[int] | None = None) -> Section:
        """The runs of a data set under a setting; where no seeds are given, all that were found and 0, 1, 2."""
        records = {r.place: r for r in self.records if (r.dataset, r.setting) == (dataset, setting)}
        if seeds is None:
            seeds = sorted({*DEFAULT_SEEDS, *(place.seed for place in records)})
        return Section(dataset, setting, tuple(seeds), records, self.strays)

    def settings(self, dataset: str) -> dict[str, int]:
        """Setting -> number of the data set's runs under it."""
        found = sorted(record.setting for record in self.records if record.dataset == dataset)
        return {setting: found.count(setting) for setting in found}

    def sections(self) -> list[Section]:
        """Every section that has a run, with the seeds found in it: the paper's data sets and protocol first."""
        order = list(TITLES)
        keys = {(r.dataset, r.setting) for r in self.records}
        ranked = sorted(keys, key=lambda key: (order.index(key[0]) if key[0] in order else len(order), *key))
        return [self.section(*key, seeds=sorted({r.place.seed for r in self._of(*key)})) for key in ranked]

    def _of(self, dataset: str, setting: str) -> Iterable[RunRecord]:
        return (r for r in self.records if (r.dataset, r.setting) == (dataset, setting))


def load_runs(output_dir: Path) -> Runs:
    """The run folders under `<output_dir>/runs`.

    Raises FileNotFoundError if there is no such output folder: a misspelt path must not read as "not run".
    """
    if not output_dir.is_dir():
        raise FileNotFoundError(f"there is no output folder {output_dir}")
    records, strays = [], {}
    for folder in sorted((output_dir / "runs").glob("*/")):
        run = Run(output_dir, folder.name)
        try:
            records.append(_record(run))
        except ValueError as error:
            strays[run.name] = f"damaged: {error}"
    return Runs(output_dir, records, strays)


def _record(run: Run) -> RunRecord:
    """Raises ValueError if the run's place can't be told, for config.yaml is gone or damaged."""
    try:
        config: Any = OmegaConf.to_container(OmegaConf.load(run.dir / "config.yaml"))
        dataset, split, seed = config["dataset"]["name"], config["split"]["name"], config["seed"]
        refit = config["voting"]["name"] if config["refit"] else ""
    except FileNotFoundError:
        raise ValueError("config.yaml is missing") from None
    except Exception as error:  # what a damaged file makes YAML and OmegaConf raise has no base in common
        raise ValueError("config.yaml can't be read") from error
    problem, result = _result(run)
    setting = setting_of(run.name, dataset, split, refit, seed)
    return RunRecord(run, dataset, setting, Place(split, seed, refit), problem, result, config)


def setting_of(name: str, dataset: str, split: str, refit: str, seed: int) -> str:
    """What stands between the split and the seed; a name that a user chose is a setting of its own."""
    start, end = f"{dataset}-{split}", f"-refit_{refit}-seed{seed}" if refit else f"-seed{seed}"
    match = re.fullmatch(rf"{re.escape(start)}(?:-(?P<setting>.+))?{re.escape(end)}", name)
    return (match["setting"] or "") if match else name


def _result(run: Run) -> tuple[str, dict[str, Any]]:
    """What is the matter with the run, and the result of one that is finished."""
    try:
        result = run.result()
    except ValueError:
        return "damaged: result.json is no JSON", {}
    if result is None:
        return NOT_RUN, {}
    if not isinstance(result, dict) or "status" not in result:
        return "damaged: result.json lacks status", {}
    status = run.status()  # unlike the record's, knows whether a running one has been killed
    if status != "finished":
        return f"{status}: {result['error']}" if result.get("error") else status, {}
    if lacking := [key for key in NEEDED if key not in result]:
        return f"damaged: result.json lacks {', '.join(lacking)}", {}
    return "", result
