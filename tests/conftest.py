"""Fixtures that several test files share."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import REPO, TINY

# Before any test imports a library that asks its home server for news.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_HTTP_TIMEOUT"] = "3"  # seconds, not 19: its server is here, or gone on purpose

if "PYTEST_XDIST_WORKER" in os.environ:  # a test file a core: more threads than that stand in each other's way
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Lightning leaves a process that trained beside others on the same CPU with one thread."""
    import torch

    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    yield
    torch.set_num_threads(threads)
    if variable is None:
        os.environ.pop("OMP_NUM_THREADS", None)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real faces that may not be copied into the repository; CI lays them beside the checkout."""
    path = REPO.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"the real faces are not at {path}")
    return path


@pytest.fixture
def run_train(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """`python -m fer_voting.train WORDS...` in this process, on tiny data and into a folder of the test's own.

    Returns the output folder; raises what the command raises, SystemExit for an error.
    """
    from fer_voting.train import main

    def run(*words: str) -> Path:
        output_dir = tmp_path / "outputs"
        first = [word for word in words if word == "-m"]
        words = tuple(word for word in words if word != "-m")
        monkeypatch.setattr(sys, "argv", ["fer_voting.train", *first, f"output_dir={output_dir}", *TINY, *words])
        main()
        return output_dir

    return run


@pytest.fixture
def never_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """W&B online, as a user has it who never logged in: no key anywhere, nothing of an earlier test remembered."""
    import wandb

    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    yield monkeypatch
    wandb.teardown()
