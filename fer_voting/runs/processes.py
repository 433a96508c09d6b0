"""The jobs of a command line: a run in this process, or each run of a sweep in a process of its own."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fer_voting.config import explain, quote
from fer_voting.runs.naming import settle
from fer_voting.runs.run import Run

log = logging.getLogger(__name__)

TRAIN = "fer_voting.experiment", "train"
"""Module and function of a training. A sweep's own process does not import them, which takes seconds."""


def job(config: DictConfig) -> dict[str, Any]:
    """One run of the command line, as Hydra composed it; in a sweep, in a process of its own."""
    hydra = HydraConfig.get()
    os.chdir(hydra.runtime.cwd)  # a launcher's worker may be elsewhere, and paths are relative to the command's folder
    config = settle(config)
    if hydra.mode is RunMode.MULTIRUN:
        outcome = run_isolated(*TRAIN, config)
        if outcome["status"] == "failed" and int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            raise ChildProcessError(outcome["error"])  # so that Slurm ends the other ranks, which wait for this one
        return outcome
    module, function = TRAIN
    result = getattr(import_module(module), function)(config)
    log.info("result: %s", Run(Path(config.output_dir), config.name).dir / "result.json")
    return result


def run_isolated(module: str, function: str, config: DictConfig) -> dict[str, Any]:
    """The result of `module.function(config)` in a child process, or `{"status": "failed", "error": ...}`.

    A sweep continues after a job that fails or that the system kills. The child is killed when this process ends.

    Args:
        config: settled (`naming.settle`).

    Raises KeyboardInterrupt after Ctrl-C, which ends the sweep.
    """
    # A fork of a server that has imported everything starts at once. Unlike a fork of this process, it inherits
    # neither threads nor a CUDA context.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    receiver, sender = context.Pipe(duplex=False)
    # The fork server keeps the environment it was started with, so pass the current one.
    arguments = module, function, config, dict(os.environ), sender
    process = context.Process(target=_child, args=arguments, name=config.name)
    process.start()
    sender.close()
    try:
        outcome = receiver.recv()
        process.join()  # it flushes what it printed, and waits for its further ranks
    except EOFError:
        process.join()
        code = process.exitcode or 0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        outcome = {"status": "failed", "error": f"the job's process was {how}"}
    except KeyboardInterrupt:
        process.join(30)  # it received the same signal, and writes its last lines
        raise
    finally:
        process.kill()
    process.join()
    if outcome["status"] == "interrupted":
        raise KeyboardInterrupt
    if outcome["status"] == "failed":
        log.info(f"{config.name}: failed: {outcome['error']}")
    return outcome


def _child(module: str, function: str, config: DictConfig, environment: Mapping[str, str], sender: Connection) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.update(environment)
    # The command line of this job by itself: Lightning repeats it for each further rank.
    place = [f"{key}={quote(str(config[key]))}" for key in ("name", "sweep", "output_dir")]
    sys.argv = ["fer_voting.train", *config.composition.overrides, *place]
    sys.modules["__main__"].__spec__ = find_spec("fer_voting.train")
    try:
        outcome = getattr(import_module(module), function)(config)
    except KeyboardInterrupt:
        outcome = {"status": "interrupted"}
    except Exception as error:
        outcome = {"status": "failed", "error": explain(error)}
    sender.send(outcome)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
