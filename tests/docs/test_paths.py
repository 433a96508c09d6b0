"""The pages and drawings about the code name files and functions that exist."""

import importlib.util
import re

import pytest
from helpers.doc_pages import PAGES
from helpers.train import REPO

PATH = re.compile(r"`((?:fer_voting|experiments|tests|conf|docs)/[\w/.-]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_file_that_a_page_names_exists(page):
    generated = ("docs/_build", "docs/generated")
    named = {path for path in PATH.findall(page.read_text()) if not path.startswith(generated)}
    assert sorted(path for path in named if not (REPO / path).exists()) == []


def test_the_table_of_groups_has_every_option():
    rows = re.findall(r"^\| `(\w+)` \| (`.+?`) \|", (REPO / "docs/training.md").read_text(), re.MULTILINE)
    listed = {group: set(re.findall(r"`(\w+)`", options)) for group, options in rows}
    groups = {folder.name for folder in (REPO / "conf").iterdir() if folder.is_dir() and folder.name != "hydra"}
    assert groups <= set(listed)
    for group in groups:
        assert listed[group] == {path.stem for path in (REPO / "conf" / group).glob("*.yaml")}, group


def test_the_road_is_drawn_with_the_functions_and_files_of_the_code():
    spec = importlib.util.spec_from_file_location("draw_road", REPO / "docs/draw_road.py")
    assert spec is not None
    assert spec.loader is not None
    drawing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(drawing)
    sources = {path: path.read_text() for path in (REPO / "fer_voting").rglob("*.py")}
    drawn = [
        text.get_text()
        for text in drawing.draw_road().axes[0].texts
        if not text.get_text().startswith(("python", "from "))
    ]
    text = "\n".join(drawn)
    functions = {*re.findall(r"\b[a-z]+_[a-z]+\b", text), "compose", "settle"}
    assert functions > {"make_data", "make_module", "make_trainer", "find_sources", "predict_part", "evaluate_votes"}
    defined = "\n".join(sources.values())
    assert sorted(name for name in functions if f"def {name}(" not in defined) == []
    files = re.findall(r"[\w/]+\.py", text)
    assert len(files) >= 4
    assert sorted(file for file in files if not any(str(path).endswith(f"/{file}") for path in sources)) == []
