"""Every command that README and documentation show is run on tiny data, or checked where it needs what nobody ships.

Training commands on drawn faces are trained with tiny sizes, under the name that they have as they are shown; the
commands that read runs then find them. A command in a sentence, with a placeholder (DIR, NAME, …), of another data set,
of a launcher or of several devices is composed, planned and its parts constructed; tests of their own run those.
"""

import argparse
import functools
import importlib
import itertools
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hydra as hydra_package
import pytest
import torch
from helpers.composed import composed
from helpers.doc_pages import PAGES, README, Command, blocks, commands
from helpers.train import REPO
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import instantiate
from omegaconf import OmegaConf

from fer_voting.config import CONF_DIR, compose, make
from fer_voting.config import command as run_command
from fer_voting.data.faces.renderer import render_faces
from fer_voting.experiment import make_loggers, train
from fer_voting.runs.naming import settle
from fer_voting.runs.sweeps import Sweep

PLACEHOLDER = re.compile(r"\b(COMMIT|DIR|NAME|FILE|TEAM|RUN|RUNS|OWNER)\b|\.\.\.")
OTHER_PROGRAMS = {"pip", "wandb", "tensorboard", "mlflow", "source", "git"}
LONG = {
    "fer_voting.pack",
    "fer_voting.search",
    "experiments.table2",
    "experiments.bench.network",
    "experiments.bench.video",
    "experiments.average",
    "experiments.distillation",
    "tests.scale.run",
    "experiments.bench.gpu",
    "experiments.dashboard",
    "tests.chaos.run",
    "tests.fuzz.run",
}
"""Modules whose command is only parsed here: their own tests run them."""
SMALL = (
    "dataset=faces", "dataset.train_size=28", "dataset.val_size=7", "dataset.test_size=7", "dataset.size=24",
    "dataset.batch_size=14", "trainer.max_epochs=1",
)  # fmt: skip

COMMANDS = commands()

# The same filter as in fer_voting.system.messages: the launcher's schema is meant to be found by its name.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:\s*'hydra/launcher/ray' is validated against:UserWarning"),
]


class Parsed(Exception):
    """Raised in place of what a command does with its parsed arguments."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are typed."""
    return tmp_path_factory.mktemp("typed")


@pytest.fixture(autouse=True)
def typed_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


# --- what a command means -----------------------------------------------------------------------------------------


@functools.cache
def python_commands(command: Command) -> list[Command]:
    """The command itself, or those of a make target's recipe, as `make -n` prints them."""
    if command.words[0] == "python":
        return [command]
    done = subprocess.run(
        ["make", "-n", "-C", str(REPO), "--no-print-directory", *command.words[1:]],
        env={**os.environ, **dict(command.environment), "MAKEFLAGS": "", "PYTHON": "python3"},  # which it looks for
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    variables = tuple(tuple(word.split("=", 1)) for word in command.words[1:] if "=" in word)
    matches = re.findall(r"^\.venv/bin/python (-m (?:fer_voting|experiments|tests)\..*)", done.stdout, re.MULTILINE)
    words = [("python", *shlex.split(line)) for line in matches]
    return [Command(command.page, each, variables, command.in_text) for each in words]  # type: ignore[arg-type]


def module_and_words(command: Command) -> tuple[str, list[str]]:
    assert command.words[:2] == ("python", "-m"), command
    return command.words[2], list(command.words[3:])


def config_name(module: str) -> str | None:
    """The file of conf/ that a module's command reads; None if it reads none."""
    name = {"fer_voting.train": "config"}.get(module, module.removeprefix("fer_voting."))
    return name if (CONF_DIR / f"{name}.yaml").is_file() else None


def jobs(words: list[str], config: str = "config") -> list[list[str]]:
    """The words of each job of a command that reads `config`."""
    flags = {word for word in words if word.startswith("-")}
    assert flags <= {"-m", "--help", "--cfg", "--prune", "--remove"}, flags
    words = [word for word in words if "=" in word]
    if "-m" not in flags:
        return [words]
    params = sweeper_params(config, tuple(word for word in words if word.startswith("experiment=")))
    values = [
        [f"{one.get_key_element()}={value}" for value in one.sweep_string_iterator()]
        if one.is_sweep_override()
        else [one.input_line or ""]
        for one in OverridesParser.create().parse_overrides([*params, *words])
    ]
    return [[word for word in job if not word.startswith("hydra")] for job in itertools.product(*values)]


@functools.cache
def sweeper_params(config: str, words: tuple[str, ...]) -> list[str]:
    """The words of a sweep that its configuration has, by its experiment."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        hydra = hydra_package.compose(config, list(words), return_hydra_config=True).hydra
    return [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]


def can_run(command: Command) -> bool:
    """Whether the command needs nothing but drawn faces, this process and little time."""
    module, words = module_and_words(command)
    if command.in_text or PLACEHOLDER.search(" ".join(command.words)) or module in LONG or "--help" in words:
        return False
    if words[-1:] == ["page"] or "onnx" in words:  # npm, seconds; tests/page and tests/commands run these
        return False
    if "-m" in words and module != "fer_voting.train":  # one job of it is a command that the page shows, too
        return False
    other = ("dataset=", "hydra/launcher", "trainer=ddp", "experiment=table3", "experiment=fer2013")
    return not any(word.startswith(other) and word != "dataset=faces" for word in words)


# --- checked ------------------------------------------------------------------------------------------------------


def is_run(command: Command) -> bool:
    """Whether a test below trains with exactly these words, or runs all that the command starts."""
    if command.words[:3] == ("python", "-m", "fer_voting.train"):
        return can_run(command) and list(command.words[3:]) in [job for job, _ in JOBS]
    if command.words[0] not in ("python", "make"):
        return False
    started, run = python_commands(command), {each.words for each in READING}
    return bool(started) and all(each.words in run for each in started)


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_is_one_that_exists(command: Command, monkeypatch: pytest.MonkeyPatch):
    if is_run(command):
        return
    for name, value in command.environment:
        monkeypatch.setenv(name, value)
    if command.words[0] in OTHER_PROGRAMS:
        assert command.words[0] != "pip" or pip_installs_what_there_is(command.words)
        return
    for each in python_commands(command):
        module, words = module_and_words(each)
        if (config := config_name(module)) is None:
            parse(module, words, monkeypatch)
        elif config != "config":
            job = jobs(words, config)[-1]
            with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
                composed = hydra_package.compose(config, job)
            node = OmegaConf.to_container(composed.dataset, resolve=True)
            construct(node | {"size": node["size"] or 48})  # evaluate: null, the checkpoint's
        else:
            job = jobs(words)[-1]
            planned = settle(compose(job))
            construct(planned["dataset"])
            with torch.device("meta"):
                net = instantiate(planned["model"], split=planned["split"]["name"], num_classes=7)
                instantiate(planned["optimizer"])(net.parameters())
            make_loggers(planned)  # without starting them


def construct(dataset: Any) -> None:
    """The data module, which checks its arguments without looking at the disk."""
    make({**dataset, "size": dataset["size"] or 48})  # null: as the checkpoint says


def parse(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's own parser accepts the words; nothing is done with them."""
    for method in ("parse_args", "parse_intermixed_args"):
        original = getattr(argparse.ArgumentParser, method)

        def parse_and_stop(self: argparse.ArgumentParser, *args: Any, original: Any = original) -> Any:
            original(self, *args)  # ends the command where it does not know a word
            raise Parsed

        monkeypatch.setattr(argparse.ArgumentParser, method, parse_and_stop)
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(Parsed):
        importlib.import_module(module).main()


def pip_installs_what_there_is(words: tuple[str, ...]) -> bool:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = {extra for word in words for extra in re.findall(r"\[([\w,]+)\]", word) for extra in extra.split(",")}
    files = [word for word in words if word.endswith(".txt")]
    return extras <= set(project["optional-dependencies"]) and all((REPO / file).is_file() for file in files)


# --- run ----------------------------------------------------------------------------------------------------------


Job = tuple[list[str], str | None]
"""A job's words, and the name that its command gives the sweep."""


def kind(words: list[str]) -> frozenset[str]:
    """The keys and options by which training commands differ here: all but split, seed, vote, tracker, sweep, and which
    network of timm it is and where it is cropped."""
    free = ("split", "seed", "voting", "logger", "sweep", "model.name", "model.crop_after")
    keys = {word: word.partition("=")[0] for word in words}
    return frozenset(word for word, key in keys.items() if key not in free and not key.startswith("logger."))


def training_jobs() -> list[Job]:
    """One job of each kind of training command that can be run; m3 where there is a choice."""
    found: dict[frozenset[str], Job] = {}
    for command in COMMANDS:
        if command.words[:3] == ("python", "-m", "fer_voting.train") and can_run(command):
            sweep = next((word.partition("=")[2] for word in command.words if word.startswith("sweep=")), None)
            for job in jobs(list(command.words[3:])):
                known = found.get(kind(job))
                if known is None or ("split=m3" in job and (sweep or not known[1])):
                    found[kind(job)] = job, sweep
    return list(found.values())


JOBS = training_jobs()


@functools.cache
def jobs_by_name() -> dict[str, Job]:
    """Not with JOBS, which is found when the tests are collected: each name takes a composition of Hydra's."""
    return {settle(composed(job))["name"]: (job, sweep) for job, sweep in JOBS}


@functools.cache
def trained(name: str) -> dict[str, Any]:
    """The result of the documented job that makes the run `name`, trained where it is first asked for.

    A run that no command reads is kept apart: the report of all runs would draw it.
    """
    small = [*SMALL, "model.width=4"]
    job, _ = jobs_by_name()[name]
    if "model=timm" in job:  # which has no width, and strides that take larger images
        parts = ("dataset.train_size=20", "dataset.val_size=10", "dataset.test_size=10", "dataset.batch_size=10")
        small = [*SMALL, "dataset.size=96", *parts]
    if not is_read(name):
        small.append("output_dir=apart")
    if finished := next((word.partition("=")[2] for word in job if word.startswith("continue_from=")), None):
        begun = [word for word in job if not word.startswith(("continue_from=", "trainer.max_epochs="))]
        epochs = train(composed(["logger=none", "plots=false", *begun, *small, f"name={finished}"]))["epochs"]
        small.append(f"trainer.max_epochs={epochs + 1}")
    words = ["logger=none", "plots=false", *job, *small, f"name={name}"]
    return train(composed(words))


def is_read(name: str) -> bool:
    """Whether a command reads the run, by its name or by its sweep."""
    return jobs_by_name()[name][1] is not None or any(named(command.words, name) for command in READING)


def named(words: Iterable[str], name: str) -> bool:
    return any(word in (name, f"checkpoint={name}") for word in words)


def reading_commands() -> list[Command]:
    """The commands that can be run and don't train: of each table's script, one that names its data set; not those
    whose words all stand in another."""
    every = [
        each for command in COMMANDS if command.words[0] in ("python", "make") for each in python_commands(command)
    ]
    found: dict[tuple[str, ...], Command] = {}
    for each in every:
        if each.words[2] != "fer_voting.train" and can_run(each):
            known = found.get(each.words)
            if known is None or not known.environment:
                found[each.words] = each
    return [each for words, each in found.items() if not any(set(words) < set(other) for other in found)]


READING = reading_commands()


def exit_code(module: str) -> Any:
    try:
        if (config := config_name(module)) is None:
            importlib.import_module(module).main()
        else:
            run_command(f"{module}:job", config)
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize("position", range(len(JOBS)), ids=[" ".join(job) for job, _ in JOBS])
def test_a_training_command_trains(position: int):
    result = trained(list(jobs_by_name())[position])
    assert result["status"] == "finished"
    assert set(result["votes"]) >= {"soft", "hard"} | ({"softprob"} if result["class_names"] else set())


@pytest.mark.parametrize("command", READING, ids=str)
def test_a_command_that_reads_runs_runs(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    module, words = module_and_words(command)
    for name, (job, sweep) in jobs_by_name().items():
        if sweep or named(words, name):
            trained(name)
        if sweep:
            typed = [{"overrides": job, "run": name, "voting": "soft"}]
            Sweep(Path("outputs/sweeps") / sweep).write([f"sweep={sweep}"], typed)
    for variable, value in command.environment:
        monkeypatch.setenv(variable, value)
    if config_name(module):
        words += [word for word in SMALL if word.startswith("dataset.")]
    if module == "fer_voting.evaluate" and "robustness=true" not in words:
        words.append("plots=false")  # one command draws them all
    monkeypatch.setattr(sys, "argv", [module, *words])
    assert exit_code(module) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (page.name, block.text)
        for page in PAGES
        for block in blocks(page)
        if block.language == "python" and not block.caption
    ],
)
def test_python_runs(page: str, text: str):
    tiny = ", ".join(repr(word) for word in (*SMALL, "model.width=4", "logger=none", "plots=false"))
    (photo,) = render_faces(0, [222], ["surprise"], [222], size=256)
    exec(compile(text.replace('"logger=none"', tiny), page, "exec"), {"photo": photo})


# --- the README ---------------------------------------------------------------------------------------------------


def test_the_readme_is_short_enough_to_be_read():
    assert len(README.read_text().splitlines()) <= 150


def test_a_table_in_a_console_block_says_what_was_recorded():
    recorded = "\n".join(path.read_text() for path in (REPO / "experiments/recorded").rglob("*.md"))
    for page in PAGES:
        rows = [line for block in blocks(page) if block.language == "console" for line in block.text.splitlines()]
        assert [row for row in rows if row.startswith("|") and row not in recorded] == [], page.name


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README.read_text()))))
def test_a_link_of_the_readme_leads_to_a_file(link: str):
    assert (REPO / link).exists()


def test_the_page_on_installation_lists_every_extra():
    extras = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = re.findall(r"^\| `(\w+)` \|", (REPO / "docs/install.md").read_text(), flags=re.MULTILINE)
    assert set(extras) <= set(listed)
