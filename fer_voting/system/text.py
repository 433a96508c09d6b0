"""Text that anyone may have written (file names, class names, messages): made safe to print and to open."""

import hashlib
import os
import unicodedata
from pathlib import Path
from typing import Any

MOST_NAME_BYTES = 255
"""The longest name of a file that Linux and macOS take."""
MAX_CLASSES, MAX_NAME_LENGTH = 1000, 200
"""The most classes of a network, and the longest name of one: far beyond what is of use."""
_FORMULA_STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""A spreadsheet takes a cell that starts with one of these for a formula; the wide ones where Japanese is written."""


def escape(text: str) -> str:
    """`text` with control characters and undecodable bytes as backslash escapes: safe to print, always one line."""
    return "".join(
        char.encode("unicode_escape").decode() if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") else char
        for char in text
    )


def escape_mathtext(text: str) -> str:
    """`text` for a plot, in which matplotlib takes what is between dollars for a formula."""
    return escape(text).replace("$", r"\$")


def counted(count: int, noun: str, verbs: str = "") -> str:
    """`1 image`, `2,000 images`; with the verbs "lies/lie": `1 image lies`, `2,000 images lie`."""
    one, _, more = verbs.partition("/")
    verb = one if count == 1 else more
    return f"{count:,} {noun}{'' if count == 1 else 's'}{verb and ' '}{verb}"


def shortened(text: str, most: int = 40) -> str:
    """`text`; if it has more than `most` characters, its beginning and its end."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def fitting(path: Path) -> Path:
    """`path`; if its name is too long for a file, its beginning, a digest of all of it, and its suffix."""
    name = os.fsencode(path.name)
    if len(name) <= MOST_NAME_BYTES:
        return path
    end = f"-{hashlib.blake2b(name, digest_size=8).hexdigest()}{path.suffix if len(path.suffix) < 10 else ''}"
    return path.with_name(name[: MOST_NAME_BYTES - len(os.fsencode(end))].decode(errors="ignore") + end)


def csv_safe(value: object) -> object:
    """A cell of a CSV file that no spreadsheet takes for a formula; what is not text is left as it is.

    Text is escaped; where it would be a formula it gets `./` in front, which names the same file.
    """
    if not isinstance(value, str):
        return value
    return escape(f"./{value}" if value.startswith(_FORMULA_STARTS) else value)


def check_output_names(class_names: Any, number_names: Any = ()) -> None:
    """Raises ValueError unless both are lists or tuples of different names of one line each: 2 to MAX_CLASSES names of
    classes, or none where there are numbers."""
    for key, names, least in (("class_names", class_names, 2), ("number_names", number_names, 1)):
        is_left_out = key == "number_names" or bool(number_names)
        if not isinstance(names, list | tuple) or not (
            least <= len(names) <= MAX_CLASSES or (is_left_out and not names)
        ):
            raise ValueError(f"`{key}` must be a list of {least} to {MAX_CLASSES} names")
        for name in names:
            check_name(name)
    outputs = [*class_names, *number_names]
    if len(set(outputs)) < len(outputs):
        raise ValueError(f"`class_names` (={outputs}) must differ")


def check_name(name: Any) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ValueError(f"a name (={str(name)[:40]!r}) must be a line of 1 to {MAX_NAME_LENGTH} letters")
