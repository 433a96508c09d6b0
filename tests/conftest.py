"""Fixtures that several test files share."""

import os
from pathlib import Path

import pytest

# Before any test imports a library that asks its home server for news.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["WANDB_MODE"] = "offline"

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real faces that may not be copied into the repository; CI lays them beside the checkout."""
    path = REPO.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"the real faces are not at {path}")
    return path
