"""Results of a network on FER2013's PublicTest, as Markdown: for a terminal and for the model card."""

from collections.abc import Mapping, Sequence
from typing import Any


def public_test_tables(figures: Mapping[str, Any]) -> str:
    """Tables of `python -m experiments.public_test`: labels, recall, confusion, brightness, resolution.

    Args:
        figures: `vote`; `class_names`; `by_label` and `by_majority` (None without FER+'s votes): `images`, `accuracy`,
            `low`, `high`, `mean_recall`, `recall` by class, `confusion_counts`; `calibration_error`; `brightness`:
            `darkest`, `brightest`, `images`, `accuracy`, `low`, `high` of each quarter; `resolution`: `resolution`,
            and by label and majority (None) `accuracy`.
    """
    by_label, by_majority = figures["by_label"], figures["by_majority"]
    labels = {"FER2013's label": by_label} | ({"FER+'s strict majority": by_majority} if by_majority else {})
    text = [
        _table(
            ["judged by", "images", "accuracy (%)", "95 % interval", "mean recall (%)"],
            [
                [
                    name,
                    f"{found['images']:,}",
                    _percent(found["accuracy"]),
                    f"{_percent(found['low'])} to {_percent(found['high'])}",
                    _percent(found["mean_recall"]),
                ]
                for name, found in labels.items()
            ],
        ),
        "Strict majority: more than half of FER+'s ten votes for one of the classes. Intervals are over the images. "
        f"Expected calibration error by FER2013's label: {_percent(figures['calibration_error'])} %.\n",
        _table(
            ["class", *(cell for name in labels for cell in (f"images by {name}", "recall (%)"))],
            [
                [name, *(cell for found in labels.values() for cell in _recall(found, position, name))]
                for position, name in enumerate(figures["class_names"])
            ],
        ),
        "Confusion by FER2013's label, images:\n",
        _table(
            ["label \\ decision", *figures["class_names"]],
            [
                [name, *map(str, row)]
                for name, row in zip(figures["class_names"], by_label["confusion_counts"], strict=True)
            ],
        ),
        "By the face's brightness (mean grey value, 0 to 255), a quarter of the faces a row, FER2013's label:\n",
        _table(
            ["brightness", "images", "accuracy (%)", "95 % interval"],
            [
                [
                    f"{row['darkest']:.0f} to {row['brightest']:.0f}",
                    f"{row['images']:,}",
                    _percent(row["accuracy"]),
                    f"{_percent(row['low'])} to {_percent(row['high'])}",
                ]
                for row in figures["brightness"]
            ],
        ),
        "By the face's size: the faces of 48 pixels brought down to as many pixels a side and back:\n",
        _table(
            ["pixels a side", *(f"accuracy (%) by {name}" for name in labels)],
            [
                [str(row["resolution"]), *(_percent(row[key]) for key in ("by_label", "by_majority")[: len(labels)])]
                for row in figures["resolution"]
            ],
        ),
    ]
    return "\n".join(text)


def _recall(found: Mapping[str, Any], position: int, name: str) -> tuple[str, str]:
    images = sum(found["confusion_counts"][position])
    return f"{images:,}", _percent(found["recall"][name]) if images else "–"


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    ruler = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ruler, *rows)) + "\n"
