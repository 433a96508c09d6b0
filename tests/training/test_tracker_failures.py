"""A training goes on whatever a tracker raises: at its start, in an epoch, at its end."""

import shutil
from pathlib import Path

import pytest
from helpers.loggers import FailingLogger
from helpers.train import TINY, train_here
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger

from fer_voting.runs.run import Run
from fer_voting.training.loggers import running_loggers

ASK_LOGGERS = (
    "+callbacks.rates={_target_: lightning.pytorch.callbacks.LearningRateMonitor}",
    "+callbacks.kept={_target_: lightning.pytorch.callbacks.ModelCheckpoint}",
)
"""Callbacks of Lightning that ask the loggers for their names and folders, and fail without a logger."""
IN_METHODS = ("log_hyperparams", "log_metrics", "log_graph", "save", "after_save_checkpoint", "finalize")


def failing(where: str, error: str = "RuntimeError") -> str:
    return f"+logger.fails_in_{where}={{_target_: helpers.loggers.FailingLogger, where: {where}, error: {error}}}"


def train(output_dir: Path, *words: str) -> Run:
    train_here(output_dir, *TINY, "split=baseline", "name=mine", *ASK_LOGGERS, *words)
    return Run(output_dir, "mine")


def warnings(messages: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in messages.records if "goes on" in record.getMessage()]


@pytest.mark.slow
def test_a_logger_that_raises_in_a_method_costs_one_line(tmp_path: Path, messages: pytest.LogCaptureFixture):
    run = train(tmp_path, *map(failing, IN_METHODS))
    assert run.status() == "finished"
    assert sorted(warnings(messages)) == sorted(
        f"the training goes on, FailingLogger.{name} failed: RuntimeError: no {name} today" for name in IN_METHODS
    )


@pytest.mark.slow
def test_a_logger_that_cannot_say_who_it_is(tmp_path: Path, messages: pytest.LogCaptureFixture):
    properties = ("name", "save_dir", "version")
    word = (
        "+logger.fails={_target_: helpers.loggers.FailingLogger, where: 'name save_dir version', error: AttributeError}"
    )
    assert train(tmp_path, word).status() == "finished"
    assert sorted(warnings(messages)) == [
        f"the training goes on, FailingLogger.{name} failed: AttributeError: no {name} today" for name in properties
    ]


@pytest.mark.slow
def test_loggers_that_do_not_start(tmp_path: Path, messages: pytest.LogCaptureFixture):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").touch()
    words = ["logger=tensorboard", f"logger.tensorboard.save_dir={tmp_path}/file/below"]
    words += [failing("start", "ValueError"), failing("experiment", "ImportError")]
    assert train(tmp_path, *words).status() == "finished"
    tensorboard, *others = warnings(messages)
    assert tensorboard.startswith("the training goes on without TensorBoardLogger, which did not start: ")
    assert "Not a directory" in tensorboard
    assert others == [
        "the training goes on without FailingLogger, which did not start: no start today",
        "the training goes on without FailingLogger, which did not start: ImportError: no experiment today",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["start", "log_metrics"])
def test_ctrl_c_in_a_logger_is_ctrl_c(tmp_path: Path, where: str):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, failing(where, "KeyboardInterrupt"))
    assert Run(tmp_path, "mine").status() == "interrupted"


@pytest.mark.slow
def test_an_mlflow_database_that_goes_away(tmp_path: Path, messages: pytest.LogCaptureFixture, mlflow_database: Path):
    shutil.copy(mlflow_database, tmp_path)
    empties = f"+callbacks.empties={{_target_: helpers.callbacks.EmptiesFile, path: {tmp_path}/mlflow.db}}"
    assert train(tmp_path, "logger=mlflow", empties).status() == "finished"
    assert any("OneRunMLFlowLogger.log_metrics failed" in line for line in warnings(messages))


def test_a_wrapped_logger_is_of_its_class():
    with running_loggers([lambda: FailingLogger("none")]) as (logger,):
        assert isinstance(logger, FailingLogger)
        assert not hasattr(logger, "of_another_class")


def test_ranks_above_0_have_a_logger_that_does_nothing(monkeypatch: pytest.MonkeyPatch):
    def start() -> Logger:
        raise AssertionError

    monkeypatch.setenv("RANK", "1")
    with running_loggers([start]) as (logger,):
        assert isinstance(logger, DummyLogger)
