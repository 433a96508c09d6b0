"""Loggers that tests name in a configuration."""

import builtins
from typing import Any

from lightning.pytorch.loggers import Logger


class FailingLogger(Logger):
    """Raises where it is told to.

    Args:
        where: `start`, or the names of methods or properties, with blanks between them.
        error: name of the class of what it raises.
    """

    def __init__(self, where: str, error: str = "RuntimeError") -> None:
        super().__init__()
        self.where, self.error = where.split(), getattr(builtins, error)
        self._called("start")

    def _called(self, name: str) -> Any:
        if name in self.where:
            raise self.error(f"no {name} today")

    experiment = property(lambda self: self._called("experiment"))
    name = property(lambda self: self._called("name"))
    version = property(lambda self: self._called("version"))
    save_dir = property(lambda self: self._called("save_dir"))

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        self._called("log_metrics")

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self._called("log_hyperparams")

    def log_graph(self, model: Any, input_array: Any = None) -> None:
        self._called("log_graph")

    def save(self) -> None:
        self._called("save")

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        self._called("after_save_checkpoint")

    def finalize(self, status: str) -> None:
        self._called("finalize")
