"""README and documentation as text: their code blocks and the commands that they show."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from helpers.train import REPO
from markdown_it import MarkdownIt
from markdown_it.token import Token

README = REPO / "README.md"
PAGES = (README, *sorted((REPO / "docs").glob("*.md")))

COMMAND_IN_TEXT = re.compile(r"(?:[A-Z_]+=\S+ )*(?:python -m (?:fer_voting|experiments)\.|make [a-z])")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its caption ("" without one) and its text."""

    language: str
    caption: str
    text: str


@dataclass(frozen=True)
class Command:
    """A command that a page shows: the words, the variables typed before them, and whether it stands in a sentence."""

    page: str
    words: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    in_text: bool = False

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [_block(token) for token in MarkdownIt().parse(page.read_text()) if token.type == "fence"]


def _block(token: Token) -> Block:
    directive = re.fullmatch(r"\{code-block\} (\w+)", token.info.strip())
    if directive is None:
        return Block(token.info.strip(), "", token.content)
    options = re.match(r"(?::\w+:.*\n)*", token.content)
    assert options is not None
    caption = re.search(r"^:caption: (.*)$", options[0], flags=re.MULTILINE)
    return Block(directive[1], caption[1] if caption else "", token.content[options.end() :])


def lines_in_blocks(page: Path) -> Iterator[str]:
    """The commands of a page's blocks: `$ ` lines of console blocks, all lines of bash blocks."""
    for block in blocks(page):
        text = re.sub(r" *\\\n *", " ", block.text)
        if block.language == "console":
            yield from (line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))
        elif block.language == "bash":
            yield from (line for line in text.splitlines() if line and not line.startswith("#"))


def lines_in_text(page: Path) -> Iterator[str]:
    """The commands in a page's inline code."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text()):
        for child in token.children or ():
            if child.type == "code_inline" and COMMAND_IN_TEXT.match(child.content):
                yield child.content


def parse(page: str, line: str, in_text: bool = False) -> Command:
    """The command that a line of a shell is."""
    words = shlex.split(line)
    environment = []
    while words and (variable := re.fullmatch(r"([A-Z_]+)=(.*)", words[0])):
        environment.append((variable[1], variable[2]))
        words.pop(0)
    return Command(page, tuple(words), tuple(environment), in_text)


def commands() -> list[Command]:
    """The commands of all pages but docs/extending.md, whose commands need what the page adds; each of them once."""
    found: dict[tuple[str, ...], Command] = {}
    for page in PAGES:
        if page.name != "extending.md":
            typed = [parse(page.name, line) for line in lines_in_blocks(page)]
            for command in [*typed, *(parse(page.name, line, in_text=True) for line in lines_in_text(page))]:
                if command.words not in found or found[command.words].in_text:
                    found[command.words] = command
    return list(found.values())
