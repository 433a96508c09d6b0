"""The output of commands is put between its marks in README.md and docs/, and nowhere else."""

import re
from pathlib import Path

import pytest

from experiments import common

MARKED = """a
<!-- experiments/x/table.md -->
old
<!-- end -->
b
<!-- experiments/y/table.md -->
kept
<!-- end -->
"""


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for page in ("README.md", "docs/index.md", "docs/results/fer2013.md"):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text(MARKED if page != "docs/index.md" else "no marks\n")
    for name, text in (("x", "# Heading\n\n| new |\n\n![cost](cost.png)\n"), ("y", "from y\n")):
        (tmp_path / "experiments" / name).mkdir(parents=True)
        (tmp_path / "experiments" / name / "table.md").write_text(text)
    monkeypatch.setattr(common, "REPO", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_is_put_between_its_marks_on_every_page(repo: Path) -> None:
    assert common.update_pages(Path("experiments/x/table.md")) == ["README.md", "docs/results/fer2013.md"]
    for page, folder in (("README.md", "experiments/x"), ("docs/results/fer2013.md", "../../experiments/x")):
        new = f"| new |\n\n![cost]({folder}/cost.png)\n"
        assert (repo / page).read_text() == MARKED.replace("old\n", new)
    assert (repo / "docs" / "index.md").read_text() == "no marks\n"
    assert common.update_pages(repo / "experiments" / "x" / "table.md") == ["README.md", "docs/results/fer2013.md"]


def test_a_file_without_marks_changes_nothing(repo: Path) -> None:
    (repo / "table.md").write_text("new\n")
    assert common.update_pages(Path("table.md")) == []
    assert (repo / "README.md").read_text() == MARKED


def test_pages_of_the_repository_say_what_their_files_say() -> None:
    shown = {}
    for page in (common.REPO / "README.md", *(common.REPO / "docs").rglob("*.md")):
        shown[page] = page.read_text()
        for _, name, _ in common.MARKS.findall(shown[page]):
            first_row = next(line for line in (common.REPO / name).read_text().splitlines() if line.startswith("|"))
            assert first_row in shown[page], f"{page} does not show {name} as it is"


def test_no_recorded_file_names_a_folder_of_a_machine() -> None:
    folders = (common.REPO / "experiments/recorded", common.REPO / "fer_voting/pretrained")
    texts = {".md", ".json", ".csv", ".tex", ".yaml", ".diff"}
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in texts]
    assert len(files) > 100
    private = re.compile(r"(?<![\w.])/(tmp|home|root|work|Users)/")
    assert [path for path in files if private.search(path.read_text(encoding="utf-8"))] == []
