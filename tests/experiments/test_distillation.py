"""The table of distillation from runs whose decisions a test chose, and which trainings it asks for."""

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.runs import make_run
from scipy.stats import t

from experiments import common, distillation
from fer_voting.runs.run import Run

pytestmark = pytest.mark.slow

LABELS = [0, 1, 2, 3, 4, 5, 6] * 4
PEOPLE = [person for person in "abcd" for _ in range(7)]
WORDS = ["dataset=faces", "model.width=4"]


def wrong_at(*images: int) -> list[int]:
    return [(label + (image in images)) % 7 for image, label in enumerate(LABELS)]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Two seeds. With its teacher, the baseline is right about two images more; the narrow one about one fewer."""
    for seed in (0, 1):
        for network in distillation.networks(WORDS, "m3", [2]):
            narrow = "model.width=2" in network.overrides
            wrong = {
                "m3": (0,),
                "baseline": (0, 1, 2, 3),
                "distilled": (0, 1 + seed),
                "narrow": (5, 6),
                "narrow, distilled": (5, 6, 7),
            }
            key = "narrow" if narrow else "baseline"
            key = f"{key}, distilled".removeprefix("baseline, ") if network.without_teacher else key
            key = "m3" if "split=m3" in network.overrides else key
            decided = {"val": wrong_at(0), "test": wrong_at(*wrong[key])}
            make_run(tmp_path, [*network.overrides, f"seed={seed}"], decided, LABELS, groups=PEOPLE)
    return tmp_path


def test_table_by_hand(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*WORDS, "--seeds", "0,1", "--widths", "2", "--output-dir", str(made)]
    distillation.main(words)
    printed = capsys.readouterr().out
    assert "$ python" not in printed  # nothing is trained
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "| labels" in line
    ]
    assert [row[:5] for row in rows] == [
        ["m3, the teacher", "labels", "2", "96.43 ± 0.00", "96.43 ± 0.00"],
        ["baseline", "labels", "2", "96.43 ± 0.00", "85.71 ± 0.00"],
        ["baseline", "labels and m3", "2", "96.43 ± 0.00", "92.86 ± 0.00"],
        ["baseline, width 2", "labels", "2", "96.43 ± 0.00", "92.86 ± 0.00"],
        ["baseline, width 2", "labels and m3", "2", "96.43 ± 0.00", "89.29 ± 0.00"],
    ]
    assert [row[5] for row in rows] == ["", "", "+7.14", "", "-3.57"]
    outcomes = np.repeat([2.0, 0, 0, 0], 7) / 7  # the two images of a difference are of one person
    without = [outcomes[np.repeat(range(4), 7) != person].mean() for person in range(4)]
    half = 100 * t.ppf(0.975, 3) * np.sqrt(3 / 4 * ((np.array(without) - 2 / 28) ** 2).sum())
    assert rows[2][6] == f"{7.14 - half:+.2f} to {7.14 + half:+.2f} (4 groups only, two seeds)"
    assert [row[7] for row in rows] == ["", "", "1.000, 1.000", "", "1.000, 1.000"]  # one person: 2 / 2^1
    assert "Synthetic faces" in printed
    text = (made / "tables/distillation.json").read_text()
    assert str(made) not in text
    stored = json.loads(text)
    assert stored[2]["difference"] == pytest.approx(2 / 28)
    assert (stored[2]["part"], stored[2]["images"], stored[2]["groups"]) == ("test", 28, 4)
    assert stored[4]["holm"] == {"0": 1.0, "1": 1.0}
    assert stored[2]["runs"]["1"] == "faces-baseline-width4-teacher_m3-seed1"
    assert stored[4]["runs"]["1"] == "faces-baseline-width2-teacher_m3-seed1"
    assert stored[1]["gmacs"] > stored[3]["gmacs"]


def test_what_is_missing_is_trained(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = Run(made, "faces-baseline-width4-teacher_m3-seed1")
    (result.dir / "result.json").unlink()
    started = []

    def refuse(command: list[str], **_: object) -> object:
        started.append(command)
        return type("Done", (), {"returncode": 3})

    monkeypatch.setattr(common.subprocess, "run", refuse)
    with pytest.raises(SystemExit, match="exit code 3"):
        distillation.main([*WORDS, "--seeds", "0,1", "--widths", "2", "--output-dir", str(made)])
    expected = ["-m", *WORDS, f"output_dir={made}", "split=baseline", "teacher=m3", "seed=1"]
    assert [command[3:] for command in started] == [expected]


@pytest.mark.parametrize("words", [["--seeds", "x"], ["--widths", "8,"], ["split=m1"], ["seed=3"]])
def test_mistakes_end_with_one_line(words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        distillation.main(words)
    assert stopped.value.code == 2
