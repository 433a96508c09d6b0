"""The API reference: one Markdown page a package, which lets autodoc read the docstrings of its modules."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator

PACKAGE = "fer_voting"


def pages() -> dict[str, str]:
    """Package -> its page, for the package and every package in it."""
    names = [PACKAGE, *(module.name for module in pkgutil.walk_packages(_path(PACKAGE), f"{PACKAGE}."))]
    public = [name for name in names if not any(part.startswith("_") for part in name.split("."))]
    packages = [name for name in public if hasattr(importlib.import_module(name), "__path__")]
    return {package: "\n".join(_page(package, public)) for package in packages}


def _path(package: str) -> list[str]:
    return list(importlib.import_module(package).__path__)


def _page(package: str, names: list[str]) -> Iterator[str]:
    modules = [name for name in names if name.rpartition(".")[0] == package and not _is_package(name)]
    yield f"# `{package}`\n"
    yield from _automodule(package)
    for name in modules:
        yield f"## `{name}`\n"
        yield from _automodule(name)


def _is_package(name: str) -> bool:
    return hasattr(importlib.import_module(name), "__path__")


def _automodule(name: str) -> Iterator[str]:
    """Members that the module itself defines; what it only passes on stands on its own module's page."""
    yield "```{eval-rst}"
    yield f".. automodule:: {name}"
    if _defines_something(name):
        yield "   :members:"
        if _is_package(name):
            yield "   :ignore-module-all:"
    yield "```\n"


def _defines_something(name: str) -> bool:
    module = importlib.import_module(name)
    members = [getattr(module, n) for n in getattr(module, "__all__", dir(module)) if not n.startswith("_")]
    return any(inspect.getmodule(member) in (module, None) for member in members)
