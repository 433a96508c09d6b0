"""Run folders as data: `load_runs` reads them all, `RunTable.group` selects the runs of one data set and one variant.

Runs are of one variant if their recipes are equal (`identity.recipe`), whatever their names say.
Nothing here raises for a damaged, unfinished or absent run: `RunGroup.missing` lists it, run name -> reason.
"""

import itertools
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fer_voting.models import SPLITS
from fer_voting.runs.identity import compared_data, recipe
from fer_voting.runs.naming import difference_words, run_name
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.system.atomic import read_json
from fer_voting.votes import VOTES

DEFAULT_SEEDS = (0, 1, 2)
PARTS = ("val", "test")
"""The parts of a data set that a run is evaluated on."""
NOT_RUN, OTHER_DATA = "not run", "other data"

TITLES = {"affectnet": "AffectNet", "rafdb": "RAF-DB", "fer2013": "FER2013", "ferplus": "FER+", "faces": "drawn faces"}
TITLES |= {"ckplus": "CK+", "ckplus48": "CK+ (48 pixels)", "jaffe": "JAFFE", "kdef": "KDEF"}
TITLES |= {"oulu_casia": "Oulu-CASIA", "expw": "ExpW"}

REQUIRED = (
    *("synthetic", "class_names", "counts", "data", "data_fingerprint", "epochs", "votes", "device", "precision"),
    *("versions", "gmacs", "torch_gmacs", "parameters", "forward_mib_per_image", "images_per_second", "seconds"),
    *("git_commit", "started"),
)
"""Keys of a finished run's result.json that the tables read."""


@dataclass(frozen=True)
class Predictions:
    """Predictions for N images: `names` and `labels` (class ids) [N], crop `logits` float32 [N, V, K]; the names of the
    images' `groups` [N] ("": a group of its own), None if they have none."""

    names: NDArray[np.str_]
    labels: NDArray[np.int64]
    logits: NDArray[np.float32]
    groups: NDArray[np.str_] | None = None

    def correct(self, vote: str) -> NDArray[np.bool_]:
        """Whether the vote's decision is the label, [N]."""
        return self.labels == VOTES[vote](torch.from_numpy(self.logits)).argmax(dim=1).numpy()


def read_predictions(path: Path) -> Predictions:
    """The predictions in a run's file, or in the compact form of `experiments.record` (rows as names).

    Raises ValueError if the file is missing or damaged.
    """
    try:
        arrays = read_npz(path, "labels", "logits")
        names = arrays["names"] if "names" in arrays else arrays["rows"]
        labels, logits = arrays["labels"].astype(np.int64), arrays["logits"].astype(np.float32)
        groups = arrays["groups"].astype(np.str_) if "groups" in arrays else None
        of_images = [array.shape for array in (names, groups) if array is not None]
        if logits.ndim != 3 or {labels.shape, *of_images} != {logits.shape[:1]}:
            raise ValueError("its arrays do not fit each other")
        return Predictions(names.astype(np.str_), labels, logits, groups)
    except (OSError, ValueError, KeyError) as error:
        state = "missing" if isinstance(error, FileNotFoundError) else "damaged"
        raise ValueError(f"{path.parent.name}/{path.name} is {state}") from error


@dataclass(frozen=True)
class RunRecord:
    """The content of a run's folder.

    Attributes:
        variant: how the run differs from the data set's defaults, and from runs that are recorded under the same words;
            "" is the paper's protocol.
        recorded_variant: these words as the run recorded them.
        recipe: what runs that are averaged have in common.
        refit: the vote of a refit; "" for a run that selects its epoch by validation.
        fold: of a cross-validation, the fold that tests.
        problem: "" for a finished run, else why its metrics are not used.
        result: content of a finished run's result.json; else empty.
        config: resolved.
    """

    run: Run
    dataset: str
    variant: str
    recorded_variant: str
    recipe: dict[str, Any]
    split: str
    seed: int
    refit: str
    fold: int | None
    problem: str
    result: dict[str, Any]
    config: dict[str, Any]

    @property
    def name(self) -> str:
        return self.run.name

    def metrics(self, vote: str, part: str) -> dict[str, Any] | None:
        """The values of the run's target (`targets.Target.to_values`) at the vote's own best epoch, or None."""
        return self.result["votes"].get(vote, {}).get(part)

    def predictions(self, part: str) -> Predictions:
        """Predictions by the weights of the soft vote's best epoch; of a refit, by its only weights.

        Raises ValueError if the file is missing or damaged.
        """
        return read_predictions(self.predictions_file(part))

    def predictions_file(self, part: str) -> Path:
        return self.run.predictions_file(self.refit or "soft", part)


@dataclass(frozen=True)
class RunGroup:
    """The runs of one data set and one variant, by split, seed, refit and fold; `seeds` are asked for."""

    dataset: str
    variant: str
    seeds: tuple[int, ...]
    runs: list[RunRecord]
    unreadable: dict[str, str]

    @property
    def title(self) -> str:
        title = TITLES.get(self.dataset, self.dataset)
        if self.synthetic:
            title += " (synthetic)"
        return f"{title}, variant {self.variant}" if self.variant else title

    @cached_property
    def synthetic(self) -> bool:
        return self.dataset == "faces" or any(run.result["synthetic"] for run in self.finished())

    @cached_property
    def number_names(self) -> list[str]:
        """Names of the numbers that the networks predict; none if they have classes only."""
        return next((run.result.get("number_names", []) for run in self.finished(refit=None)), [])

    @cached_property
    def has_classes(self) -> bool:
        """Whether the networks predict classes; so where no run is finished."""
        return not self.number_names or any(run.result["class_names"] for run in self.finished(refit=None))

    @cached_property
    def lacks_test(self) -> bool:
        """Whether runs are finished and their data has no test images, so that no refit can be tested."""
        finished = self.finished()
        return bool(finished) and not any("test" in run.result["counts"] for run in finished)

    @cached_property
    def folds(self) -> tuple[int | None, ...]:
        """The folds of a cross-validation; (None,) if the data are divided once."""
        return tuple(range(max((_number_of_folds(run) for run in self.runs), default=0))) or (None,)

    def splits(self, refit: str = "") -> list[str]:
        """The paper's four splits and any others that were run.

        They are in the order of `models.SPLITS`; then come the others by name, then the baseline.
        """
        present = {run.split for run in self.runs if run.refit == refit} | {"m1", "m2", "m3"}
        known = [split for split in SPLITS if split in present and split != "baseline"]
        return [*known, *sorted(present - set(SPLITS)), "baseline"]

    def finished(self, split: str | None = None, refit: str | None = "") -> list[RunRecord]:
        """Finished runs by split, seed and fold; of any split, or any refit, where that is None."""
        return [
            run
            for run in self.runs
            if not run.problem and split in (None, run.split) and refit in (None, run.refit) and run.seed in self.seeds
        ]

    def missing(
        self,
        split: str,
        refit: str = "",
        seeds: Sequence[int] | None = None,
        folds: Sequence[int | None] | None = None,
    ) -> dict[str, str]:
        """Name of each run of the split that is asked for and has no metrics -> reason."""
        reasons: dict[str, str] = {}
        for seed, fold in itertools.product(seeds or self.seeds, folds or self.folds):
            place = split, seed, refit, fold
            runs = [run for run in self.runs if (run.split, run.seed, run.refit, run.fold) == place]
            reasons |= {run.name: run.problem for run in runs if run.problem}
            if not runs:
                name = self.run_name(*place)
                reasons[name] = self.unreadable.get(name, NOT_RUN)
        return reasons

    def run_name(self, split: str, seed: int, refit: str = "", fold: int | None = None) -> str:
        variant = self.runs[0].recorded_variant if self.runs else self.variant
        return run_name(self.dataset, split, variant, refit, seed, fold)


def _number_of_folds(run: RunRecord) -> int:
    """Folds of the run's data; where each group is one, of a run that is not finished the least that there can be."""
    if run.fold is None:
        return 0
    folds = run.config["dataset"]["folds"]
    return folds if isinstance(folds, int) else run.result.get("data", {}).get("folds", {}).get("number", run.fold + 1)


@dataclass(frozen=True)
class RunTable:
    """All run folders of an output folder; `unreadable` are those without a usable config.yaml: name -> reason."""

    output_dir: Path
    runs: list[RunRecord]
    unreadable: dict[str, str]

    def group(self, dataset: str, variant: str = "", seeds: Sequence[int] | None = None) -> RunGroup:
        """The runs of a data set and a variant. The default seeds are 0, 1, 2 and all seeds of these runs; of a
        cross-validation, which trains once for each fold, only those of these runs.

        Args:
            variant: as `variants` has it; or recorded words, if they mean one variant only.
        """
        of_dataset = [run for run in self.runs if run.dataset == dataset]
        if variant not in {run.variant for run in of_dataset}:
            meant = {run.variant for run in of_dataset if run.recorded_variant == variant}
            variant = meant.pop() if len(meant) == 1 else variant
        runs = [run for run in of_dataset if run.variant == variant]
        if seeds is None:
            usual = () if any(run.fold is not None for run in runs) else DEFAULT_SEEDS
            seeds = sorted({*usual, *(run.seed for run in runs)})
        return RunGroup(dataset, variant, tuple(seeds), _comparable(runs), self.unreadable)

    def variants(self, dataset: str) -> dict[str, int]:
        """Variant -> number of the data set's runs of it."""
        return dict(sorted(Counter(run.variant for run in self.runs if run.dataset == dataset).items()))

    def groups(self) -> list[RunGroup]:
        """Every group that has a run, with the seeds of its runs. The paper's data sets and protocol come first."""
        order = [*TITLES, *sorted({run.dataset for run in self.runs} - TITLES.keys())]
        seeds: dict[tuple[str, str], set[int]] = {}
        for run in self.runs:
            seeds.setdefault((run.dataset, run.variant), set()).add(run.seed)
        keys = sorted(seeds, key=lambda key: (order.index(key[0]), key[1]))
        return [self.group(*key, seeds=sorted(seeds[key])) for key in keys]


def _by_recipe(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs, with one variant for each recipe of a data set: the words that most of its runs recorded, and where
    another recipe has the same words, what differs."""
    recipes: dict[tuple[str, str], list[RunRecord]] = {}
    for run in runs:
        recipes.setdefault((run.dataset, repr(sorted(run.recipe.items()))), []).append(run)
    by_words: dict[tuple[str, str], list[list[RunRecord]]] = {}
    for (dataset, _), equal in recipes.items():
        recorded = Counter(run.recorded_variant for run in equal)
        usual = min(recorded, key=lambda one: (-recorded[one], len(one), one))
        by_words.setdefault((dataset, usual), []).append(equal)
    checked = []
    for (_, words), several in by_words.items():
        for equal in several:
            others = [other[0].recipe for other in several if other is not equal]
            differing = [word for other in others for word in difference_words(equal[0].recipe, other)]
            variant = "-".join(filter(None, [words, *dict.fromkeys(differing)]))
            checked += [replace(run, variant=variant) for run in equal]
    return sorted(checked, key=lambda run: run.name)


def _comparable(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs by split, seed, refit and fold, with a `problem` for those that must not be averaged or compared.

    These are runs on other data than most, and a second run of the same split, seed, refit and fold.
    """
    first: dict[tuple[str, int, str, int], str] = {}

    def place(run: RunRecord) -> tuple[str, int, str, int]:
        return run.split, run.seed, run.refit, -1 if run.fold is None else run.fold

    reference = {
        is_refit: _most_common_data([run for run in runs if not run.problem and bool(run.refit) == is_refit])
        for is_refit in (False, True)
    }
    weights = Counter(filter(None, (_shared_weights(run) for run in runs if not run.problem)))
    checked = []
    for run in sorted(runs, key=lambda run: (place(run), run.name)):
        problem = run.problem or _other_data(run, reference) or _other_weights(run, weights)
        if not problem:
            name = first.setdefault(place(run), run.name)
            problem = "" if name == run.name else f"not used: {name} is the same split, seed and variant"
        checked.append(replace(run, problem=problem))
    return checked


def _most_common_data(finished: Sequence[RunRecord]) -> dict[str, Any]:
    """The result of a run on the data that most runs have; if two data sets tie, of the newest run."""
    count = Counter(compared_data(run.result) for run in finished)
    results = [run.result for run in finished]
    return max(results, key=lambda result: (count[compared_data(result)], result["started"]), default={})


def _other_data(run: RunRecord, reference: Mapping[bool, Mapping[str, Any]]) -> str:
    """How the run's data differs from the data of the group's other runs; "" if it does not."""
    own, usual = compared_data(run.result), compared_data(reference[bool(run.refit)])
    if own != usual:
        return f"{OTHER_DATA}: fingerprint {own[:12]} here, {usual[:12]} in the other runs"
    # A refit trains on another division of the same data, which has a fingerprint of its own.
    if run.refit and (selected := reference[False]):
        usual = compared_data(selected)
        own = str(run.result["data"].get("selection")) if run.fold is None else compared_data(run.result)
        if own != usual:
            return f"{OTHER_DATA}: fingerprint {own[:12]} before the refit, {usual[:12]} in the runs without refit"
    return ""


def _other_weights(run: RunRecord, known: Counter[str]) -> str:
    """How the initial weights differ from those of most of the group's runs; "" if they do not, or it is not known."""
    own = _shared_weights(run)
    usual = max(known, key=lambda digest: (known[digest], digest), default=None)
    if own is None or own == usual:
        return ""
    return f"{OTHER_DATA}: initial weights {own[:12]} here, {str(usual)[:12]} in the other runs"


def _shared_weights(run: RunRecord) -> str | None:
    """Digest of the initial weights, if they are those of every seed: of a file, or fetched."""
    composition = run.config["composition"]
    if "weights" in composition["needs"] or "init_from" in composition.get("sources", {}):
        return None
    try:
        return str(read_json(run.run.dir / "inputs.json")["initial_weights"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_runs(output_dir: Path, names: Container[str] | None = None) -> RunTable:
    """The run folders under `<output_dir>/runs`, or those of these names.

    Raises FileNotFoundError if there is no such output folder: a misspelt path must not read as "not run".
    """
    if not output_dir.is_dir():
        raise FileNotFoundError(f"there is no output folder {output_dir}")
    runs, unreadable = [], {}
    for folder in sorted((output_dir / "runs").glob("*/")):
        if names is not None and folder.name not in names:
            continue
        try:
            runs.append(load_run(Run(output_dir, folder.name)))
        except ValueError as error:
            unreadable[folder.name] = f"damaged: {error}"
    return RunTable(output_dir, _by_recipe(runs), unreadable)


def load_run(run: Run) -> RunRecord:
    """The content of a run's folder. Raises ValueError if config.yaml does not say what run it is."""
    try:
        config = run.config()
        dataset, split, seed = config["dataset"]["name"], config["split"]["name"], config["seed"]
        refit, variant = config["voting"]["name"] if config["refit"] else "", config["composition"]["variant"]
        fold = config["dataset"].get("fold")
        # These names become parts of commands and configurations; none is a path.
        names = (dataset, split, refit, variant)
        if not all(re.fullmatch(r"[\w.-]*", name) for name in names) or type(seed) is not int:
            raise ValueError("a name is no word, or the seed no number")
        if fold is not None and type(fold) is not int:
            raise ValueError("the fold is no number")
        made_by, overrides = recipe(config), config["composition"]["overrides"]
        if not all(isinstance(override, str) for override in overrides):
            raise ValueError("an override is no text")
    except FileNotFoundError:
        raise ValueError("config.yaml is missing") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError("config.yaml can't be read") from error
    problem, result = _result(run)
    return RunRecord(run, dataset, variant, variant, made_by, split, seed, refit, fold, problem, result, config)


def _result(run: Run) -> tuple[str, dict[str, Any]]:
    """Why the run has no metrics, and the result of one that is finished."""
    try:
        result = run.result()
    except ValueError:
        return "damaged: result.json is no JSON, or lacks status", {}
    if result is None:
        return NOT_RUN, {}
    status = run.status()  # unlike result.json, knows whether a running one has been killed
    if status != "finished":
        return f"{status}: {result['error']}" if result.get("error") else status, {}
    if lacking := [key for key in REQUIRED if key not in result]:
        origin = f"format {result.get('format')}, written at commit {result.get('git_commit')}"
        return f"damaged or of another version: result.json ({origin}) lacks {', '.join(lacking)}", {}
    return "", result
