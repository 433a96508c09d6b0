"""Plots: what they show, and that their files are complete."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from fer_voting.results import plots
from fer_voting.results.plots import (
    INK,
    SPLIT_COLOURS,
    cost_figure,
    draw_class_distribution,
    draw_confusion,
    draw_curves,
    normalise_confusion,
    plot_evaluation,
    reliability_figure,
    save,
    split_curves_figure,
    svg,
)
from fer_voting.results.statistics import CostPoint

OURS = [
    CostPoint("m1", 63.7, 0.2, 40.34, 6.66),
    CostPoint("m3", 61.0, None, 14.84, 3.05),
    CostPoint("baseline", 62.0, 0.3, 10.08, 1.26),
    CostPoint("m2", 62.5, 0.1, None, 4.85),
]
HISTORY = [{"epoch": 0.0, "train/loss": 1.9, "val/soft/accuracy": 0.3}, {"epoch": 1.0, "train/loss": 1.5}]


def texts(figure: Figure) -> list[str]:
    """Every text in the SVG of a figure."""
    root = ElementTree.fromstring(svg(figure))
    return ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_pdf_has_text_that_programs_can_edit(tmp_path: Path) -> None:
    for name in ("once.pdf", "again.pdf"):
        draw_confusion(tmp_path / name, np.eye(2, dtype=int), ["a", "b"], "title")
    content = (tmp_path / "once.pdf").read_bytes()
    assert b"/FontFile2" in content  # a TrueType font; Type 3 has drawings in place of characters
    assert b"/Type3" not in content
    assert content == (tmp_path / "again.pdf").read_bytes()


def test_confusion_is_normalised_by_the_true_class() -> None:
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 2, 4]])
    assert normalise_confusion(counts).tolist() == [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0.25, 0.5]]


def test_confusion_stands_by_columns_as_in_the_paper(tmp_path: Path) -> None:
    counts = np.array([[3, 1], [0, 4]])  # three quarters of class a are recognised, a quarter is taken for b
    draw_confusion(tmp_path / "confusion.svg", counts, ["a", "b"], "title")
    content = (tmp_path / "confusion.svg").read_text()
    drawn = [text.strip() for text in content.split("<!--")[1:]]
    percents = [text.split(" -->")[0] for text in drawn if text[0].isdigit() and "." in text.split(" -->")[0]]
    assert percents[:4] == ["75.0", "0.0", "25.0", "100.0"]  # by rows: decided a of a, of b; decided b of a, of b


@pytest.mark.parametrize(("classes", "numbers"), [(20, 400), (21, 0)])
def test_confusion_of_many_classes_has_no_numbers(tmp_path: Path, classes: int, numbers: int) -> None:
    names = [f"class_{i}" for i in range(classes)]
    draw_confusion(tmp_path / "confusion.svg", np.eye(classes, dtype=int), names, "title")
    comments = [text.split(" -->")[0].strip() for text in (tmp_path / "confusion.svg").read_text().split("<!--")[1:]]
    assert len([text for text in comments if text in ("0.0", "100.0")]) == numbers + 1  # the bar has 0.0
    assert set(names) <= set(comments)


def test_of_very_many_classes_some_are_named(tmp_path: Path) -> None:
    names = [f"class_{i}" for i in range(250)]
    draw_confusion(tmp_path / "confusion.svg", np.eye(250, dtype=int), names, "title")
    draw_class_distribution(tmp_path / "counts.svg", {"train": dict.fromkeys(names, 5)}, "mine", synthetic=False)
    for file, axes in (("confusion.svg", 2), ("counts.svg", 1)):
        content = (tmp_path / file).read_text()
        assert [content.count(f"<!-- class_{i} -->") for i in (0, 1, 2, 3, 249)] == [axes, 0, 0, axes, axes]


def test_files_are_complete(tmp_path: Path) -> None:
    draw_curves(tmp_path / "new folder" / "curves.png", HISTORY, "title")
    with Image.open(tmp_path / "new folder" / "curves.png") as image:
        image.load()
        assert image.width > 600
    assert [path.name for path in (tmp_path / "new folder").iterdir()] == ["curves.png"]
    save(cost_figure(OURS, [], "title"), tmp_path / "cost.svg")
    ElementTree.parse(tmp_path / "cost.svg")


def test_the_axis_of_losses_does_not_name_another_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    draw_curves(Path("curves.png"), HISTORY, "title")
    assert figures[0].axes[0].get_ylabel() == "loss"


def test_cost_figure_has_the_front_of_what_nothing_beats() -> None:
    figure = cost_figure(OURS, [], "title")
    memory, macs = figure.axes
    fronts = [next(line for line in axes.lines if line.get_label() == "Pareto front") for axes in (memory, macs)]
    assert fronts[0].get_xdata().tolist() == [10.08, 40.34]  # m3 costs more than the baseline and is worse
    assert fronts[1].get_xdata().tolist() == [1.26, 4.85, 6.66]
    assert fronts[1].get_ydata().tolist() == [62.0, 62.5, 63.7]
    assert {"m1", "m3", "baseline"} == {text.get_text() for text in memory.texts}  # m2's memory was not measured
    only_macs = cost_figure(OURS, OURS, "title", ["gmacs"])
    assert [line.get_label() for line in only_macs.axes[0].lines if "front" in str(line.get_label())] == [
        "Pareto front of the paper",
        "Pareto front",
    ]


def test_accuracies_that_are_equal_but_for_chance_look_equal() -> None:
    close = [CostPoint("m3", 62.25, None, 1.89, 0.193), CostPoint("baseline", 62.22, None, 1.29, 0.08)]
    low, high = cost_figure(close, [], "title").axes[0].get_ylim()
    assert high - low == pytest.approx(2)
    assert (low + high) / 2 == pytest.approx(62.235)
    far = cost_figure(OURS, [], "title").axes[0].get_ylim()
    assert far[1] - far[0] > 63.7 - 61.0


def test_curves_by_split_have_a_line_a_run() -> None:
    histories = {"baseline": [HISTORY], "m1": [HISTORY, HISTORY]}
    figure = split_curves_figure(histories, "val/soft/accuracy", "accuracy (%)", 100)
    lines = figure.axes[0].lines
    assert [line.get_color() for line in lines] == [SPLIT_COLOURS[split] for split in ("baseline", "m1", "m1")]
    assert lines[0].get_xdata().tolist() == [1, 2]
    assert lines[0].get_ydata()[0] == pytest.approx(30)
    assert np.isnan(lines[0].get_ydata()[1])
    assert {"baseline", "m1", "epoch", "accuracy (%)"} <= set(texts(figure))


def test_svg_is_an_element_in_the_pages_ink_and_the_same_every_time() -> None:
    element = svg(cost_figure(OURS, [], ""))
    assert element == svg(cost_figure(OURS, [], ""))
    root = ElementTree.fromstring(element)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "viewBox" in root.attrib
    assert "width" not in root.attrib
    assert INK in element
    assert "#ffffff" not in element.lower()
    assert "forward memory in training (MiB an image)" in texts(cost_figure(OURS, [], ""))


def calibration(accuracies: list[float | None]) -> dict[str, Any]:
    """Calibration in four bins: the first is empty, the last but one has few images."""
    counts, confidences = [0, 30, 2, 68], [None, 0.4, 0.7, 0.9]
    return {"error": 0.125, "counts": counts, "confidences": confidences, "accuracies": accuracies}


VOTES = {
    "soft": {
        "calibration": calibration([None, 0.5, 0.5, 0.75]),
        "temperature": 2.0,
        "calibrated": {**calibration([None, 0.5, 1.0, 0.75]), "error": 0.0625},
        "confusion_counts": [[40, 10], [20, 30]],
    },
    "hard": {"calibration": calibration([None, 0.5, 0.5, 0.75]), "temperature": None, "calibrated": None},
}


def test_reliability_is_a_bar_a_bin_with_the_share_of_its_images_below() -> None:
    figure = reliability_figure(VOTES, "title")
    accuracies, _, images, _ = figure.axes
    assert [(bar.get_x(), bar.get_width()) for bar in accuracies.patches] == [(i / 4, 1 / 4) for i in range(4)]
    assert [bar.get_height() for bar in accuracies.patches][1:] == [50, 50, 75]
    assert [bar.get_height() for bar in images.patches] == [0, 30, 2, 68]
    pale, whole = (bar.get_alpha() or bar.get_facecolor()[3] for bar in accuracies.patches[2:])
    assert pale < whole == 1
    shown = texts(figure)
    assert {"title", "confidence", "accuracy (%)", "images (%)", "temperature 2.00: 6.2%"} <= set(shown)
    assert sum("calibration error 12.5%" in text for text in shown) == 2


def test_reliability_after_the_temperature_is_a_line_where_one_is_known() -> None:
    soft, hard, *_ = reliability_figure(VOTES, "").axes
    diagonal, after = soft.lines
    assert list(diagonal.get_ydata()) == [0, 100]
    assert list(after.get_xdata())[1:] == [0.4, 0.7, 0.9]
    assert list(after.get_ydata())[1:] == [50, 100, 75]
    assert len(hard.lines) == 1


@pytest.mark.parametrize("adaptive", [False, True])
def test_an_evaluation_is_drawn_beside_its_file(tmp_path: Path, adaptive: bool) -> None:
    result = {"synthetic": True, "dataset": "faces", "part": "test", "class_names": ["a", "b"], "votes": VOTES}
    points = [{"gmacs": gmacs, "accuracy": 0.5} for gmacs in (1.0, 2.0)]
    result["adaptive"] = {"curve": points, "vote": points[1], "chosen": None} if adaptive else None
    plot_evaluation(tmp_path / "mine.json", "mine", result)
    names = ["mine-adaptive.png"] * adaptive + ["mine-reliability.png", "mine.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    for path in tmp_path.iterdir():
        with Image.open(path) as image:
            image.load()
