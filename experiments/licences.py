"""The licence of every installed dependency: `make licences`.

Reads what the packages of constraints.txt say of themselves (their metadata: licence expression, classifiers, or the
licence's first line). Exit code 1 if one names no licence, or one that is neither in FREE nor explained in EXPLAINED.
"""

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from typing import Any

from experiments.pages import REPO
from fer_voting.results.markdown import Table, markdown

FREE = re.compile(
    r"(osi approved :: )?(3-clause )?(0?bsd|mit|apache|psf|python|isc|zlib|cc0|bsl|hpnd|unlicense|public domain"
    r"|llvm-exception)\b.*",
    re.IGNORECASE,
)
"""Licences that let anyone use, change and pass on a work, if its notice stays."""

MPL = "MPL 2.0: changes of its own files must be published; using it asks for nothing"
NVIDIA = "NVIDIA's terms: free of charge, not free software; torch's build for GPUs loads it"
EXPLAINED = {
    "certifi": MPL,
    "docutils": "public domain and BSD, but for an editor's mode under the GPL, which is not used",
    "hypothesis": f"{MPL}; for tests",
    "pathspec": f"{MPL}; for building",
    "tqdm": MPL,
    "cuda-toolkit": NVIDIA,
    "nvidia-": NVIDIA,
}
"""Name, or beginning of names -> why a licence that is not in FREE is no hindrance."""


@dataclass(frozen=True)
class Licence:
    package: str
    version: str
    text: str
    """As the package says; "" if it says nothing."""

    @property
    def reason(self) -> str:
        """Why it may be used where it is not free by itself."""
        return next((why for name, why in EXPLAINED.items() if _matches(self.package, name)), "")

    @property
    def is_free(self) -> bool:
        return _is_free(self.text)


def _is_free(text: str) -> bool:
    """Of `A AND B` both must be in FREE; of `A OR B` one."""
    text = re.sub(
        r"\(([^()]* (?:or|and) [^()]*)\)", lambda m: "MIT" if _is_free(m[1]) else "no", text, flags=re.IGNORECASE
    )
    return any(
        all(FREE.fullmatch(part.strip()) for part in re.split(r" and | with |; ", each, flags=re.IGNORECASE))
        for each in re.split(r" or ", text, flags=re.IGNORECASE)
    )


def _matches(package: str, name: str) -> bool:
    return package.startswith(name) if name.endswith("-") else package == name


def plain_name(name: str) -> str:
    """As PEP 503 compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_text(metadata: Any) -> str:
    """The licence expression, else the classifiers, else the first line of the licence."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    classifiers = [
        str(c).split(" :: ")[-1] for c in metadata.get_all("Classifier", []) if str(c).startswith("License ::")
    ]
    if named := [c for c in classifiers if c != "OSI Approved"]:
        return "; ".join(named).replace("Historical Permission Notice and Disclaimer", "HPND")
    lines = [line.strip() for line in str(metadata.get("License") or "").splitlines() if line.strip(" =")]
    return "" if not lines or lines[0] == "UNKNOWN" else lines[0][:60]


def pinned() -> set[str]:
    lines = (REPO / "constraints.txt").read_text().splitlines()
    return {plain_name(line.partition("==")[0]) for line in lines if "==" in line}


def licences() -> Iterator[Licence]:
    """Of the installed packages that constraints.txt names, by name."""
    installed = {plain_name(found.metadata["Name"]): found for found in distributions()}
    for name in sorted(pinned() & installed.keys()):
        yield Licence(name, installed[name].version, licence_text(installed[name].metadata))


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    found = list(licences())
    rows = [[each.package, each.version, each.text or "unknown", "" if each.is_free else each.reason] for each in found]
    print(markdown(Table(["package", "version", "licence", "why it may be used"], rows, left=4)))
    unexplained = [each.package for each in found if not (each.is_free or each.reason)]
    restricted = [each.package for each in found if not each.is_free]
    print(f"{len(found)} packages, {len(found) - len(restricted)} with a free licence, {len(restricted)} explained")
    if unexplained:
        sys.exit(f"error: without a licence that is known to be free, and without a reason: {', '.join(unexplained)}")


if __name__ == "__main__":
    main()
