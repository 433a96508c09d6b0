"""The configuration reference: every group, option, key, default and comment of conf/, as Markdown."""

import inspect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml
from hydra.utils import get_object

COMMANDS = {"config": "train"}
"""A YAML file at the top of conf/ -> the command that reads it; one that is not named here has the command's name."""


HYDRAS = ("_target_", "_partial_")
"""Keys that tell Hydra what to construct, and how."""


@dataclass(frozen=True)
class Key:
    """A key of a YAML file: dotted name, default as it is written, and what its comment says ("" if nothing)."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Option:
    """A YAML file: its leading comment, the files that its defaults list names, its target and its keys."""

    path: Path
    about: str
    includes: list[str]
    target: str | None
    keys: list[Key]


def read_option(path: Path) -> Option:
    """The content of one YAML file of conf/."""
    text = path.read_text()
    lines = text.splitlines()
    header = itertools.takewhile(lambda line: line.startswith("#"), lines)
    about = [line.lstrip("# ") for line in header if not line.startswith("# @package")]
    root = yaml.compose(text)
    keys = list(_keys(root, lines)) if isinstance(root, yaml.MappingNode) else []
    values = yaml.safe_load(text) or {}
    includes = [_include(entry) for entry in values.get("defaults", []) if entry not in ("_self_", "schema")]
    keys = [_constructed(key) for key in keys]
    kept = [key for key in keys if key.name.split(".")[0] != "defaults" and key.name.split(".")[-1] not in HYDRAS]
    meanings = _argument_meanings(values.get("_target_"))
    kept = [Key(key.name, key.default, key.meaning or meanings.get(key.name, "")) for key in kept]
    return Option(path, _paragraphs(about), includes, values.get("_target_"), kept)


def _paragraphs(lines: list[str]) -> str:
    """The leading comment: a command that fills a line becomes a block, the other lines flow."""
    text = ""
    for line in lines:
        if re.match(r"([A-Z_]+=\S+ )*python -m \S", line) and not line.endswith((".", ":")) and ": " not in line:
            text = f"{text.rstrip()}\n\n```text\n{line}\n```\n\n"
        else:
            text += f"{_inline_commands(line)} "
    return text.strip()


def _constructed(key: Key) -> Key:
    """The name and the class of a nested node whose target this is, and a description of the class."""
    name = key.name.removesuffix("._target_")
    if name == key.name:
        return key
    return Key(name, key.default, (inspect.getdoc(get_object(key.default)) or "").partition("\n")[0])


def _include(entry: str | dict[str, str | None]) -> str:
    if isinstance(entry, str):
        return entry.removesuffix("@_here_")
    (group, option), *_ = entry.items()
    return f"{group.removeprefix('override ').lstrip('/')}={'null' if option is None else option}"


def _keys(node: yaml.MappingNode, lines: list[str], prefix: str = "") -> Iterator[Key]:
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode) and value.value and not value.flow_style:
            yield from _keys(value, lines, f"{name}.")
        else:
            yield Key(name, _default(value, lines), _comment(value, lines))


def _default(value: yaml.Node, lines: list[str]) -> str:
    """The value as it is written in the file; a block of several lines becomes an ellipsis."""
    start, end = value.start_mark, value.end_mark
    if start.line == end.line:
        return lines[start.line][start.column : end.column].strip()
    return "…"


def _comment(value: yaml.Node, lines: list[str]) -> str:
    line, column = value.end_mark.line, value.end_mark.column
    match = re.match(r"\s*#\s*(.*)", lines[line][column:]) if line < len(lines) else None
    return match[1] if match and value.start_mark.line == line else ""


def _argument_meanings(target: str | None) -> dict[str, str]:
    """Argument -> what the docstring of the constructor, or of one of its base classes, says of it."""
    if target is None:
        return {}
    found = get_object(target)
    meanings: dict[str, str] = {}
    for owner in inspect.getmro(found) if inspect.isclass(found) else (found,):
        if owner.__module__.startswith("fer_voting"):
            meanings = _arguments(inspect.getdoc(owner) or "") | meanings
    return meanings


def _arguments(docstring: str) -> dict[str, str]:
    """The entries of a docstring's `Args:` section."""
    section = re.search(r"^Args:\n((?: {4}.*\n?|\n)+)", docstring, flags=re.MULTILINE)
    entries = re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", section[1] if section else "", flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for names, text in entries for name in names.split(", ")}


def configuration_reference(conf: Path) -> str:
    """The reference of the folder `conf` as one Markdown page."""
    commands = sorted(conf.glob("*.yaml"), key=lambda path: (path.stem != "config", path.stem))
    groups = sorted({path.parent for path in conf.rglob("*/*.yaml")})
    options = {path: read_option(path) for path in (*commands, *conf.rglob("*/*.yaml"))}
    known = _known_meanings(conf, options)
    pages = ["# Configuration reference\n", INTRODUCTION]
    for path in commands:
        pages.append(f"## `fer_voting.{COMMANDS.get(path.stem, path.stem)}`: the top level\n")
        pages += _section(options[path], "", known)
    for folder in groups:
        group = folder.relative_to(conf).as_posix()
        shared = group.endswith("/shared")
        pages.append(f"## `{group}`{': keys that several options include' if shared else ''}\n")
        for path in sorted(folder.glob("*.yaml")):
            pages.append(f"### `{group}{'/' if shared else '='}{path.stem}`\n")
            pages += _section(options[path], _prefix(conf, path), known)
    return "\n".join(pages)


def _prefix(conf: Path, path: Path) -> str:
    """The prefix of a file's keys on the command line."""
    group = path.parent.relative_to(conf).as_posix()
    package = re.match(r"# @package (\S+)", path.read_text())
    if package or group == ".":
        return "" if package is None or package[1] == "_global_" else f"{package[1]}."
    return f"{group.removesuffix('/shared').replace('/', '.')}."


def _known_meanings(conf: Path, options: dict[Path, Option]) -> dict[str, str]:
    """Key as it is typed -> its meaning where it is defined, for files that set it without a comment of their own."""
    known: dict[str, str] = {"split.name": OWN_NAME, "voting.name": OWN_NAME}
    for path, option in options.items():
        prefix = _prefix(conf, path)
        known = {prefix + name: text for name, text in _argument_meanings(option.target).items()} | known
    for path, option in options.items():
        if path.parent.name == "shared" or path.stem in DEFINING:
            known |= {_prefix(conf, path) + key.name: key.meaning for key in option.keys if key.meaning}
    return known


DEFINING = ("config", "paper", "adam", "faces", "auto")
"""Options whose comments say what a key means; the others say what is special about their value."""
OWN_NAME = "the option's own name"

INTRODUCTION = """\
This page is generated from the files in `conf/` when the documentation is built. A *group* is a folder of `conf/`, an
*option* is a file in it: `group=option` on the command line. A key is set by `key=value`; the tables show keys as they
are typed. The meaning is the file's own comment, or what the constructor's docstring says of the argument.

`${...}` in a default is the value of another key; `${oc.env:NAME,null}` is the environment variable `NAME`, or nothing.
"""


def _section(option: Option, prefix: str, known: dict[str, str]) -> Iterator[str]:
    if option.about:
        yield option.about + "\n"
    about = []
    if option.target:
        about.append(f"Constructs `{option.target}`.")
    if option.includes:
        about.append(f"Includes {_listed(option.includes)}.")
    # Hydra's own settings in a command's file are not meant to be changed.
    plumbing = [key.name for key in option.keys if not prefix and key.name.startswith("hydra.") and not key.meaning]
    if plumbing and not all(name.startswith("hydra.sweeper") for name in plumbing):
        about.append(f"Sets Hydra's {_listed(plumbing)}.")
    else:
        plumbing = []
    if about:
        yield " ".join(about) + "\n"
    if keys := [key for key in option.keys if key.name not in plumbing]:
        yield ":::{container} keys\n"
        yield "| key | default | meaning |\n|---|---|---|"
        for key in keys:
            meaning = key.meaning or known.get(prefix + key.name, "–")
            yield f"| `{prefix}{key.name}` | {_code(key.default)} | {_cell(meaning)} |"
        yield "\n:::\n"


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|") if text else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _inline_commands(text: str) -> str:
    """A command within a sentence as inline code."""
    return text if "`" in text else re.sub(r"(python -m fer_voting\.\w+(?: [\w./@-]+=[^\s:]+| -m)*)", r"`\1`", text)
