"""`make resolution`: images of lower resolution, and a trained network's accuracy on them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments.resolution import differences, line_looks, main
from fer_voting.results.compare import compare_correct
from fer_voting.runs.run import Run
from fer_voting.votes import VOTES

SIZE = 24
"""Pixels a side, not the default."""


def test_networks_are_compared_on_the_same_images_and_seeds() -> None:
    rng = np.random.default_rng(0)
    right = {
        network: {seed: rng.random(50) < 0.5 for seed in seeds} for network, seeds in (("a", (0, 1)), ("b", (1, 2)))
    }

    def row(network: str, seed: int, vote: str = "soft") -> dict:
        about = {"network": network, "split": "m1", "vote": vote, "resolution": 8, "seed": seed}
        return about | {"right": right[network][seed] if vote == "soft" else ~right[network][seed]}

    rows = [row(network, seed, vote) for network in right for seed in right[network] for vote in ("soft", "hard")]
    (line,) = differences(rows).rows
    expected = 100 * (right["b"][1].mean() - right["a"][1].mean())
    assert line[:3] == ["b m1", "a m1", "1"]
    assert line[3].startswith(f"{expected:+.2f} (")
    assert differences([row("a", 0), row("b", 2)]).rows == []  # no seed in common
    # Over five people, by the comparison that counts people.
    people = np.repeat(list("abcde"), 10)
    (of_people,) = differences(rows, people).rows
    one = compare_correct({1: right["b"][1]}, {1: right["a"][1]}, groups=people)
    assert of_people[3] == f"{expected:+.2f} ({100 * one['low']:+.2f} to {100 * one['high']:+.2f})" != line[3]


@pytest.mark.parametrize(
    ("networks", "splits"),
    [(["a"], ["baseline", "m1", "m2", "m3"]), (["a", "b", "c", "d", "e"], ["m1"]), (["a", "b"], ["baseline", "m1"])],
)
def test_every_line_looks_different(networks: list[str], splits: list[str]) -> None:
    """Trained with m3, and judged as other splits, too."""
    rows = [{"network": one, "split": split, "trained_split": "m3"} for one in networks for split in splits]
    looks = line_looks(rows)
    assert len({(look["color"], look["ls"]) for look in looks.values()}) == len(looks) == len(rows)
    if len(splits) > 1:
        colours = {split: {looks[one, split]["color"] for one in networks} for split in splits}
        assert all(len(of_split) == 1 for of_split in colours.values())
        assert len(set.union(*colours.values())) == len(splits)


@pytest.mark.slow
def test_a_run_by_resolution(run_train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At its own size the accuracies are those that the training recorded, also of the split that it was trained with
    among others; nothing is larger than the images; the files name each resolution."""
    outputs = run_train("split=m3", "name=mine-seed0", f"dataset.size={SIZE}")
    recorded = Run(outputs, "mine-seed0").result()["votes"]["soft"]["test"]
    words = ["mine-seed0", "--output-dir", str(outputs), "--splits", "baseline,m3", "--resolutions", "8,12,48"]
    main(words)
    rows = json.loads((outputs / "tables" / "resolution.json").read_text())
    assert {row["resolution"] for row in rows} == {8, 12, SIZE}
    assert len(rows) == 3 * 2 * len(VOTES)
    (own,) = (r for r in rows if (r["split"], r["vote"], r["resolution"]) == ("m3", "soft", SIZE))
    assert own["accuracy"] == pytest.approx(recorded["accuracy"])
    assert own["mean_recall"] == pytest.approx(recorded["mean_recall"])
    assert own["low"] <= own["accuracy"] <= own["high"]
    assert (own["images"], own["majority"], own["network"]) == (20, 8 / 20, "mine")
    text = (outputs / "tables" / "resolution.md").read_text()
    assert "8 px" in text
    assert "Synthetic faces" in text
    header, _, *lines = [line for line in text.splitlines() if line.startswith("|")]
    assert [cell.strip() for cell in header.strip("|").split("|")][3:] == ["runs", "8 px", "12 px", f"{SIZE} px"]
    *by_split, header, _, compared = [line.split("|")[1:-1] for line in lines]
    assert [cells[1].strip() for cells in by_split] == ["baseline", *["m3"] * len(VOTES)]
    assert [cell.strip() for cell in compared[:3]] == ["mine m3", "mine baseline", "1"]
    for suffix in ("png", "svg"):
        assert (outputs / "tables" / f"resolution.{suffix}").stat().st_size > 10_000

    # Seeds of one recipe are, whatever their names; another network of the same name is not.
    recorded_config = (Run(outputs, "mine-seed0").dir / "config.yaml").read_text()
    for name, recipe in {"second": "lr: 0.0002", "mine-seed1": "lr: 0.1"}.items():
        other = Run(outputs, name).dir
        shutil.copytree(Run(outputs, "mine-seed0").dir, other)
        text = recorded_config.replace("lr: 0.0002", recipe).replace("\nseed: 0", "\nseed: 1")
        (other / "config.yaml").write_text(text)
    main(["mine-seed0", "second", "mine-seed1", *words[1:]])
    rows = json.loads((outputs / "tables" / "resolution.json").read_text())
    assert {row["run"]: row["network"] for row in rows} == {
        "mine-seed0": "mine",
        "second": "mine",
        "mine-seed1": "mine-seed1",
    }

    # The pack is another where the drawn faces are.
    config = Run(outputs, "mine-seed0").dir / "config.yaml"
    config.write_text(config.read_text().replace("data_seed: 0", "data_seed: 1"))
    capsys.readouterr()
    with pytest.raises(SystemExit, match="mine-seed0 was trained on other data"):
        main(words)
    with pytest.raises(SystemExit, match="nobody is missing"):
        main(["nobody", "--output-dir", str(outputs)])


@pytest.mark.parametrize(
    "words", [[], ["a", "--splits", "m9"], ["a", "--resolutions", "8,x"], ["a", "--resolutions", "0"]]
)
def test_mistakes_on_the_command_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(words)
    assert ending.value.code == 2
    assert "error:" in capsys.readouterr().err
