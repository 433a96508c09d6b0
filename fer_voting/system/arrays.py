"""NumPy archives: written atomically, and read from files that anyone may have written."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_RATIO, ALWAYS_BYTES = 100, 2**26
"""An archive may unpack to that many times its size, and always to that many bytes: zeros shrink to a thousandth."""


def read_npz(path: Path, *needed: str) -> dict[str, NDArray[Any]]:
    """The arrays of a NumPy archive by name; no object in it is unpickled.

    Raises FileNotFoundError; ValueError that names the file if it is damaged, lacks one of the arrays `needed`, or
    unpacks to more than MAX_RATIO times its size.
    """
    with path.open("rb") as file:  # opened here, for np.load leaves open what it finds damaged
        try:
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > max(ALWAYS_BYTES, MAX_RATIO * path.stat().st_size):
                raise ValueError(f"it unpacks to {unpacked:,} bytes")
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        except Exception as error:  # zipfile and NumPy raise a type for each kind of damage
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise ValueError(f"{path} is damaged: {reason}") from error
    for name in (*found, *needed):
        if not isinstance(found.get(name), np.ndarray):  # what is no array comes as bytes
            raise ValueError(f"{path} is damaged: it lacks the array {name}")
    return found


def write_npz(path: Path, **arrays: NDArray[Any]) -> None:
    """A compressed NumPy archive that replaces `path` when it is complete. The folder is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}")
    with draft.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    draft.replace(path)
