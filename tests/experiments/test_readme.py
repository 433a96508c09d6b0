"""What commands write is put between its marks, and nowhere else."""

import re
from pathlib import Path

import pytest

from experiments import readme

BEFORE = (
    "a\n<!-- experiments/x/table.md -->\nold\n<!-- end -->\nb\n<!-- experiments/y/table.md -->\nkept\n<!-- end -->\n"
)


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "README.md"
    path.write_text(BEFORE)
    monkeypatch.setattr(readme, "README", path)
    return path


def test_text_between_its_marks(page: Path) -> None:
    assert readme.put_into_readme(Path("experiments/x/table.md"), "# Heading\n\n| new |\n\n![cost](cost.png)\n")
    new = "| new |\n\n![cost](experiments/x/cost.png)\n"
    assert page.read_text() == BEFORE.replace("old\n", new)


def test_a_file_without_marks_changes_nothing(page: Path) -> None:
    assert not readme.put_into_readme(Path("outputs/table.md"), "new\n")
    assert page.read_text() == BEFORE


def test_every_file_that_the_readme_shows_is_there_and_says_the_same() -> None:
    shown = re.findall(r"<!-- (\S+\.md) -->\n(.*?)<!-- end -->", readme.README.read_text(), flags=re.DOTALL)
    assert len(shown) >= 3
    for name, text in shown:
        file = readme.README.parent / name
        first_row = next(line for line in text.splitlines() if line.startswith("|"))
        assert first_row in file.read_text(), name
