"""The packages that an installation for prediction leaves out, and the line that installs them."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

WHOLE = "pip install fer_voting"
"""Installs what training needs; requirements-predict.txt has what prediction needs."""


@contextmanager
def whole_package() -> Iterator[None]:
    """Imports of packages that only the whole installation has: where one is missing, the error says how to install it.

    Raises ModuleNotFoundError; a command of this package is ended with one line instead.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "fer_voting":
            raise
        text = f"this needs the package {error.name}, which an installation for prediction lacks: {WHOLE}"
        command = getattr(sys.modules["__main__"], "__spec__", None)
        if command is not None and command.name.startswith("fer_voting."):
            sys.exit(f"error: {text}")
        raise ModuleNotFoundError(text, name=error.name) from error
