"""Train a network, or a sweep of them: `python -m fer_voting.train [-m] [group=option] [key=value] ...`.

`fer_voting.experiment.train` does it, once the configuration is composed.
"""

import logging
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from fer_voting.config import command, quote
from fer_voting.runs import processes
from fer_voting.runs.naming import settle
from fer_voting.runs.run import Run
from fer_voting.system.messages import set_up_messages
from fer_voting.system.packages import whole_package

with whole_package():
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode
    from omegaconf import DictConfig

log = logging.getLogger(__name__)


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports each sweep to its makers otherwise
    command("fer_voting.train:job")


def job(config: DictConfig) -> dict[str, Any]:
    """One run of the command line, as Hydra composed it; in a sweep, in a process of its own."""
    set_up_messages()  # in a launcher's worker, which no command has set up
    hydra = HydraConfig.get()
    os.chdir(hydra.runtime.cwd)  # a launcher's worker may be elsewhere, and paths are relative to the command's folder
    config = settle(config)
    if hydra.mode is not RunMode.MULTIRUN:
        result = processes.call(*processes.TRAIN, config)
        log.info("result: %s", Run(Path(config.output_dir), config.name).dir / "result.json")
        return result
    if processes.in_child:
        return processes.outcome_of(train_apart, config)
    outcome = processes.run_isolated(config.name, train_apart, config)
    if outcome["status"] == "failed":
        log.info(f"{config.name}: failed: {outcome['error']}")
    return outcome


def train_apart(config: DictConfig) -> dict[str, Any]:
    """Train the run of a settled configuration in a process that does nothing else."""
    use_command_line(config)
    return processes.call(*processes.TRAIN, config)


def use_command_line(config: DictConfig) -> None:
    """Make this process's command line the one of this run by itself: Lightning repeats it for each further rank."""
    place = [f"{key}={quote(str(config[key]))}" for key in ("name", "sweep", "output_dir")]
    sys.argv = ["fer_voting.train", *config.composition.overrides, *place]
    sys.modules["__main__"].__spec__ = find_spec("fer_voting.train")


class _Callable(ModuleType):
    """This module, called as the function of its name: once it is imported, `from fer_voting import train` gives it."""

    def __call__(self, *arguments: Any) -> dict[str, Any]:
        return processes.call(*processes.TRAIN, *arguments)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    main()
