"""The README's drawing says what the network computes, and is small enough for a first page."""

import importlib.util

import numpy as np
import PIL.Image
import pytest
from helpers.train import REPO

from fer_voting import Recognizer


@pytest.mark.slow
def test_the_drawing_shows_the_votes_and_the_decision_of_the_network_that_ships():
    spec = importlib.util.spec_from_file_location("draw_idea", REPO / "docs/draw_idea.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    figure = module.draw()

    face = np.asarray(figure.axes[1].images[0].get_array())
    found = Recognizer.load()(face)
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert [text for text in texts if text in found.class_names] == list(found.crop_classes[0])
    logits = found.crop_logits[0]
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    mean = np.exp(logits.mean(axis=0)) / np.exp(logits.mean(axis=0)).sum()
    percentages = [f"{100 * share:.0f} %" for share in (*shares.max(axis=1), mean.max())]
    assert [text for text in texts if text.endswith(" %")] == percentages
    assert found.classes == ["surprise"]
    assert [text.get_text() for text in figure.axes[-1].get_yticklabels()] == list(found.class_names)


def test_the_drawing_is_small_in_bytes():
    path = REPO / "docs/images/idea.png"
    assert path.stat().st_size < 150_000
    with PIL.Image.open(path) as image:
        assert image.width >= 1400
