"""Licences of the dependencies: none is unknown or restrictive without a reason."""

from email.message import Message

import pytest

from experiments.licences import EXPLAINED, Licence, licence_text, licences, main


def test_every_dependency_is_free_or_explained(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    assert "torch " in capsys.readouterr().out
    found = list(licences())
    assert len(found) > 50
    assert [each.package for each in found if not (each.is_free or each.reason)] == []


def test_each_reason_is_of_a_package_that_needs_one() -> None:
    needed = {each.reason for each in licences() if not each.is_free}
    assert {reason for reason in EXPLAINED.values() if reason not in needed} == set()


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("MIT", True),
        ("Apache-2.0 AND (BSD-3-Clause OR GPL-2.0-only)", True),
        ("(MIT OR Apache-2.0) AND GPL-2.0-only", False),
        ("GPL-3.0 OR MIT", True),
        ("MIT AND MPL-2.0", False),
        ("BSD License; GNU General Public License (GPL)", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("AGPL-3.0-only", False),
        ("Creative Commons Attribution-NonCommercial", False),
        ("Other/Proprietary License", False),
        ("", False),
    ],
)
def test_what_is_free(text: str, free: bool) -> None:
    assert Licence("x", "1", text).is_free == free


def test_a_licence_is_found_wherever_a_package_says_it() -> None:
    metadata = Message()
    assert licence_text(metadata) == ""
    metadata["License"] = "UNKNOWN"
    assert licence_text(metadata) == ""
    metadata.replace_header("License", "=====\nSome terms\nmore")
    assert licence_text(metadata) == "Some terms"
    metadata["Classifier"] = "License :: OSI Approved"
    metadata["Classifier"] = "License :: OSI Approved :: MIT License"
    assert licence_text(metadata) == "MIT License"
    metadata["License-Expression"] = "ISC"
    assert licence_text(metadata) == "ISC"
