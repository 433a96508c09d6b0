"""A table of text, as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Table", "markdown"]


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
    """The table as Markdown, its columns aligned."""
    widths = [max(3, *(len(row[i]) for row in [table.header, *table.rows])) for i in range(len(table.header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            c.ljust(w) if i < table.left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    ruler = ["-" * w if i < table.left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    return "\n".join([line(table.header), line(ruler), *map(line, table.rows)]) + "\n"
