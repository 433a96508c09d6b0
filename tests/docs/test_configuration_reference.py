"""The generated configuration reference holds every key, default and comment of conf/."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from helpers.train import REPO

from fer_voting.config import CONF_DIR, flatten
from fer_voting.data.module import FERDataModule


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", REPO / "docs/_ext/configuration_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_of_every_file_is_in_its_section(reference: ModuleType):
    sections = re.split(r"^##+ ", reference.configuration_reference(CONF_DIR), flags=re.MULTILINE)[1:]
    by_heading = {section.partition("\n")[0]: section for section in sections}
    for path in sorted(CONF_DIR.rglob("*.yaml")):
        group = path.parent.relative_to(CONF_DIR).as_posix()
        command = {"config": "train"}.get(path.stem, path.stem)
        mark = "/" if group.endswith("/shared") else "="
        section = by_heading[
            f"`fer_voting.{command}`: the top level" if group == "." else f"`{group}{mark}{path.stem}`"
        ]
        for key in flatten(yaml.safe_load(path.read_text()) or {}):
            top = key.split(".")[0]
            if top not in ("defaults", "_target_", "_partial_"):
                name = key.removesuffix("._target_")
                # A value in braces, in one line, is one default.
                assert any(f"{start}`" in section for start in _starts(name)), (path, key)


def _starts(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[: length + 1]) for length in range(len(parts))]


def test_defaults_are_as_written_and_comments_are_kept(reference: ModuleType, tmp_path: Path):
    path = tmp_path / "option.yaml"
    path.write_text("# What it is.\n# python -m fer_voting.train a=b\nrate: 2e-4 # of a | b\nnode:\n  list: [1, 2]\n")
    option = reference.read_option(path)
    assert [(key.name, key.default, key.meaning) for key in option.keys] == [
        ("rate", "2e-4", "of a | b"),
        ("node.list", "[1, 2]", ""),
    ]
    assert option.about.splitlines() == ["What it is.", "", "```text", "python -m fer_voting.train a=b", "```"]


def test_a_key_without_a_comment_has_its_constructors_words(reference: ModuleType):
    option = reference.read_option(CONF_DIR / "dataset/affectnet.yaml")
    (key,) = [key for key in option.keys if key.name == "name"]
    assert key.meaning
    assert key.meaning in re.sub(r"\s+", " ", FERDataModule.__doc__ or "")
