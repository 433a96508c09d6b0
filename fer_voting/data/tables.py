"""Tables and other text files of data sets, as spreadsheets, Windows and libraries write them."""

import codecs
import contextlib
import csv
import itertools
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from fer_voting.data.index import folded
from fer_voting.system.text import escape

SEPARATORS = ",;\t"
MAX_ANNOTATION_BYTES = 1_000_000
Row = dict[str | None, str | None]
"""A row of a table by the names of its columns."""


def file_in(folder: Path, *names: str) -> Path | None:
    """The file in `folder` with the first of these names that there is, in any case of its letters."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if not folder.is_dir():
        return None
    files = {path.name.casefold(): path for path in sorted(folder.iterdir(), reverse=True)}
    found = (files.get(name.casefold()) for name in names)
    return next((path for path in found if path is not None and path.is_file()), None)


def small_file(path: Path) -> Path:
    """`path`. Raises OSError; ValueError if it is no file (a pipe would wait for ever) or larger than an annotation."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_ANNOTATION_BYTES:
        raise ValueError(f"an annotation is a file of at most {MAX_ANNOTATION_BYTES:,} bytes")
    return path


@contextlib.contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8, or in UTF-16 if it begins with a byte order mark, as Windows' programs write it.

    Raises OSError; ValueError that names the file, here or while it is read, if it is neither, or no CSV.
    """
    with path.open("rb") as binary:
        is_utf16 = binary.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    with path.open(newline="", encoding="utf-16" if is_utf16 else "utf-8-sig") as file:
        try:
            yield file
        except csv.Error as error:
            raise ValueError(f"{path} is not a CSV file: {error}") from error
        except UnicodeError as error:
            raise ValueError(f"{path} is not text in UTF-8: {error}") from error


@contextlib.contextmanager
def open_table(path: Path, known: Sequence[str] = (), headless: bool = False) -> Iterator["Table"]:
    """A CSV file as a `Table`. Raises as `open_text`."""
    with open_text(path) as file:
        yield Table(path, file, known, headless)


class Table:
    """The rows of a CSV file as spreadsheets and libraries write it.

    Cells are separated by commas, semicolons or tabs: by the one with which the first line has most of the known
    columns; else, where a table may be headless, about as many cells as there are known columns, or most cells. A
    column is known in any case of its letters, with blanks about it, and with blanks, `_` or `-` in it or not; it
    is then called as the caller spells it.

    Args:
        known: names of columns.
        headless: a first row without any of the known names is a row as others, and the columns are the known ones.

    Raises ValueError if two columns have one known name.

    Attributes:
        columns: the names.
    """

    def __init__(self, path: Path, file: TextIO, known: Sequence[str], headless: bool) -> None:
        self.path = path
        names = {plain_name(name): name for name in known}
        head = file.readline()

        expected = len(known) if headless and known else len(head)

        def fitness(separator: str) -> tuple[int, int]:
            row = next(csv.reader([head], delimiter=separator, skipinitialspace=True), [])
            return len({*map(plain_name, row)} & names.keys()), -abs(len(row) - expected)

        separator = max(SEPARATORS, key=fitness)
        # A cell may begin with a blank, e.g. a file's name, unless those of the header do.
        blanks = f"{separator} " in head
        reader = csv.reader(itertools.chain([head], file), delimiter=separator, skipinitialspace=blanks)
        first = next(reader, [])
        self.columns = [names.get(plain_name(cell), cell.strip()) for cell in first]
        if twice := [name for name in known if self.columns.count(name) > 1]:
            raise ValueError(f"{path} has the column {twice[0]} twice: {escape(', '.join(first))[:200]}")
        self._first, self._reader = [], reader
        if headless and not set(self.columns) & set(known):
            self.columns, self._first = list(known), [first]

    def __iter__(self) -> Iterator[list[str]]:
        """The cells of each row that is not empty, without the header."""
        return (row for row in itertools.chain(self._first, self._reader) if row)

    def by_column(self) -> Iterator[Row]:
        """Each row by its columns: a missing cell is None; None names the cells beyond the columns, if any."""
        for row in self:
            more = [(None, ",".join(row[len(self.columns) :]))] if len(row) > len(self.columns) else []
            yield dict([*itertools.zip_longest(self.columns, row[: len(self.columns)]), *more])

    @property
    def line(self) -> int:
        """The number of the line that was read last, from 1."""
        return self._reader.line_num

    def require(self, *names: str) -> None:
        """Raises ValueError if there is no column of one of these names."""
        if missing := sorted(set(names).difference(self.columns)):
            shown = escape(", ".join(self.columns))[:200]
            raise ValueError(f"{self.path} lacks the columns {', '.join(missing)}; it has {shown}")


def plain_name(name: str) -> str:
    """The name of a column, or another word of a table, without what its spellings differ in."""
    return re.sub(r"[\s_-]+", "", folded(name))


def whole_number(text: str) -> int:
    """The number that a label is: `3`, also as `3.0` or `3,0`, which tables that were saved again have.

    Raises ValueError for anything else.
    """
    if (match := re.fullmatch(r"\s*([+-]?\d{1,9})([.,]0*)?\s*", text)) is None:
        raise ValueError(f"{text!r} is no whole number")
    return int(match[1])


def decimal_number(text: str) -> float:
    """The number in a cell, whose decimal point may be a comma. Raises ValueError."""
    return float(text.replace(",", "."))
