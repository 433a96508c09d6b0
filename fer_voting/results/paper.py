"""The paper's own figures, as it prints them: accuracies in percent."""

from functools import cache
from pathlib import Path
from typing import Any

from fer_voting.results.compare import Method
from fer_voting.results.statistics import CostPoint
from fer_voting.system.atomic import read_json

_FOLDER = Path(__file__).resolve().parent
# In this folder of an installed wheel; in experiments/ of a checkout.
_FILE = next(p for p in (_FOLDER / "paper.json", _FOLDER.parents[1] / "experiments" / "paper.json") if p.is_file())

PAPER_DATASETS = ("affectnet", "rafdb")


@cache
def paper() -> dict[str, Any]:
    """Content of paper.json."""
    return read_json(_FILE)


def paper_validation_accuracy(dataset: str, method: Method) -> float | None:
    """Table 3 in percent; None where the paper gives nothing."""
    for row in paper()["table3_validation_accuracy"]:
        if row["architecture"] == method.split:
            return row.get(dataset if method.split == "baseline" else f"{dataset}_{method.vote}")
    return None


def paper_test_accuracy(dataset: str, method: Method) -> float | None:
    """Accuracy on test after refit in percent (Tables 4 and 5); None where the paper gives nothing."""
    if method.split == "baseline":
        return paper()["test_accuracy_baseline"].get(dataset)
    if (method.split, method.vote) == ("m1", "soft"):
        return paper()["test_accuracy_m1_soft_refit"].get(dataset)
    return None


def paper_costs(dataset: str) -> list[CostPoint]:
    """Validation accuracy by the soft vote (Table 3) and cost (Table 2) of each split that the paper trained."""
    costs = {row["architecture"]: row for row in paper()["table2"] if row["input_size"] == 48}
    points = []
    for row in paper()["table3_validation_accuracy"]:
        split = row["architecture"]
        accuracy = paper_validation_accuracy(dataset, Method(split, "soft"))
        if accuracy is not None:
            points.append(CostPoint(split, accuracy, None, costs[split]["forward_pass_mb"], costs[split]["gflops"]))
    return points
