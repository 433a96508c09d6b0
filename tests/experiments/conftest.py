"""Fixtures of the experiments on FER2013."""

from pathlib import Path

import pytest
from helpers.datasets import fer2013_with_votes


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small FER2013 with FER+'s votes."""
    folder = tmp_path_factory.mktemp("fer2013")
    fer2013_with_votes(folder)
    return folder
