import logging

import numpy as np
import pytest

from fer_voting.data.division import count_classes, differences, without_leaks


def test_classes_are_counted_by_name() -> None:
    assert count_classes(np.array([2, 0, 2]), ("happy", "sad", "fear")) == {"happy": 1, "sad": 0, "fear": 2}


def test_only_published_numbers_are_compared() -> None:
    here = {"train": {"happy": 1200, "sad": 3}, "val": {"happy": 1, "sad": 1}}
    published = {"train": {"happy": 1000, "sad": 3}, "test": {"happy": 1}}
    assert list(differences(here, published)) == [
        "the official train part has 1,203 images here instead of 1,003 (happy 1,200 instead of 1,000)"
    ]
    assert not list(differences(here, {}))


def test_a_leak_is_left_out_of_the_earlier_part(caplog: pytest.LogCaptureFixture) -> None:
    """By hand: content a is in train twice and in val; b in train and test; c in val and test; d and e in one part."""
    caplog.set_level(logging.INFO)
    hashes = np.array([ord(content) for content in "aabdaccbe"], np.int64).view("V8")
    division = {"train": np.array([0, 1, 2, 3]), "val": np.array([4, 5]), "test": np.array([6, 7, 8])}
    disjoint = without_leaks(division, hashes, "x")
    assert {part: rows.tolist() for part, rows in disjoint.items()} == {"train": [3], "val": [4], "test": [6, 7, 8]}
    assert "x: left out 3 train images, also in val or test" in caplog.text
    assert "x: left out 1 val image, also in test" in caplog.text
