"""Rows, table and plot of accuracies on worse images."""

import numpy as np
import pytest
import torch

from fer_voting.results.plots import svg
from fer_voting.results.robustness import WHOLE_MAP, robustness_figure, robustness_row, robustness_table
from fer_voting.votes import VOTES, CropOutputs

LABELS = np.array([0, 1, 1, 0])


def outputs(whole_map: bool = True) -> CropOutputs:
    """Four images, two crops: by the soft vote three are right, by the whole map two."""
    crops = torch.tensor([[[2.0, 0.0]] * 2, [[0.0, 1.0]] * 2, [[1.0, 0.0]] * 2, [[1.0, 0.0]] * 2])
    return CropOutputs(crops, torch.tensor([[0.0, 1.0]] * 4) if whole_map else None)


def test_a_row_has_each_vote_and_the_whole_map() -> None:
    votes = {"soft": VOTES["soft"], "hard": VOTES["hard"]}
    row = robustness_row("jpeg", 15, outputs(), LABELS, 2, votes)
    assert (row["corruption"], row["strength"]) == ("jpeg", 15)
    assert {vote: of_vote["accuracy"] for vote, of_vote in row["votes"].items()} == {
        "soft": 0.75,
        "hard": 0.75,
        WHOLE_MAP: 0.5,
    }
    low, high = row["votes"]["soft"]["interval"]
    assert 0 <= low < 0.75 < high <= 1
    assert WHOLE_MAP not in robustness_row(None, None, outputs(whole_map=False), LABELS, 2, votes)["votes"]


@pytest.mark.parametrize("whole_map", [False, True])
def test_table_and_plot_show_every_corruption(whole_map: bool) -> None:
    votes = {"soft": VOTES["soft"]}
    conditions = [(None, None), ("jpeg", 30), ("jpeg", 7), ("eyes", 0.25)]
    rows = [robustness_row(*one, outputs(whole_map), LABELS, 2, votes) for one in conditions]
    table = robustness_table(rows)
    assert table.header == ["corruption", "strength", "soft vote", *([WHOLE_MAP] if whole_map else [])]
    assert [row[:3] for row in table.rows] == [
        ["none", "–", "75.00"],
        ["jpeg (quality)", "30", "75.00"],
        ["jpeg (quality)", "7", "75.00"],
        ["eyes (share covered by a bar)", "0.25", "75.00"],
    ]
    drawn = svg(robustness_figure(rows, "mine"))
    for text in ("jpeg", "eyes", "quality", "soft", "mine"):
        assert f">{text}</text>" in drawn
    assert (WHOLE_MAP in drawn) == whole_map
    assert "mouth" not in drawn
