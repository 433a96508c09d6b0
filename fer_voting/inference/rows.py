"""Predictions as rows of a CSV or JSON Lines file, written while they are made.

A row is a face, a frame without a face, or something that cannot be read:

    input, frame, time_s, face_id, left, top, width, height, face_score, class, confidence, <class>..., vote_agreement,
    status

`status` is `ok`, `no_face` or `unreadable: <reason>`; cells that do not apply are empty (CSV) or null (JSON Lines).
"""

import contextlib
import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

from fer_voting.system.text import csv_safe

Row = Mapping[str, Any]

FRAME_COLUMNS = ("input", "frame", "time_s")
FACE_COLUMNS = ("face_id", "left", "top", "width", "height", "face_score", "class", "confidence")
LAST_COLUMNS = ("vote_agreement", "status")

FORMATS = (".csv", ".jsonl")


def probability_columns(class_names: Sequence[str]) -> list[str]:
    """The columns of the classes' probabilities: their names, with `_probability` where a row has that column."""
    taken = {*FRAME_COLUMNS, *FACE_COLUMNS, *LAST_COLUMNS}
    return [f"{name}_probability" if name in taken else name for name in class_names]


def columns(class_names: Sequence[str]) -> list[str]:
    """All columns, in order."""
    return [*FRAME_COLUMNS, *FACE_COLUMNS, *probability_columns(class_names), *LAST_COLUMNS]


class RowWriter:
    """Writes rows to a file; whatever stops the program, the file holds whole rows.

    A CSV file is also safe to open (`system.text.csv_safe`). JSON Lines holds names as they are, escaped as JSON does.

    Args:
        path: `.csv` or `.jsonl`, replaced if it exists; None: CSV on stdout.
        class_names: the K classes.

    Raises ValueError if `path` has another suffix.
    """

    def __init__(self, path: Path | None, class_names: Sequence[str]) -> None:
        if path is not None and path.suffix.lower() not in FORMATS:
            raise ValueError(f"`out` (={str(path)!r}) must end in {' or '.join(FORMATS)}")
        self.path = path
        self.columns = columns(class_names)
        self.rows = 0
        self._json = path is not None and path.suffix.lower() == ".jsonl"
        self._file: TextIO = sys.stdout
        self._whole_bytes = 0  # of the rows that were written

    def __enter__(self) -> Self:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8", newline="")
        if not self._json:
            self._write([dict(zip(self.columns, self.columns, strict=True))])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is not None:
            self._file.close()

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows; they are on their way to the disk when this returns."""
        rows = list(rows)
        self._write(rows)
        self.rows += len(rows)

    def _write(self, rows: Iterable[Row]) -> None:
        text = io.StringIO()
        if self._json:
            for row in rows:
                text.write(json.dumps({column: row.get(column) for column in self.columns}) + "\n")
        else:
            csv.writer(text, lineterminator="\n").writerows(
                [csv_safe(row.get(column)) for column in self.columns] for row in rows
            )
        try:
            self._file.write(text.getvalue())
            self._file.flush()
        except OSError:  # a full disk: the file keeps the rows before
            if self.path is not None:
                with contextlib.suppress(OSError):
                    self._file.close()  # tries to write the rest again
                os.truncate(self.path, self._whole_bytes)
            raise
        self._whole_bytes += len(text.getvalue().encode())
