"""Asserts of the package: they tell a type checker what holds, and check nothing that a user has typed."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "fer_voting"


def narrows_a_type(test: ast.expr) -> bool:
    """`x is not None`, or `isinstance(x, ...)`."""
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.IsNot) and ast.unparse(test.comparators[0]) == "None"
    return isinstance(test, ast.Call) and ast.unparse(test.func) == "isinstance"


def test_an_assert_narrows_a_type() -> None:
    others = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {ast.unparse(node)}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Assert) and not narrows_a_type(node.test)
    ]
    assert not others
