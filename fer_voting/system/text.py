"""Text that anyone may have written (file names, class names, messages): made safe to print and to open."""

import hashlib
import os
import unicodedata
from pathlib import Path

MOST_NAME_BYTES = 255
"""The longest name of a file that Linux and macOS take."""
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
