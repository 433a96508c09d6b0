"""A table of text, as Markdown."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fer_voting.system.text import escape


@dataclass(frozen=True)
class Table:
    """Header, and rows of as many cells; the first `left` columns are text, the others numbers."""

    header: list[str]
    rows: list[list[str]]
    left: int = 1

    def add_column(self, header: str, cells: Sequence[str]) -> None:
        self.header.append(header)
        for row, cell in zip(self.rows, cells, strict=True):
            row.append(cell)


def markdown(table: Table) -> str:
    """The table as Markdown, its columns aligned.

    Names in it may be anyone's: they end no cell, and none is an HTML tag.
    """
    header, *rows = ([_cell(text) for text in row] for row in [table.header, *table.rows])
    widths = [max(3, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            c.ljust(w) if i < table.left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    ruler = ["-" * w if i < table.left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(header), line(ruler), *map(line, rows)]) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", escape(text).replace("|", r"\|"))
