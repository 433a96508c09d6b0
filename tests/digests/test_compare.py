"""Differences that the comparison of two commits' trainings reports."""

from pathlib import Path

import numpy as np
import pytest
import torch
from digests.compare import differences, digests, write_ferplus

from fer_voting.data.sets.ferplus import raw_votes


def write_run(folder: Path, weight: float = 1.0, loss: float = 0.5, array: str = "logits") -> Path:
    """A run folder with one vote."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "predictions").mkdir()
    torch.save({"state_dict": {"net.fc.bias": torch.tensor([weight])}}, folder / "checkpoints/best-soft.ckpt")
    np.savez(folder / "predictions/soft-val.npz", labels=np.arange(3), **{array: np.ones(3)})
    (folder / "metrics.csv").write_text(f"epoch,train/loss,seconds\n0,{loss},{folder.stat().st_mtime_ns}\n")
    (folder / "result.json").write_text('{"votes": {"soft": {"val": {"accuracy": 0.25}}}}')
    return folder


def test_equal_runs_differ_in_measured_times_only(tmp_path: Path) -> None:
    a, b = (digests(write_run(tmp_path / name / "run")) for name in "ab")
    assert differences(a, b) == ([], [])
    assert a["weights"].keys() == {"best-soft net.fc.bias"}
    assert a["metrics"] == {"epoch 0 epoch": "0", "epoch 0 train/loss": "0.5"}
    assert a["predictions"].keys() == {"soft-val labels", "soft-val logits"}
    assert a["accuracies"] == {"soft val": "0.25"}


@pytest.mark.parametrize(
    ("change", "counted", "reported"),
    [
        ({"weight": 1.0000001}, ["weights: best-soft net.fc.bias: "], []),
        ({"loss": 0.5000001}, ["metrics: epoch 0 train/loss: "], []),
        ({"array": "crops"}, [], ["predictions: soft-val crops: only in B", "predictions: soft-val logits: only in A"]),
    ],
)
def test_what_differs(tmp_path: Path, change: dict, counted: list[str], reported: list[str]) -> None:
    a, b = digests(write_run(tmp_path / "a/run")), digests(write_run(tmp_path / "b/run", **change))
    for texts, expected in zip(differences(a, b), (counted, reported), strict=True):
        assert len(texts) == len(expected)
        assert all(text.startswith(start) for text, start in zip(texts, expected, strict=True))


def test_a_weight_that_one_side_lacks_and_a_failed_training_count() -> None:
    assert differences({"weights": {"a": "1", "b": "2"}}, {"weights": {"a": "1"}}) == (["weights: b: only in A"], [])
    failed = {"error": {"RuntimeError": "exit status 1"}}
    assert differences({"weights": {"a": "1"}}, failed)[0] == [
        "error: nothing in common",
        "weights: nothing in common",
        "weights: a: only in A",
    ]


def test_its_votes_are_in_the_layout_of_ferplus(tmp_path: Path) -> None:
    write_ferplus(tmp_path / "ferplus")
    usages, votes = raw_votes(tmp_path / "ferplus/fer2013new.csv")
    assert len(usages) == len(votes) == 140
    assert set(votes.sum(axis=1)) == {10}
