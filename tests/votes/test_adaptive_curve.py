"""The accuracy of the adaptive vote at each cost, against a loop over the images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fer_voting.results.evaluation import adaptive_text
from fer_voting.results.plots import adaptive_figure, save
from fer_voting.votes import AdaptiveCost, AdaptiveVote, CropOutputs, adaptive_curve

pytestmark = pytest.mark.slow

COST = AdaptiveCost(trunk=1.0, full_map=0.5, crops=4.0)
VOTE = AdaptiveVote("adaptive", threshold=0.6)


def made() -> tuple[CropOutputs, torch.Tensor]:
    """200 images and labels: the full map is often right, the crops more often."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 5, (200,), generator=generator)
    truth = 2 * torch.nn.functional.one_hot(labels, 5).float()
    whole = truth + 1.5 * torch.randn(200, 5, generator=generator)
    return CropOutputs(truth[:, None] + 2 * torch.randn(200, 10, 5, generator=generator), whole), labels


def test_curve_against_a_loop() -> None:
    outputs, labels = made()
    whole, crops = outputs.full_map, outputs.crops
    found = adaptive_curve(outputs, labels, COST, VOTE)
    certainties = whole.softmax(dim=1).max(dim=1).values.tolist()
    assert [point["share"] for point in found["curve"]] == pytest.approx(np.linspace(0, 1, 21))
    for point in [*found["curve"], found["chosen"]]:
        right = computed = 0
        for i, certain in enumerate(certainties):
            unsure = certain <= point["threshold"]
            computed += unsure
            right += int((crops[i].mean(dim=0) if unsure else whole[i]).argmax() == labels[i])
        assert point["share"] == pytest.approx(computed / 200)
        assert point["gmacs"] == pytest.approx(1.5 + 4.0 * computed / 200)
        assert point["accuracy"] == pytest.approx(right / 200)
    assert found["chosen"]["threshold"] == 0.6
    assert found["vote"]["gmacs"] == 5.0
    assert found["vote"]["accuracy"] == found["curve"][-1]["accuracy"] > found["curve"][0]["accuracy"]
    assert found["gmacs"] == {"trunk": 1.0, "whole": 0.5, "crops": 4.0}


def test_text_and_picture(tmp_path: Path) -> None:
    found = adaptive_curve(*made(), COST, VOTE)
    chosen = found["chosen"]
    extra = (chosen["gmacs"] - 1.5) / 3.5
    text = adaptive_text(found)
    assert f"{chosen['accuracy']:.2%} at {chosen['gmacs']:.3f}, threshold 0.600" in text
    assert f"{chosen['share']:.0%} of the images, {extra:.0%} of the vote's extra" in text
    assert "adaptive vote  " not in adaptive_text(adaptive_curve(*made(), COST, None))
    for vote in (VOTE, None):
        save(adaptive_figure(adaptive_curve(*made(), COST, vote), "a title"), tmp_path / "curve.png")
        with Image.open(tmp_path / "curve.png") as image:
            assert min(image.size) > 300
