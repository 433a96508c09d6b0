"""Predictions as rows of a CSV or JSON Lines file, written while they are made; face boxes read from such a file.

A row is a face, a frame without a face, or something that cannot be read:

    input, frame, time_s, face_id, left, top, width, height, angle, face_score, <landmark>_x, <landmark>_y, ..., class,
    confidence, <class>..., <number>..., vote_agreement, status

`status` is `ok`, `no_face`, `unreadable: <reason>` or, for an annotated copy, `not_written: <reason>`; cells that do
not apply are empty (CSV) or null (JSON Lines).
"""

import contextlib
import csv
import io
import json
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.tables import decimal_number, open_table, whole_number
from fer_voting.inference.faces import FOUND
from fer_voting.inference.frames import Frame, Unreadable, reason_of
from fer_voting.inference.pipeline import Locate, RecognizedFrame
from fer_voting.system.text import csv_safe, escape

log = logging.getLogger("fer_voting.predict")

Row = Mapping[str, Any]

FRAME_COLUMNS = ("input", "frame", "time_s")
LANDMARK_COLUMNS = tuple(
    f"{point}_{axis}" for point in ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth") for axis in "xy"
)
FACE_COLUMNS = (
    "face_id", "left", "top", "width", "height", "angle", "face_score", *LANDMARK_COLUMNS, "class", "confidence",
)  # fmt: skip
_BOX = ("left", "top", "width", "height")
LAST_COLUMNS = ("vote_agreement", "status")

FORMATS = (".csv", ".jsonl")

COLUMN_NAMES: dict[str, dict[str, str]] = {
    "own": {},
    "fex": {
        "left": "FaceRectX", "top": "FaceRectY", "width": "FaceRectWidth", "height": "FaceRectHeight",
        "face_score": "FaceScore", "happy": "happiness", "sad": "sadness",
    },
    "fer": {"anger": "angry"},
}  # fmt: skip
"""Other programs' names of columns: py-feat's (`FEAT_FACEBOX_COLUMNS` and `FEAT_EMOTION_COLUMNS` in its feat/utils),
and the emotions of the package `fer`. Columns without one keep their own."""


def probability_columns(class_names: Sequence[str]) -> list[str]:
    """The columns of the classes' probabilities: their names, with `_probability` where a row has that column."""
    taken = {*FRAME_COLUMNS, *FACE_COLUMNS, *LAST_COLUMNS}
    return [f"{name}_probability" if name in taken else name for name in class_names]


def columns(class_names: Sequence[str], number_names: Sequence[str] = ()) -> list[str]:
    """All columns, in order."""
    return [*FRAME_COLUMNS, *FACE_COLUMNS, *probability_columns(class_names), *number_names, *LAST_COLUMNS]


def rows_of(item: RecognizedFrame | Unreadable) -> list[Row]:
    """The rows of a frame, at least one."""
    if isinstance(item, Unreadable):
        return [{"input": item.input, "frame": item.index, "status": f"unreadable: {escape(item.reason)}"}]
    frame, faces = item.frame, item.faces
    place = {
        "input": frame.input,
        "frame": frame.index,
        "time_s": None if frame.time_s is None else round(frame.time_s, 6),
    }
    rows: list[Row] = []
    for face, face_id in zip(faces.to_dict()["faces"], item.face_ids, strict=True):
        rows.append(place | {"face_id": face_id} | face_values(face) | {"status": "ok"})
    for problem in item.unreadable:
        rows += [{**row, **place} for row in rows_of(problem)]
    return rows or [place | {"status": "no_face"}]


def face_values(face: Mapping[str, Any]) -> dict[str, Any]:
    """A face of `Recognition.to_dict` by column, rounded; None where the detector gives none."""
    names, values = probability_columns(list(face["probabilities"])), face["probabilities"].values()
    found = {}
    if "box" in face:
        points = [None] * 10 if face["landmarks"] is None else [xy for point in face["landmarks"] for xy in point]
        found = {
            **dict(zip(_BOX, (round(side, 2) for side in face["box"]), strict=True)),
            "angle": round(face["angle"], 1),
            "face_score": face["face_score"] and round(face["face_score"], 4),
            **dict(zip(LANDMARK_COLUMNS, (xy and round(xy, 2) for xy in points), strict=True)),
        }
    return {
        **found,
        "class": face["class"],
        "confidence": None if face["class"] is None else round(face["confidence"], 6),
        **{name: round(value, 6) for name, value in zip(names, values, strict=True)},
        **{name: round(value, 6) for name, value in face.get("numbers", {}).items()},
        "vote_agreement": None if face["class"] is None else round(face["vote_agreement"], 4),
    }


def face_columns(class_names: Sequence[str], is_detected: bool, number_names: Sequence[str] = ()) -> list[str]:
    """The columns of `face_values`; of a face that was not detected, without those of the detector."""
    return [
        *(FACE_COLUMNS[1:] if is_detected else FACE_COLUMNS[-2:]),
        *probability_columns(class_names),
        *number_names,
        "vote_agreement",
    ]


def not_written(frame: Frame, error: Exception) -> Row:
    """The row of a frame whose annotated copy or explanation cannot be written."""
    return {"input": frame.input, "frame": frame.index, "status": f"not_written: {escape(reason_of(error))}"}


class RowWriter:
    """Writes rows to a file. After an interruption the file contains only complete rows.

    A CSV file is also safe to open (`system.text.csv_safe`). JSON Lines holds names as they are, escaped as JSON does.

    Args:
        path: `.csv` or `.jsonl`, replaced if it exists; None: CSV on stdout.
        class_names: the K classes.
        names: of the columns, of `COLUMN_NAMES`.
        number_names: of what the network predicts besides.

    Raises ValueError if `path` has another suffix, or there are no such names.
    """

    def __init__(
        self, path: Path | None, class_names: Sequence[str], names: str = "own", number_names: Sequence[str] = ()
    ) -> None:
        if path is not None and path.suffix.lower() not in FORMATS:
            raise ValueError(f"`out` (={str(path)!r}) must end in {' or '.join(FORMATS)}")
        self.path = path
        if names not in COLUMN_NAMES:
            raise ValueError(f"`columns` (={names!r}) must be {', '.join(COLUMN_NAMES)}")
        self.columns = columns(class_names, number_names)
        self._written = [COLUMN_NAMES[names].get(column, column) for column in self.columns]
        self._json = path is not None and path.suffix.lower() == ".jsonl"
        self._file: TextIO = sys.stdout
        self._whole_bytes = 0  # size of the complete rows in the file

    def __enter__(self) -> Self:
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("w", encoding="utf-8", newline="")
        if not self._json:
            self.write([dict(zip(self.columns, self._written, strict=True))])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is not None:
            self._file.close()

    def write(self, rows: Iterable[Row]) -> None:
        """Append rows and flush them."""
        text = io.StringIO()
        if self._json:
            for row in rows:
                values = map(row.get, self.columns)
                text.write(json.dumps(dict(zip(self._written, values, strict=True))) + "\n")
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
                    self._file.close()  # which tries to write the rest again
                os.truncate(self.path, self._whole_bytes)
            raise
        self._whole_bytes += len(text.getvalue().encode())


def read_boxes(path: Path, names: Sequence[str], align: bool = True) -> Locate:
    """Read faces from a CSV file: returns a function that maps a frame to its faces in the file.

    The file has the columns input, left, top, width, height (pixels), and may have frame (default 0), face_score,
    angle, landmarks and others, as the files of `predict` have, under any of `COLUMN_NAMES`. Rows without a box are
    left out. `match_names` says which input a row means; a warning counts the rows that mean none.

    Args:
        names: of the inputs, as `find_inputs` gives them.
        align: take the angles of the file; False: 0.

    Raises FileNotFoundError, or ValueError that names the line of what is not a box.
    """
    boxes: dict[str, list[tuple[int, list[float]]]] = defaultdict(list)
    own = {written: column for names in COLUMN_NAMES.values() for column, written in names.items()}
    with open_table(path, [*FRAME_COLUMNS, *FACE_COLUMNS, *LAST_COLUMNS, *own]) as table:
        table.columns = [own.get(name, name) for name in table.columns]
        table.require("input", *_BOX)
        for row in table.by_column():
            if row.get("status") not in (None, "", "ok"):
                continue
            try:
                box = [decimal_number(row[side] or "") for side in _BOX]
                score = decimal_number(row.get("face_score") or "nan")
                angle = decimal_number(row.get("angle") or "0") if align else 0.0
                landmarks = [decimal_number(row.get(column) or "nan") for column in LANDMARK_COLUMNS]
                if not np.isfinite([*box, angle]).all():
                    raise ValueError("a number of the box is not finite")
                boxes[row["input"] or ""].append(
                    (whole_number(row.get("frame") or "0"), [*box, score, angle, *landmarks])
                )
            except ValueError as error:
                raise ValueError(f"{path}, line {table.line}: {error}") from error
    meant = match_names(list(boxes), names, path.parent)
    if lost := [name for name in boxes if name not in meant]:
        rows, total = sum(len(boxes[name]) for name in lost), sum(map(len, boxes.values()))
        log.warning("%s: %d of %d boxes name no input, e.g. %s", path, rows, total, escape(lost[0]))
    found: dict[tuple[str, int], list[list[float]]] = defaultdict(list)
    for name, of_name in boxes.items():
        for frame_index, box in of_name if name in meant else ():
            found[meant[name], frame_index].append(box)

    def locate(frame: Frame) -> NDArray[np.float64]:
        return np.array(found.get((frame.input, frame.index), np.zeros((0, FOUND))))

    return locate


def match_names(written: Sequence[str], names: Sequence[str], folder: Path) -> dict[str, str]:
    """Which input each name in a file of boxes means: `{written: name}`, without those that mean none.

    A name means the input of the same path, counted from the working directory or, where there is no such file, from
    the file's `folder`; as it is, or as this program writes it into a CSV file. A name of no file that is here means
    the input, among those that no other name means, with the same file name, or the same but for its suffix; of
    several, the one with the most folders in common. Backslashes count as slashes, and letters in either case are the
    same.
    """
    real = {os.path.realpath(name): name for name in names}
    escaped = {csv_safe(name): name for name in names}
    meant: dict[str, str] = {}
    for text in written:
        path = next((path for path in (Path(text), folder / text) if _exists(path)), folder / text)
        name = escaped.get(text) or real.get(os.path.realpath(path) if "\0" not in text else text)
        if name is not None:
            meant[text] = name
    rest = set(names) - set(meant.values())
    lost = [text for text in written if text not in meant and not _exists(Path(text)) and not _exists(folder / text)]
    for key in (_tail, lambda name: [os.path.splitext(part)[0] for part in _tail(name)]):
        by_last: dict[str, list[str]] = defaultdict(list)
        for name in rest - set(meant.values()):
            by_last[key(str(csv_safe(name)))[0]].append(name)
        claims: dict[str, list[tuple[int, str]]] = defaultdict(list)
        for text in lost:
            lengths = [(_common(key(text), key(str(csv_safe(name)))), name) for name in by_last[key(text)[0]]]
            longest = [name for length, name in lengths if length == max(lengths)[0]]
            if text not in meant and len(longest) == 1:
                claims[longest[0]].append((max(lengths)[0], text))
        for name, texts in claims.items():
            best = [text for length, text in texts if length == max(texts)[0]]
            if len(best) == 1:
                meant[best[0]] = name
    return meant


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have
        return False


def _tail(name: str) -> list[str]:
    """The parts of a path, the last first."""
    return name.casefold().replace("\\", "/").split("/")[::-1]


def _common(parts: Sequence[str], others: Sequence[str]) -> int:
    """How many parts are the same before the first that differs."""
    return next(
        (i for i, (a, b) in enumerate(zip(parts, others, strict=False)) if a != b), min(len(parts), len(others))
    )
