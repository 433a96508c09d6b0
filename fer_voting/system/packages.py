"""The packages that an installation for prediction leaves out, and the line that installs them."""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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


def import_when_used(package: str, modules: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package that imports a public name when it is first used.

    Args:
        package: its name.
        modules: public name -> the module that defines it.
    """

    def get(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with whole_package():
            return getattr(importlib.import_module(modules[name]), name)

    return get
