"""The tables of a network's figures on PublicTest, from figures made up here."""

from typing import Any

from fer_voting.inference.public_test import public_test_tables

LABELS: dict[str, Any] = {
    "images": 1200,
    "accuracy": 0.7,
    "low": 0.674,
    "high": 0.726,
    "mean_recall": 0.5,
    "recall": {"happy": 0.9, "sad": 0.0},
    "confusion_counts": [[1080, 120], [0, 0]],
}
FIGURES: dict[str, Any] = {
    "vote": "soft",
    "class_names": ["happy", "sad"],
    "by_label": LABELS,
    "by_majority": LABELS | {"images": 900, "accuracy": 0.8},
    "calibration_error": 0.0321,
    "brightness": [{"darkest": 3.4, "brightest": 99.6, "images": 300, "accuracy": 0.6, "low": 0.5, "high": 0.7}],
    "resolution": [{"resolution": 8, "by_label": 0.31, "by_majority": 0.41}],
}


def test_every_figure_is_there() -> None:
    text = public_test_tables(FIGURES)
    assert "| FER2013's label | 1,200 | 70.00 | 67.40 to 72.60 | 50.00 |" in text
    assert "| FER+'s strict majority | 900 | 80.00 |" in text
    assert "Expected calibration error by FER2013's label: 3.21 %." in text
    assert "| happy | 1,200 | 90.00 | 1,200 | 90.00 |" in text
    assert "| sad | 0 | – | 0 | – |" in text  # no image, so no recall
    assert "| happy | 1080 | 120 |" in text
    assert "| 3 to 100 | 300 | 60.00 | 50.00 to 70.00 |" in text
    assert "| 8 | 31.00 | 41.00 |" in text


def test_without_votes_there_is_nothing_of_ferplus() -> None:
    text = public_test_tables(FIGURES | {"by_majority": None, "resolution": [{"resolution": 8, "by_label": 0.31}]})
    assert "| 8 | 31.00 |" in text
    assert "majority |" not in text
