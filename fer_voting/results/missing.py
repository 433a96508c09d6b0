"""What was not run: the command that runs it, and what it will cost."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.utils import instantiate

from fer_voting.config import CONF_DIR, compose_config
from fer_voting.models.cost import count_gmacs
from fer_voting.results.load import RunRecord, Runs, Section
from fer_voting.results.paper import paper
from fer_voting.runs.identity import resolve
from fer_voting.runs.plan import words_without
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.messages import duration

__all__ = ["Missing", "audit_command", "missing", "training_words"]

ASSUMED_GMACS_PER_SECOND = 450
"""What a GPU like the paper's trains where no run tells: the RTX 2070 Super's 9 TFLOP/s in float32, used to 30 %; a
training step takes three forward passes of two operations a multiply-accumulate."""
ASSUMPTION = "assumed: a GPU like the paper's in float32, 450 GMACs a second"

SET_HERE = ("split", "seed", "refit", "voting", "output_dir", "name", "sweep", "logger", "hydra")


@dataclass(frozen=True)
class Missing:
    """`jobs` runs that are not there, the command that makes them, and its estimated cost.

    Attributes:
        seconds: None where nothing tells how many images an epoch has.
        basis: what the estimate rests on.
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


def missing(runs: Runs, section: Section, splits: Sequence[str], refit: str = "") -> Missing | None:
    """The command for the runs of `splits` that give no figures; None if all are there or under way.

    It names whole splits and seeds, for a sweep does only what is not finished yet.
    """
    holes = {split: [n for n, why in section.holes(split, refit).items() if why != "running"] for split in splits}
    gaps = {split: names for split, names in holes.items() if names}
    if not gaps:
        return None
    seeds = [s for s in section.seeds if any(section.run_name(x, s, refit) in gaps[x] for x in gaps)]
    words = training_words(runs, section)
    sweep = [*words, f"split={','.join(gaps)}", f"seed={','.join(map(str, seeds))}"]
    if refit:
        sweep += ["refit=true", *([f"voting={refit}"] if refit != "soft" else [])]
    command = " ".join(["python -m fer_voting.train -m", *map(shlex.quote, sweep)])
    jobs = sum(len(names) for names in gaps.values())
    estimates = [(len(names), _estimate(runs, section, words, split)) for split, names in gaps.items()]
    basis = "; ".join(dict.fromkeys(basis for _, (_, basis) in estimates))
    seconds = [count * cost for count, (cost, _) in estimates if cost is not None]
    return Missing(jobs, command, sum(seconds) if len(seconds) == len(estimates) else None, basis)


def audit_command(runs: Runs, section: Section) -> str:
    """The command that counts the data set's images."""
    words = [f"dataset={section.dataset}", *_files_and_output(runs, section)]
    return " ".join(["python -m fer_voting.audit", *map(shlex.quote, words)])


def training_words(runs: Runs, section: Section) -> list[str]:
    """The words that make a run of the section, but for split, seed and refit."""
    words = _words_of_a_sweep(runs, section)
    if words is None:
        words = [f"dataset={section.dataset}"]
        if (CONF_DIR / "experiment" / f"{section.setting}.yaml").exists():
            words.insert(0, f"experiment={section.setting}")
        elif section.setting:
            words.append(f"<what makes the setting {section.setting}>")
        return words + _files_and_output(runs, section)
    return words + _output(runs)


def _files_and_output(runs: Runs, section: Section) -> list[str]:
    root = _root(section)
    return [*([f"dataset.root={root}"] if root else []), *_output(runs)]


def _output(runs: Runs) -> list[str]:
    return [] if runs.output_dir.as_posix() == "outputs" else [f"output_dir={runs.output_dir}"]


def _words_of_a_sweep(runs: Runs, section: Section) -> list[str] | None:
    """The words of a sweep that made one of the section's runs, if its record is there."""
    names = {record.name for record in section.records.values()}
    for folder in sorted((runs.output_dir / "sweeps").glob("*/")):
        try:
            jobs = Sweep(folder).jobs()
        except (OSError, ValueError, KeyError, TypeError):
            continue  # a sweep without a record of itself; the runs tell for themselves
        for job in jobs:
            if job["run"] in names:
                return [w for w in words_without(job["overrides"], *SET_HERE) if not _only_sweeps(w, section.setting)]
    return None


def _only_sweeps(word: str, setting: str) -> bool:
    """Whether it is an experiment that only says what to sweep over, and is therefore no part of the setting."""
    return word.startswith("experiment=") and not f"{setting}-".startswith(f"{word.removeprefix('experiment=')}-")


def _root(section: Section) -> str | None:
    """Where the section's runs had their files, DIR if there are none yet; None if the data set needs no such word."""
    for record in section.records.values():
        return record.config["dataset"].get("root")
    config = _composed([f"dataset={section.dataset}"])
    if config is None:
        return "DIR"
    named_by_the_environment = config["dataset"].get("root") is not None
    return "DIR" if "root" in config["dataset"] and not named_by_the_environment else None


def _composed(words: Sequence[str]) -> dict[str, Any] | None:
    """The configuration that words give; None if they are not a whole configuration."""
    try:
        return resolve(compose_config([word for word in words if not word.startswith("<")]))
    except Exception:  # whatever Hydra finds wrong, it will say to whoever types the command
        return None


# --- what a run costs -------------------------------------------------------------------------------------------


def _estimate(runs: Runs, section: Section, words: Sequence[str], split: str) -> tuple[float | None, str]:
    """Seconds of one run, and what the estimate rests on: the nearest finished run, or an assumption."""
    if same := section.finished(split, refit=None):
        return sum(r.result["seconds"] for r in same) / len(same), "as its finished runs took"
    config = _composed([*words, f"split={split}"])
    if config is None:
        return None, "cost unknown: the setting's words are not known here"
    net = instantiate(config["model"], split=split, num_classes=config["dataset"]["classes"] or 7)
    gmacs = count_gmacs(net, config["dataset"]["size"])
    if siblings := section.finished(refit=None):
        costs = [r.result["seconds"] / r.result["gmacs"] for r in siblings]
        return gmacs * sum(costs) / len(costs), "from the finished runs of other splits, by multiply-accumulates"
    images = _images_an_epoch(runs, section.dataset, config)
    if images is None:
        return None, "cost unknown: how many images there are is not known before a first run"
    rate, basis = _gmacs_per_second(runs)
    return gmacs * images * config["trainer"]["max_epochs"] / rate, basis


def _images_an_epoch(runs: Runs, dataset: str, config: dict[str, Any]) -> int | None:
    for record in runs.records:
        if record.dataset == dataset and not record.problem:
            return sum(record.result["counts"]["train"].values())
    if "train_size" in config["dataset"]:
        return config["dataset"]["train_size"]
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


def _gmacs_per_second(runs: Runs) -> tuple[float, str]:
    """The fastest rate that a finished run of any data set trained at, or an assumed one."""
    finished = [r for r in runs.records if not r.problem and r.result["images_per_second"]]
    if not finished:
        return ASSUMED_GMACS_PER_SECOND, ASSUMPTION

    def rate(record: RunRecord) -> float:
        return record.result["images_per_second"] * record.result["gmacs"]

    best = max(finished, key=rate)
    return rate(best), f"at the rate of {best.name} on {best.result['device']}, {rate(best):.0f} GMACs a second"
