"""A table of text, as Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fer_voting.system.atomic import write_atomically
from fer_voting.system.text import csv_safe, escape

NUMBER = re.compile(
    r"(?<![\w.,])([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e-?\d+)?(?: ± \d+(?:\.\d+)?)?)(?![\w.]|,\d)", re.ASCII
)
"""A number within a cell, with its standard deviation: `3,500`, `+1.23`, `2e-5`, `63.50 ± 0.21`."""
LATEX_PREAMBLE = r"\usepackage{booktabs, siunitx}"
"""Needed by a document that takes a table in."""
_SIUNITX = (
    "retain-explicit-plus, retain-zero-uncertainty, separate-uncertainty, detect-weight, "
    "group-digits=integer, group-separator={,}"
)
_LATEX_NAMES = {"\\": "backslash", "~": "asciitilde", "^": "asciicircum", "<": "less", ">": "greater", "|": "bar"}
_LATEX_NAMES |= {"`": "asciigrave"}
_LATEX = {char: rf"\text{name}{{}}" for char, name in _LATEX_NAMES.items()} | {char: f"\\{char}" for char in "{}$&#_%"}


@dataclass(frozen=True)
class Table:
    """Header, and rows of as many cells; the first `left` columns are text, the others numbers.

    Names in it may be anyone's, in every form: they end no cell, and are no tag, command or formula.

    Attributes:
        best: headers of the columns whose highest number LaTeX has in bold.
    """

    header: list[str]
    rows: list[list[str]]
    left: int = 1
    best: set[str] = field(default_factory=set)

    def add_column(self, header: str, cells: Sequence[str], best: bool = False) -> None:
        self.header.append(header)
        self.best.update([header] if best else [])
        for row, cell in zip(self.rows, cells, strict=True):
            row.append(cell)

    def markdown(self) -> str:
        """The table as Markdown, its columns aligned."""
        header, *rows = ([_markdown(text) for text in row] for row in [self.header, *self.rows])
        widths = [max(3, *(len(row[i]) for row in [header, *rows])) for i in range(len(header))]

        def line(cells: Sequence[str]) -> str:
            padded = [
                c.ljust(w) if i < self.left else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths, strict=True))
            ]
            return "| " + " | ".join(padded) + " |"

        ruler = ["-" * w if i < self.left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
        return "\n".join([line(header), line(ruler), *map(line, rows)]) + "\n"

    def latex(self) -> str:
        r"""The table as a `tabular` for `\input`, with booktabs' rules and siunitx's numbers; see LATEX_PREAMBLE.

        pdfTeX knows Latin names only; XeTeX, LuaTeX and Tectonic know all that their font has.
        """
        numbers = range(self.left, len(self.header))
        cells = [[_latex(cell, i in numbers) for i, cell in enumerate(row)] for row in self.rows]
        for i in (i for i in numbers if self.header[i] in self.best):
            values = [_value(row[i]) for row in self.rows]
            highest = max((value for value in values if value is not None), default=None)
            if len({*values} - {None}) > 1:
                for row in (row for row, value in zip(cells, values, strict=True) if value == highest):
                    row[i] = rf"\textbf{{{row[i]}}}"

        def line(cells: Sequence[str]) -> str:
            text = " & ".join(cells)
            return ("{}" if text.startswith(("[", "*")) else "") + text + r" \\"  # else an option of the line before

        return "\n".join(
            [
                rf"\begingroup\sisetup{{{_SIUNITX}}}",
                rf"\begin{{tabular}}{{{'l' * self.left}{'r' * len(numbers)}}}",
                *(r"\toprule", line([_latex(text) for text in self.header]), r"\midrule", *map(line, cells)),
                *(r"\bottomrule", r"\end{tabular}", r"\endgroup"),
                "",
            ]
        )

    def csv(self) -> str:
        """The table as CSV: cells as in Markdown, without separators of thousands."""
        file = io.StringIO()
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(map(csv_safe, self.header))
        rows.writerows([*map(csv_safe, row[: self.left]), *map(_csv_number, row[self.left :])] for row in self.rows)
        return file.getvalue()

    def write(self, path: Path, title: str) -> list[str]:
        """Write the table as LaTeX and as CSV; names of the files.

        Args:
            path: of both, without a suffix.
        """
        title = escape(title)
        texts = {".tex": f"% {title}\n% {LATEX_PREAMBLE}\n{self.latex()}", ".csv": self.csv()}
        for suffix, text in texts.items():
            with write_atomically(path.with_name(path.name + suffix)) as file:
                file.write(text)
        return [path.name + suffix for suffix in texts]


def write_tables(stem: Path, tables: Iterable[tuple[str, Table]]) -> list[str]:
    """Write tables, each with its title, as LaTeX and CSV; names of the files.

    The first is STEM.tex and STEM.csv, the second STEM-2.tex, and so on; those of an earlier call are
    removed.
    """
    for path in stem.parent.iterdir() if stem.parent.is_dir() else ():
        if re.fullmatch(rf"{re.escape(stem.name)}(-\d+)?\.(tex|csv)", path.name):
            path.unlink()
    names = []
    for number, (title, table) in enumerate(tables, 1):
        names += table.write(stem.with_name(stem.name + (f"-{number}" if number > 1 else "")), title)
    return names


def _markdown(text: str) -> str:
    return re.sub(r"<(?=[A-Za-z/!?])", r"\\<", escape(text).replace("|", r"\|"))


def _latex(text: str, has_numbers: bool = False) -> str:
    pieces = NUMBER.split(escape(text)) if has_numbers else [escape(text)]
    return "".join(
        rf"\num{{{piece.replace(',', '').replace('±', '+-')}}}" if i % 2 else _latex_text(piece)
        for i, piece in enumerate(pieces)
    )


def _latex_text(text: str) -> str:
    escaped = "".join(_LATEX.get(char, char) for char in text)
    return re.sub(r"(?<=([-',]))(?=\1)", "{}", escaped)  # TeX joins two of these to another character


def _csv_number(text: str) -> object:
    """A cell of a number, which may begin with its sign, where `csv_safe` would see a formula."""
    pieces = NUMBER.split(text)
    plain = "".join(piece.replace(",", "") if i % 2 else piece for i, piece in enumerate(pieces))
    return plain if re.fullmatch(r"[\w (),]*", "".join(pieces[::2])) else csv_safe(plain)


def _value(text: str) -> float | None:
    """The number that a cell begins with."""
    number = NUMBER.match(text)
    return float(number[1].split(" ")[0].replace(",", "")) if number else None
