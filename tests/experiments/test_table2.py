"""`python -m experiments.table2` from the command line on, at a small batch; the digits at 135 are `make table2`'s."""

import json
from pathlib import Path

import pytest

from experiments.table2 import main

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("table 2")
    main(["--batch-size", "2", "--device", "cpu", "--output-dir", str(folder)])
    return folder


def test_rows_stand_next_to_the_papers(output_dir: Path) -> None:
    rows = json.loads((output_dir / "table2.json").read_text())
    assert [(row["architecture"], row["input_size"]) for row in rows] == [
        ("baseline", 40),
        ("baseline", 48),
        ("input", 48),
        ("m1", 48),
        ("m2", 48),
        ("m3", 48),
    ]
    for row in rows:
        # BatchNorm's statistics, a few KiB a batch, are shared by two images instead of 135.
        assert row["forward_mib_per_image"] == pytest.approx(row["paper_forward_mib"], abs=0.1)
        assert row["parameters"] == 11_172_423
        assert row["device"] == "cpu"
        if row["architecture"] != "input":
            assert round(row["gmacs"], 2) == row["paper_gmacs"]
    assert rows[2]["paper_forward_mib"] == 70
    assert rows[2]["paper_gmacs"] is None


def test_markdown_says_the_same(output_dir: Path) -> None:
    lines = [line for line in (output_dir / "table2.md").read_text().splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6
    cells = [cell.strip() for cell in lines[5].strip("|").split("|")]
    assert cells[:2] == ["m1", "48x48"]
    assert cells[2].startswith("40.3")
    assert cells[3:] == ["40.34", "6.66", "6.66", "6.64", "11,172,423"]
    suffixes = ("csv", "json", "md", "tex")
    assert sorted(path.name for path in output_dir.iterdir()) == [f"table2.{suffix}" for suffix in suffixes]


def test_any_network_has_its_table(tmp_path: Path) -> None:
    words = "model.width=4 dataset.size=8"
    main(["--batch-size", "2", "--device", "cpu", "--model", words, "--output-dir", str(tmp_path)])
    rows = json.loads((tmp_path / "table2-model.width_4_dataset.size_8.json").read_text())
    assert [(row["architecture"], row["input_size"]) for row in rows] == [
        ("baseline", 8), ("input", 8), ("m1", 8), ("m2", 8)
    ]  # fmt: skip
    page = (tmp_path / "table2-model.width_4_dataset.size_8.md").read_text()
    assert "paper" not in page
    assert "Not possible with m3: the SmallResNet18" in page


def test_bad_arguments_end_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--batch-size", "1"])
    assert "--batch-size (=1) must be at least 2" in capsys.readouterr().err
