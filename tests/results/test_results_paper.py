"""The paper's figures, as its tables print them."""

import pytest

from fer_voting.results.compare import Method
from fer_voting.results.paper import paper, paper_test_accuracy, paper_validation_accuracy


@pytest.mark.parametrize(
    ("dataset", "split", "vote", "value"),
    [
        ("affectnet", "m1", "soft", 63.69),
        ("rafdb", "m3", "hard", 84.73),
        ("rafdb", "baseline", "soft", 83.26),
        ("affectnet", "m1", "softprob", None),
        ("affectnet", "input", "soft", None),
        ("fer2013", "m1", "soft", None),
    ],
)
def test_validation_accuracy(dataset: str, split: str, vote: str, value: float | None) -> None:
    assert paper_validation_accuracy(dataset, Method(split, vote)) == value


@pytest.mark.parametrize(
    ("dataset", "split", "vote", "value"),
    [
        ("affectnet", "m1", "soft", 63.06),
        ("rafdb", "baseline", "soft", 84.32),
        ("rafdb", "m1", "hard", None),
        ("rafdb", "m2", "soft", None),
        ("faces", "baseline", "soft", None),
    ],
)
def test_test_accuracy(dataset: str, split: str, vote: str, value: float | None) -> None:
    assert paper_test_accuracy(dataset, Method(split, vote, "soft")) == value


def test_own_rows_of_tables_4_and_5_agree_with_the_text() -> None:
    for table, dataset in (("table4_affectnet_7_classes_accuracy", "affectnet"), ("table5_rafdb_accuracy", "rafdb")):
        rows = {name: accuracy for name, _, _, accuracy in paper()[table]}
        assert rows["Voting (ours)"] == paper_test_accuracy(dataset, Method("m1", "soft", "soft"))
        assert rows["Baseline (ours)"] == paper_test_accuracy(dataset, Method("baseline", "soft", "soft"))
