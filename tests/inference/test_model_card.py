"""The model card holds the run's figures, in Markdown that no name in it can change."""

import re
from typing import Any

import pytest
from helpers.networks import SEVEN, info
from huggingface_hub import ModelCard

from fer_voting.inference.model_card import model_card, public_test_tables

COUNTS = [[8, 2], [1, 3]]


def metrics(shift: float) -> dict[str, Any]:
    return {
        "accuracy": 0.5 + shift,
        "mean_recall": 0.4 + shift,
        "recall": {name: (0.1 + shift) * i / 2 for i, name in enumerate(SEVEN)},
    }


RESULT: dict[str, Any] = {
    "name": "mine",
    "dataset": "faces",
    "split": "m1",
    "seed": 3,
    "refit": False,
    "synthetic": False,
    "started": "2026-01-02T03:04:05+00:00",
    "counts": {"train": {name: 1000 + i for i, name in enumerate(SEVEN)}, "val": dict.fromkeys(SEVEN, 10)},
    "data_fingerprint": "0a1b",
    "epochs": 7,
    "votes": {vote: {"val": metrics(shift)} for vote, shift in (("soft", 0.1), ("softprob", 0.2), ("hard", 0.3))},
    "parameters": 1234567,
    "gmacs": 0.98765,
    "precision": "bf16-mixed",
    "git_commit": "0123456789ab",
    "versions": {"python": "3.11.7", "torch": "2.14.1"},
    "device": "a made-up device",
}
CONFIG: dict[str, Any] = {
    "dataset": {"batch_size": 135, "balance": {"target": "mean"}},
    "scheduler": {"_target_": "x.exponential_decay", "_partial_": True, "gamma": 0.9},
    "optimizer": {"_target_": "torch.optim.Adam", "lr": 0.0002},
    "augment": {"_target_": "x", "backend": "batched", "rotation": {"degrees": 10}, "erase": {}},
    "init_from": None,
}


def card(**changes: Any) -> str:
    return model_card("me/net", info(), "hard", RESULT | changes, CONFIG)


def row(text: str, first: str, table: int = 0) -> list[str]:
    """The other cells of a row, of the `table`-th table that has such a row."""
    return re.findall(rf"^\| {re.escape(first)} \|(.*)\|$", text, re.MULTILINE)[table].replace(" ", "").split("|")


def test_figures_are_the_runs() -> None:
    text = card()
    assert row(text, "sad") == ["1,002", "10"]
    assert row(text, "all") == ["7,021", "70"]
    assert row(text, "hard vote") == ["80.00", "70.00"]
    assert row(text, "soft vote") == ["60.00", "50.00"]
    assert row(text, "sad", table=1) == ["40.00"]  # recall by the hard vote: 0.4 * 2 / 2
    assert "1,234,567 parameters, 0.988 GMACs" in text
    for line in (
        "Epochs: 7",
        "Batch: 135",
        "Optimizer: Adam",
        "Learning rate: 0.0002, exponential decay, gamma 0.9",
        "Seed: 3",
    ):
        assert f"- {line}" in text
    assert "Augmentation: rotation, erase" in text
    assert "0a1b" in text
    for section in ("Intended use", "Limits", "On inferring emotion from faces", "Data", "Protocol", "Results"):
        assert f"\n## {section}\n" in text


def test_the_hub_reads_its_head() -> None:
    assert ModelCard(card()).data.to_dict() == {
        "library_name": "fer_voting",
        "pipeline_tag": "image-classification",
        "tags": ["facial-expression-recognition"],
    }
    assert "synthetic-data" in ModelCard(card(synthetic=True)).data.tags


def test_what_must_be_said_is_said() -> None:
    assert "say nothing about people" not in card()
    assert "say nothing about people" in card(synthetic=True)
    assert "best hard vote on validation" in card()
    assert "of the last epoch of a refit" in card(refit=True)
    assert "the figures are of that" not in card()
    assert "Trained with the split m3; the figures are of that" in card(split="m3")


def test_what_a_training_learned_from_is_named() -> None:
    numbers = {"_target_": "x.WeightedSum", "number_weight": 2, "numbers": {"_target_": "x.SquaredError"}}
    mixup = {"_target_": "torchvision.transforms.v2.MixUp", "_partial_": True, "alpha": 0.2}
    words = {"loss": numbers, "mix": mixup, "teacher": "outputs/runs/wide/checkpoints/best-soft.ckpt"}
    text = model_card("net", info(), "hard", RESULT, CONFIG | words)
    assert "- Loss: WeightedSum, number\\_weight 2, numbers (SquaredError)\n" in text
    assert "- Teacher: wide, best-soft.ckpt\n" in text
    assert "- Mixed images: MixUp, alpha 0.2\n" in text
    assert "Teacher" not in card()


def test_what_a_configuration_leaves_out_is_not_there() -> None:
    nothing = dict.fromkeys(("augment", "callbacks", "scheduler", "loss", "mix", "teacher"))
    text = model_card("net", info(), "hard", RESULT, CONFIG | nothing | {"dataset": {"balance": None}})
    assert "- Balancing (images a class and epoch): none\n- Augmentation: none\n" in text


@pytest.mark.parametrize(
    ("average", "said"),
    [
        ({"_target_": "a.WeightAveraging", "multi_avg_fn": {"_target_": "b.ema", "decay": 0.5}}, "ema, decay 0.5"),
        ({"_target_": "a.Average", "every": 3}, "Average, every 3"),
        (None, "none"),
    ],
)
def test_what_averages_the_weights_is_named(average: Any, said: str) -> None:
    text = model_card("net", info(), "hard", RESULT, CONFIG | {"callbacks": {"average": average}})
    assert f"- Averaged weights: {said}\n" in text


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({}, "one label an image"),
        ({"targets": "votes", "label_share": 0.0}, "shares of the annotators' votes"),
        (
            {"targets": "votes", "label_share": 0.7},
            "shares of the annotators' votes; 70% of each is FER2013's own label",
        ),
    ],
)
def test_the_targets_are_named(dataset: dict[str, Any], said: str) -> None:
    text = model_card("net", info(), "hard", RESULT, CONFIG | {"dataset": CONFIG["dataset"] | dataset})
    assert f"- Targets: {said}\n" in text
    assert ("- Labels of validation and test: each image's most frequent vote\n" in text) == ("targets" in dataset)


def test_a_card_says_that_only_the_last_bias_was_trained() -> None:
    text = model_card("net", info(), "hard", RESULT, CONFIG | {"callbacks": {"last_bias": {"_target_": "a.B"}}})
    assert "- Trained parameters: the last layer's bias; all others are the initial weights\n" in text
    assert "Trained parameters" not in card()


def test_calibration_and_other_data_sets_where_they_were_measured() -> None:
    assert "Not measured; no temperature was fitted." in card()
    evaluation = {
        "dataset": "rafdb",
        "part": "test",
        "images": 3068,
        "votes": {"hard": {**metrics(0.2), "calibration": {"error": 0.125}, "calibrated": None}},
    }
    measured = {"dataset": "faces", "part": "val", "images": 70, "low": 0.1, "high": 0.6, "mean_recall": 0.2}
    rows = [{**measured, "resolution": px, "accuracy": px / 100} for px in (48, 8)]
    text = model_card("net", info(), "hard", RESULT, CONFIG, [evaluation], rows, temperature=1.5)
    assert row(text, "faces") == ["validation", "70", "8", "8.00(10.00to60.00)", "20.00"]
    assert row(text, "faces", table=1)[2:4] == ["48", "48.00(10.00to60.00)"]
    assert row(text, "rafdb") == ["test", "3,068", "70.00", "60.00"]
    assert row(text, "rafdb", table=1) == ["test", "12.50", "–"]
    trained_on, fitted_on = {**evaluation, "in_sample": True}, {**evaluation, "fitted_on_these_images": True}
    for each, accuracy, calibration in (
        (trained_on, "test(in-sample)", "test(in-sample)"),
        (fitted_on, "test", "test(in-sample)"),
    ):
        marked = model_card("net", info(), "hard", RESULT, CONFIG, [each])
        assert (row(marked, "rafdb")[0], row(marked, "rafdb", table=1)[0]) == (accuracy, calibration)
    assert "fitted on validation images: 1.5" in text


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a | b", "[x](http://a.b)", "`x`", "*x*\n# head"])
def test_a_name_stays_text(name: str) -> None:
    counts = {"train": {name: 1}, "val": {name: 1}}
    votes = {"hard": {"val": {"accuracy": 0.5, "mean_recall": 0.5, "recall": {name: 0.5}}}}
    theirs = type(info())("m1", {"width": 4}, (name, "other"), 24, name)
    text = model_card(name, theirs, "hard", RESULT | {"counts": counts, "votes": votes, "name": name}, CONFIG)
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(http", text)
    assert not re.search(r"^# head", text, re.MULTILINE)
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} <= {3, 4}


# FER2013's PublicTest ---------------------------------------------------------------------------------------------

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


def test_names_of_classes_stay_text_in_the_tables_too() -> None:
    labels = LABELS | {"recall": {"a|b": 0.9, "<b>": 0.0}}
    text = public_test_tables(FIGURES | {"class_names": ["a|b", "<b>"], "by_label": labels, "by_majority": None})
    assert r"| a\|b | 1,200 | 90.00 |" in text
    assert r"| label \ decision | a\|b | &lt;b&gt; |" in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "random"),
        ("first", "first"),
        ("/home/somebody/outputs/runs/first/checkpoints/last.ckpt", "first, last.ckpt"),
        ("/home/somebody/outputs/runs/first", "first"),
        ("checkpoints/last.ckpt", "last.ckpt"),
    ],
)
def test_initial_weights_are_named_without_the_folders_of_a_machine(source: str | None, said: str) -> None:
    text = model_card("net", info(), "hard", RESULT, CONFIG | {"init_from": source})
    assert f"- Initial weights: {said}\n" in text
