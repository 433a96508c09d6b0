"""Fixtures that several test files share."""

import gc
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.train import REPO, TINY, train_here

# Before any test imports a library that asks its home server for news.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no processes that import torch to start compilers side by side
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - not 15, with which its workers wait for the other tests
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["WANDB_HTTP_TIMEOUT"] = "3"  # seconds, not 19: its server is here, or gone on purpose

if "PYTEST_XDIST_WORKER" in os.environ:  # one test process a core
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENCV_FOR_THREADS_NUM"] = "1"

import torch

from fer_voting.runs.run import Run
from fer_voting.system.machine import usable_cores
from fer_voting.system.messages import set_up_messages


def pytest_xdist_auto_num_workers() -> int:
    """One more than the cores: for a quarter of its time, a process of the suite waits for others."""
    return usable_cores() + 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: the processes then share the quick files and end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="there is no GPU that torch can use"))


def pytest_collection_finish() -> None:
    """Collect garbage less often, and leave out what was imported so far: a twentieth of the suite's time is saved."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """Restores the number of threads: Lightning sets one where several processes train on the same CPU."""
    threads, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    yield
    torch.set_num_threads(threads)
    if variable is None:
        os.environ.pop("OMP_NUM_THREADS", None)


@pytest.fixture(autouse=True)
def no_run_of_wandb_stays_open() -> Iterator[None]:
    """Fails a test that leaves its W&B run to the process: the next test's would write into it."""
    yield
    wandb = sys.modules.get("wandb")
    assert getattr(wandb, "run", None) is None


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real faces, which may not be copied into the repository; CI puts it next to the checkout."""
    path = REPO.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip(f"the real faces are not at {path}")
    return path


@pytest.fixture
def run_train(tmp_path: Path) -> Callable[..., Path]:
    """`train_here` on tiny data and into a folder of the test's own; returns the output folder."""

    def run(*words: str) -> Path:
        train_here(tmp_path / "outputs", *TINY, *words)
        return tmp_path / "outputs"

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that every test may read and none may change: m3 of width 16, on tiny data."""
    output_dir = tmp_path_factory.mktemp("trained") / "outputs"
    train_here(output_dir, *TINY, "split=m3", "model.width=16", "name=trained")
    return Run(output_dir, "trained")


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to be copied: MLflow takes seconds to make one."""
    mlflow = pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def messages(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log of this package, Lightning and MLflow: commands keep it from the root logger, where caplog listens."""
    set_up_messages()
    loggers = [logging.getLogger(name) for name in ("fer_voting", "lightning.pytorch", "mlflow.store")]
    for logger in loggers:
        logger.addHandler(caplog.handler)
    yield caplog
    for logger in loggers:
        logger.removeHandler(caplog.handler)


@pytest.fixture
def never_logged_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """A patch with W&B online and no login: no key anywhere, and no service left by an earlier test."""
    import wandb

    wandb.teardown()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "config"))
    yield monkeypatch
    wandb.teardown()
