"""The paper's own figures, as it prints them: accuracies in percent."""

from functools import cache
from pathlib import Path
from typing import Any

from fer_voting.results.compare import Judge
from fer_voting.system.atomic import read_json

__all__ = ["PAPER_DATASETS", "paper", "paper_test_accuracy", "paper_validation_accuracy"]

_PACKAGE = Path(__file__).resolve().parents[1]
# Inside an installed wheel, beside the package in a checkout.
_FILE = next(
    p for p in (_PACKAGE / "results" / "paper.json", _PACKAGE.parent / "experiments" / "paper.json") if p.is_file()
)

PAPER_DATASETS = ("affectnet", "rafdb")


@cache
def paper() -> dict[str, Any]:
    return read_json(_FILE)


def paper_validation_accuracy(dataset: str, judge: Judge) -> float | None:
    """Table 3 in percent; None where the paper gives nothing."""
    for row in paper()["table3_validation_accuracy"]:
        if row["architecture"] == judge.split:
            return row.get(dataset if judge.split == "baseline" else f"{dataset}_{judge.vote}")
    return None


def paper_test_accuracy(dataset: str, judge: Judge) -> float | None:
    """Accuracy on test after refit in percent (Tables 4 and 5); None where the paper gives nothing."""
    if judge.split == "baseline":
        return paper()["test_accuracy_baseline"].get(dataset)
    if (judge.split, judge.vote) == ("m1", "soft"):
        return paper()["test_accuracy_m1_soft_refit"].get(dataset)
    return None
