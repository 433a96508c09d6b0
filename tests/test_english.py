"""The part of the rules for English (docs/contributing.md) that a program can check, in docstrings and comments."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
FOLDERS = ("conf", "docs", "experiments", "fer_voting", "tests")

RULES = {
    "begins without its noun": r"^(?:Of|What|Those|As|Beyond|For)\b",
    "`alone` means only": r"\balone(?=[.,;)])",
    "`for` means because": r", for (?:it|they|there|nothing|what|(?:its|their|the|an?|no) \w+ (?:is|are|has|may))\b",
    "`that of` has no noun": r"(?<!than )(?<!from )(?<!as )\bthat of\b",
}
NOT_YET = ("tests/test_english.py",)
"""Files that are not checked."""


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each docstring, of attributes too, with single spaces."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.lineno, " ".join(node.value.value.split())


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of each comment; consecutive lines of comments are one."""
    block: list[str] = []
    for number, line in enumerate([*source.splitlines(), ""], 1):
        before, mark, text = line.partition("# ")
        own_line = bool(mark) and not before.strip()
        if block and not own_line:
            yield number - len(block), " ".join(block)
            block = []
        if own_line:
            block.append(text)
        elif mark and before.endswith(" "):
            yield number, text


def texts(path: Path) -> Iterator[tuple[int, str]]:
    source = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        yield from docstrings(source)
    yield from comments(source)


def faults(text: str) -> list[str]:
    return [rule for rule, pattern in RULES.items() if re.search(pattern, text)]


def test_docstrings_and_comments() -> None:
    wrong = []
    for path in sorted(path for folder in FOLDERS for path in (REPO / folder).rglob("*")):
        name = path.relative_to(REPO).as_posix()
        if path.suffix not in (".py", ".yaml") or name.startswith(NOT_YET) or "_build" in name:
            continue
        wrong += [f"{name}:{line}: {rule}: {text[:80]}" for line, text in texts(path) for rule in faults(text)]
    assert wrong == [], "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("Of a refit, whose length its vote decided, that vote alone.", 2),
        ("What a vote takes from validation images.", 1),
        ("the last, for it says that the rest is there", 1),
        ("Memory is that of a process of its own.", 1),
        ("Predictions for N images, for the table and for a network alone on its device.", 0),
        ("The difference from that of the other, for which two cores take a minute.", 0),
    ],
)
def test_rules(text: str, count: int) -> None:
    assert len(faults(text)) == count


def test_blocks_of_comments(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text('# One\n# block.\nx = 1  # of its own\n"""An attribute\'s\n   text."""\n# Two\n')
    assert list(texts(tmp_path / "a.py")) == [
        (4, "An attribute's text."), (1, "One block."), (3, "of its own"), (6, "Two"),
    ]  # fmt: skip
    (tmp_path / "a.yaml").write_text("# One\n# block.\nx: 1 # of its own\n")
    assert list(texts(tmp_path / "a.yaml")) == [(1, "One block."), (3, "of its own")]
