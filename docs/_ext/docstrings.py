"""Sphinx extension: what the package's docstrings leave to the reader's eye, said in reStructuredText."""

import re
from typing import Any

from sphinx.application import Sphinx

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Kinds|Example|Note)s?:$")

of_values: dict[str, list[str]] = {}


def mark_blocks(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Make an indented block after an empty line a literal one, unless it is within a section such as `Args:`."""
    marked: list[str] = []
    in_section = in_block = False
    for line in lines:
        indented = line.startswith("    ")
        if line and not indented:
            in_section, in_block = bool(SECTION.match(line)), False
        elif indented and not in_section and not in_block and marked and not marked[-1]:
            in_block = True
            if not any(previous.endswith("::") for previous in marked[-2:]):
                marked += ["::", ""]
        marked.append(line)
    lines[:] = marked
    if what in ("attribute", "data", "property"):
        of_values[name] = marked


def keep_colons(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Undo napoleon's reading of a value's first line, where the text before a colon would be the value's type."""
    lines[:] = of_values.pop(name, lines)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", mark_blocks, priority=400)  # napoleon's own is at 500
    app.connect("autodoc-process-docstring", keep_colons, priority=600)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
