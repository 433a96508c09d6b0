"""The configuration: the schema of its top level, composing it, and one-line errors of the command line.

Imports neither torch nor lightning, so that `--help` and a mistyped key are answered at once.
"""

import argparse
import difflib
import functools
import hashlib
import importlib
import inspect
import os
import re
import shlex
import sys
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from fer_voting.system.conf_folders import CONF_DIR, PACKAGE, add_config_dir, conf_dirs, options_of_group
from fer_voting.system.messages import exit_without_reader, set_up_messages
from fer_voting.system.packages import whole_package
from fer_voting.system.text import escape

with whole_package():
    import hydra
    from hydra import initialize_config_dir
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, Quote, QuotedString
    from hydra.errors import HydraException
    from hydra.utils import get_object, instantiate
    from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

ONE_LINE_VARIABLE = "FER_VOTING_ONE_LINE"
"""Set while a command runs whose user has not asked for tracebacks: its further ranks then show none either."""

HOW_TO_SEE_MORE = "(HYDRA_FULL_ERROR=1 in the environment shows the traceback)"


@dataclass
class Composition:
    """How a configuration came about: what `train` needs to name a run, and to name the runs that it needs.

    Attributes:
        overrides: what was typed, e.g. `["split=m1"]`.
        options: the option of each group, e.g. `{"split": "m1", "experiment": "null"}`.
    """

    overrides: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)


@dataclass
class Schema:
    """Keys of a configuration's top level; any other key is refused.

    Keys of the groups are checked by the constructors that the groups name.
    """

    dataset: Any = MISSING
    protocol: Any = MISSING
    split: Any = MISSING
    voting: Any = MISSING
    model: Any = MISSING
    target: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    scheduler: Any = MISSING
    augment: Any = MISSING
    mix: Any = MISSING
    distillation: Any = MISSING
    trainer: Any = MISSING
    logger: Any = None
    callbacks: Any = None
    seed: int = MISSING
    name: str | None = None
    output_dir: str = MISSING
    sweep: str | None = None
    threads: Any = "auto"
    jobs: Any = "auto"
    jobs_per_gpu: int = 1
    refit: bool = False
    selection: str | None = None
    compile: bool = False
    tf32: bool = False
    init_from: str | None = None
    init_missing_classes: str = MISSING
    continue_from: str | None = None
    plots: bool = True
    teacher: str | None = None
    composition: Composition = field(default_factory=Composition)


def _sweep_name() -> str:
    """Eight hexadecimal digits of the command line's values: the same command continues its own sweep."""
    words = sorted(word for word in sys.argv[1:] if "=" in word and not word.startswith("hydra."))
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]


def _fast_precision(of_other_gpus: str = "32-true") -> str:
    """`bf16-mixed` if this machine's GPU, or its processor where there is none, computes bfloat16; else `32-true`, or
    on a GPU `of_other_gpus`.

    Emulated bfloat16 is slower than float32. Not cached: a sweep's job resolves it on the machine that trains.
    """
    import torch

    if torch.cuda.is_available():
        supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if not supported:
            return of_other_gpus
    else:
        cpuinfo = Path("/proc/cpuinfo")  # Linux; no processor of macOS has the instructions
        supported = cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text().split()
    return "bf16-mixed" if supported else "32-true"


def _folder_name(root: Any) -> str:
    """The name of a data set in the folder `root`: the folder's, as far as a run's name may contain it.

    A name that loses characters gets a digest of the whole one, so that no two folders have one name. A folder that is
    called like another option of `dataset` is prefixed, so that their runs differ in name.
    """
    if root is None:
        return "folder"
    own = unicodedata.normalize("NFC", os.path.basename(os.path.abspath(os.path.expanduser(str(root)))))
    plain = "".join(c for c in unicodedata.normalize("NFKD", own) if not unicodedata.combining(c))
    name = re.sub(r"[^A-Za-z0-9._]+", "_", plain).strip("_.")[:40]
    if own and name != own:
        digest = hashlib.sha256(own.encode(errors="surrogateescape")).hexdigest()[:6]
        return f"{name or 'folder'}_{digest}"
    taken = options_of_group("dataset").keys() - {"folder"}
    return f"folder_{name}" if name in taken else name or "folder"


sys.path.append(str(PACKAGE / "plugins"))  # in which Hydra finds `hydra_plugins`: the launcher of local sweeps
ConfigStore.instance().store(name="schema", node=Schema)
OmegaConf.register_new_resolver("folder_name", _folder_name, replace=True)
# Cached: Hydra passes the cached value to the jobs of a sweep, whose own command lines differ.
OmegaConf.register_new_resolver("sweep_name", _sweep_name, use_cache=True, replace=True)
OmegaConf.register_new_resolver("choose", lambda condition, yes, no: yes if condition else no, replace=True)
OmegaConf.register_new_resolver("fast_precision", _fast_precision, replace=True)


TEXT_KEYS = frozenset(
    ("name", "sweep", "init_from", "teacher", "checkpoint", "project", "entity", "experiment", "run_name", "group")
)
PATH_KEYS = frozenset(
    ("output_dir", "out", "root", "cache_dir", "manifest", "save_dir", "dirpath", "default_root_dir")
) | {"init_from", "teacher", "continue_from", "checkpoint"}
"""Last words of the keys whose values are texts, or paths, whatever a value looks like."""


def quote(text: str) -> str:
    """`text` as a value of Hydra's command line that is this text."""
    return QuotedString(text, Quote.single).with_quotes()


def as_typed(override: str, sweeps: bool = True) -> str:
    """The override in Hydra's grammar, with the value of a text's key, or of a group, taken as it was typed.

    `name=1e3` -> `name='1e3'`: Hydra reads a number. `dataset.root=~/faces (1)` -> `dataset.root='/home/me/faces (1)'`:
    Hydra reads neither `~` nor parentheses. Several values of a sweep, lists, `null` and quoted texts stay as they are;
    for a path's key, only where a sweep is asked for, or the text is no path that exists.

    Args:
        sweeps: whether a comma may separate the values of jobs.
    """
    key, assigns, text = override.partition("=")
    last = key.lstrip("+").rpartition(".")[2]
    if last == "class_map" and _parse(text) is _UNREADABLE:
        return f"{key}={quote(text)}"  # names of classes that Hydra's grammar has no way to write; read as YAML
    if key.lstrip("+") == "dataset.group":  # a regular expression, with any of the grammar's characters
        quoted = text[:1] in ("'", '"') and isinstance(_parse(text), str)
        return override if quoted or text in ("", "null") else f"{key}={quote(text)}"
    is_group = any((folder / last).is_dir() for folder in conf_dirs()) and "." not in key
    if not assigns or key.startswith("~") or not (last in TEXT_KEYS | PATH_KEYS or is_group):
        return override
    if last in PATH_KEYS and (path := _path_as_typed(text, last in TEXT_KEYS or sweeps)) is not None:
        return f"{key}={path}"
    value = _parse(text)
    several = isinstance(value, ChoiceSweep) and value.simple_form and not set(text) & set("'\"[{(")
    parts = text.split(",") if several or value is _UNREADABLE else [text]
    return f"{key}={','.join(_part_as_typed(part.strip(), last in PATH_KEYS) for part in parts)}"


def _path_as_typed(text: str, must_exist: bool) -> str | None:
    """The path that a text is, quoted; None if it is quoted, nothing, `null`, or an interpolation or other values.

    Raises ValueError for a path that exists and has `${` in it: OmegaConf would replace that in each copy of the value.
    """
    if not text.strip() or text.strip() in ("null", "???") or (text[0] in "'\"" and isinstance(_parse(text), str)):
        return None
    path = os.path.expanduser(text)
    if os.path.lexists(path):
        if "${" in path:
            raise ValueError(
                f"{text}: a path with ${{ in it can't be an option's value: rename it, or give a link to it"
            )
        return quote(path)
    return None if must_exist or "${" in text else quote(path)


def _part_as_typed(text: str, is_path: bool) -> str:
    value = _parse(text)
    if value is _UNREADABLE or isinstance(value, int | float):  # bool is an int
        value, as_it_is = text, False
    else:
        as_it_is = True
    if is_path and isinstance(value, str) and value.startswith("~"):
        return quote(os.path.expanduser(value))
    if isinstance(value, str) and " " in value and text[0] not in "'\"":
        return quote(value)  # Hydra escapes blanks in the words of a job, which are then taken as typed
    return text if as_it_is else quote(text)


_UNREADABLE = object()


def _parse(text: str) -> Any:
    """Hydra's value of a text on the command line, or `_UNREADABLE`."""
    try:
        return OverridesParser.create().parse_override(f"key={text}").value()
    except HydraException:
        return _UNREADABLE


def _expand_home(config: DictConfig) -> DictConfig:
    """`config`, with a path's `~` replaced by the home folder: in values of files and of the environment, too."""
    for key in flatten(OmegaConf.to_container(config)):
        if key.rpartition(".")[2] in PATH_KEYS:
            try:
                value = OmegaConf.select(config, key)
            except OmegaConfBaseException:  # whoever uses the value reports it
                continue
            if isinstance(value, str) and value.startswith("~"):
                OmegaConf.update(config, key, os.path.expanduser(value))
    return config


@contextmanager
def _hydra() -> Iterator[list[str]]:
    """Use the running command's Hydra, or initialise one for this context. Yields the overrides that it needs."""
    if GlobalHydra.instance().is_initialized():
        yield []
    else:
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            own = [f"'file://{folder.absolute()}'" for folder in conf_dirs()[1:]]
            yield [f"hydra.searchpath=[{','.join(own)}]"] if own else []


def compose(overrides: Sequence[str] = (), config_name: str = "config") -> DictConfig:
    """The configuration of these overrides, e.g. `["split=m2", "model.width=16"]`, as a command's function gets it."""
    overrides = [as_typed(override, sweeps=False) for override in overrides]
    with _hydra() as own:
        config = hydra.compose(config_name, [*overrides, *own], return_hydra_config=True)
    node = config.hydra
    # Hydra's own node resolves only while a command runs.
    rest = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    return with_composition(_expand_home(rest), overrides, node.runtime.choices)


def with_composition(config: DictConfig, overrides: Sequence[str], choices: Mapping[str, str | None]) -> DictConfig:
    """`config` with its `composition`, from Hydra's records of the overrides and of each group's option."""
    options = {str(group): option or "null" for group, option in choices.items()}
    OmegaConf.update(config, "composition", {"overrides": list(overrides), "options": options}, force_add=True)
    return config


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key: `{"a": {"b": 1}}` -> `{"a.b": 1}`. Lists are leaves."""
    if not isinstance(config, dict):
        return {prefix: config}
    return {
        key: leaf
        for name, node in config.items()
        for key, leaf in flatten(node, f"{prefix}.{name}" if prefix else str(name)).items()
    }


@functools.lru_cache
def _targets(group: str, folders: tuple[Path, ...]) -> frozenset[str]:
    """Every `_target_` in the options of a group in these folders."""
    return frozenset(
        target
        for folder in folders
        for path in (folder / group).rglob("*.yaml")
        for target in _targets_in(OmegaConf.load(path))
    )


def _targets_in(node: Any) -> Iterator[str]:
    if isinstance(node, DictConfig | ListConfig):
        node = OmegaConf.to_container(node)
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from _targets_in(value)


def refuse_foreign_code(node: Any, group: str, where: Any) -> None:
    """Raises ValueError unless all that a node names as `_target_` is named in the group's files here (`conf_dirs`).

    To be asked before Hydra instantiates what a file says that anyone may have written (a run's config.yaml, a
    sweep's overrides): Hydra calls whatever `_target_` names.

    Args:
        where: the file, for the message.
    """
    for target in _targets_in(node):
        if target not in _targets(group, tuple(conf_dirs())):
            raise ValueError(f"{where}: `_target_` (={target[:80]!r}) is not of conf/{group} here: it is not called")


def make(node: Mapping[str, Any], **arguments: Any) -> Any:
    """The object that a node of the configuration describes, given plain containers. `arguments` are further ones, and
    override the node's."""
    return instantiate(node, **arguments, _convert_="all")


def remake(node: Mapping[str, Any], group: str, config_file: Path, **arguments: Any) -> Any:
    """The object that a node describes which a run recorded in `config_file`.

    Raises ValueError if the node names code that the group's files here don't: a run's folder may come from anyone.
    """
    refuse_foreign_code(node, group, config_file)
    if "_target_" not in node:
        raise ValueError(f"{config_file}: `{group}` lacks `_target_`")
    return make(node, **arguments)


def command(job: str | Callable[[DictConfig], Any], config_name: str = "config") -> None:
    """Run a command of Hydra: compose the configuration, then import and call `job`.

    Args:
        job: `module:function`, or a function.
        config_name: the command's file in conf/.

    `--help` and a mistyped key are answered before the import, which takes seconds. An error ends the command with one
    line on stderr and exit code 1; HYDRA_FULL_ERROR=1 shows the traceback.
    """
    set_up_messages()
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1" and ONE_LINE_VARIABLE not in os.environ
    _use_config_dir()
    sweeps = bool({"-m", "--multirun"} & set(sys.argv[1:]))

    def give_up(error: Exception) -> NoReturn:
        if isinstance(error, BrokenPipeError):
            exit_without_reader()
        if wants_traceback:
            raise error
        sys.exit(f"error: {explain(error, config_name, sys.argv[1:])}\n{HOW_TO_SEE_MORE}")

    try:
        sys.argv[1:] = [word if word.startswith("-") else as_typed(word, sweeps) for word in sys.argv[1:]]
    except ValueError as error:
        give_up(error)

    def run(config: DictConfig) -> Any:
        try:
            config = _expand_home(config)
            if callable(job):
                return job(config)
            module, _, function = job.partition(":")
            return getattr(importlib.import_module(module), function)(config)
        except Exception as error:  # Hydra would print it, too
            give_up(error)

    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise its errors instead of printing them
    if not wants_traceback:
        os.environ[ONE_LINE_VARIABLE] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name=config_name)(run)()
    except KeyboardInterrupt:
        sys.exit("\ninterrupted: the same command goes on from the last checkpoint")
    except Exception as error:
        give_up(error)
    finally:
        if not wants_traceback:
            del os.environ["HYDRA_FULL_ERROR"], os.environ[ONE_LINE_VARIABLE]


def _use_config_dir() -> None:
    """Make Hydra's `--config-dir DIR` and FER_VOTING_CONFIG_DIR one, for this process and those that it starts."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_config_dir(parser)
    known, others = parser.parse_known_args(sys.argv[1:])
    folders = [known.config_dir] if known.config_dir is not None else conf_dirs()[1:]
    # First: Lightning appends overrides to the command line of further ranks, and Hydra wants all overrides together.
    sys.argv[1:] = [*(word for folder in folders for word in ("--config-dir", str(folder))), *others]


def explain(error: BaseException, config_name: str = "config", overrides: Sequence[str] = ()) -> str:
    """One line that describes an error to the user of a command; of a chain of Hydra's errors, its root cause.

    Args:
        config_name: the command's configuration file, whose keys are suggested for one that does not exist.
        overrides: words of the command line; the options of groups among them decide which keys exist.
    """
    root = error
    while type(root).__module__.startswith("hydra") and root.__cause__ is not None:
        root = root.__cause__
    text = re.sub(r"\s*\n\s*", "; ", str(root if root.args else error).strip())
    if match := re.search(
        r"Could not find '(\w+)/([^']*)'; Available options in '\w+':; (.*); Config search path", text
    ):
        text = f"there is no {match[1]}={match[2]}; there are {match[3].replace('; ', ', ')}"
    elif match := re.search(r"Key '([^']+)' (?:is )?not in", text) or re.search(r"Could not override '([^']+)'", text):
        full_key = of_key[1] if (of_key := re.search(r"full_key: (\S+?);?(?:\s|$)", text)) else match[1]
        added = re.search(r"To append to your config use (\+.*)", str(error))
        text = f"there is no key '{match[1]}'{_hint(full_key, added and added[1], config_name, overrides)}"
    elif match := re.search(r"'hydra/launcher/(submitit)_\w+'|Unknown plugin class : .*\b(ray)_launcher", text):
        extra = "slurm" if match[1] else "ray"
        text = f"this launcher needs more: pip install 'fer_voting[{extra}]', in a checkout pip install -e '.[{extra}]'"
    elif match := re.search(
        r"Ambiguous value for argument '(.*?)';|Sweep parameters '(.*?)' requires --multirun", text
    ):
        text = f"{match[1] or match[2]} names several values: add -m to run a job for each"
    elif re.match(r"DataLoader (worker|timed out)", text):
        text += "; dataset.num_workers=0 loads the batches without workers"
    elif "Config group override must be a string or a list" in text:
        text = "a group takes the name of an option: e.g. logger=none, or ~logger to leave the group out"
    elif not isinstance(root, ValueError | OSError):
        text = f"{type(root).__name__}: {text}"
    return escape(text)


def _hint(full_key: str, added: str | None, config_name: str, overrides: Sequence[str]) -> str:
    """The words to type for a key that does not exist: an option that has it, itself with a `+`, or a similar key.

    Args:
        added: Hydra's word that adds the key.
    """
    parent, _, name = full_key.rpartition(".")
    group = full_key.partition(".")[0]
    options = options_of_group(group)
    try:
        choices = [
            word for word in overrides if options_of_group(word.partition("=")[0]).keys() & {word.partition("=")[2]}
        ]
        config = compose(choices, config_name)
        node = OmegaConf.select(config, parent) if parent else config
        known = sorted(str(key) for key in node)
        have_it = [o for o in options if OmegaConf.select(compose([f"{group}={o}"], config_name), full_key) is not None]
    except Exception:  # the error above is the one to report
        return ""
    to_add = f"to add it, type {shlex.quote(added)}" if added and parent else ""
    target = str(node.get("_target_", "")) if parent else ""
    arguments, takes_any = _arguments(target) if target else (set(), True)
    hint = f" in {parent or 'the configuration'}"
    if name in arguments and to_add:
        return f"{hint}, but {target} takes it: {to_add}"
    if have_it:
        hint += f"; {' and '.join(f'{group}={option}' for option in have_it)} {'have' if have_it[1:] else 'has'} it"
    elif close := difflib.get_close_matches(name, {*known, *arguments}, n=1):
        hint += f"; did you mean '{close[0]}'?"
    hint += f" (known: {', '.join(known) or 'none'})"
    return f"{hint}; {to_add}" if to_add and takes_any else hint


def _arguments(target: str) -> tuple[set[str], bool]:
    """The names of the arguments of what `target` names, and whether it takes any others."""
    try:
        parameters = inspect.signature(get_object(target)).parameters.values()
    except Exception:  # it cannot be imported, or has no signature
        return set(), True
    named = {one.name for one in parameters if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    return named, any(one.kind is one.VAR_KEYWORD for one in parameters)
