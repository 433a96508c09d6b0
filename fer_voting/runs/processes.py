"""The jobs of a command line: a run in this process, or each run of a sweep in a process of its own.

A sweep continues after a job that fails or that the system kills.
"""

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import cloudpickle
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from fer_voting.config import explain, quote
from fer_voting.runs.naming import settle
from fer_voting.runs.run import Run
from fer_voting.system.messages import Screen, send_messages, set_up_messages

log = logging.getLogger(__name__)

TRAIN = "fer_voting.experiment", "train"
"""Module and function of a training. A sweep's own process does not import it, which takes seconds."""


def job(config: DictConfig) -> dict[str, Any]:
    """One run of the command line, as Hydra composed it; in a sweep, in a process of its own."""
    set_up_messages()  # in a launcher's worker, which no command has set up
    hydra = HydraConfig.get()
    os.chdir(hydra.runtime.cwd)  # a launcher's worker may be elsewhere, and paths are relative to the command's folder
    config = settle(config)
    if hydra.mode is not RunMode.MULTIRUN:
        result = call(*TRAIN, config)
        log.info("result: %s", Run(Path(config.output_dir), config.name).dir / "result.json")
        return result
    if _in_child:
        return outcome_of(train_apart, config)
    outcome = run_isolated(config.name, train_apart, config)
    if outcome["status"] == "failed":
        log.info(f"{config.name}: failed: {outcome['error']}")
        if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
            raise ChildProcessError(outcome["error"])  # so that Slurm ends the other ranks, which wait for this one
    return outcome


def train_apart(config: DictConfig) -> dict[str, Any]:
    """Train the run of a settled configuration in a process that does nothing else."""
    use_command_line(config)
    return call(*TRAIN, config)


def use_command_line(config: DictConfig) -> None:
    """Make this process's command line the one of this run by itself: Lightning repeats it for each further rank."""
    place = [f"{key}={quote(str(config[key]))}" for key in ("name", "sweep", "output_dir")]
    sys.argv = ["fer_voting.train", *config.composition.overrides, *place]
    sys.modules["__main__"].__spec__ = find_spec("fer_voting.train")


def call(module: str, function: str, *arguments: Any) -> Any:
    """`module.function(*arguments)`; the module is imported here."""
    return getattr(import_module(module), function)(*arguments)


_in_child = False
"""Whether this process is a child that `Process` started."""


class Process:
    """A child process that calls a function. It is killed when this process ends.

    Args:
        function: with `arguments`, anything that cloudpickle takes. It returns what pickle takes.
        environment: variables besides those of this process.
    """

    def __init__(
        self, name: str, function: Callable[..., Any], *arguments: Any, environment: Mapping[str, str]
    ) -> None:
        # A fork of a server that has imported everything starts at once. Unlike a fork of this process, it inherits
        # neither threads nor a CUDA context.
        context = get_context("forkserver")
        context.set_forkserver_preload([TRAIN[0]])
        self.connection, sender = context.Pipe(duplex=False)
        # The fork server keeps the environment it was started with, so pass the current one.
        task = cloudpickle.dumps((function, arguments))
        self._process = context.Process(target=_child, args=(task, {**os.environ, **environment}, sender), name=name)
        self._process.start()
        sender.close()

    def receive(self, screen: Screen) -> Any | None:
        """Show the next message on the screen (None), or return the outcome, after which the process has ended."""
        try:
            kind, content = self.connection.recv()
        except EOFError:
            self._process.join()
            code = self._process.exitcode or 0
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            return {"status": "failed", "error": f"the job's process was {how}"}
        if kind != "outcome":
            screen.show(self._process.name, kind, content)
            return None
        self._process.join()  # it flushes what it printed, and waits for its further ranks
        return content

    def end(self, patience_seconds: float) -> None:
        """Kill it if it does not end by itself."""
        self._process.join(patience_seconds)
        self._process.kill()
        self._process.join()


def run_isolated(name: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The outcome of `function(*arguments)` in a child process, or `{"status": "failed", "error": ...}`.

    Raises KeyboardInterrupt after Ctrl-C, which ends the sweep.
    """
    process = Process(name, function, *arguments, environment={})
    patience_seconds = 0.0
    with Screen() as screen:
        try:
            while (outcome := process.receive(screen)) is None:
                pass
        except KeyboardInterrupt:
            patience_seconds = 30  # it received the same signal, and writes its last lines
            raise
        finally:
            process.end(patience_seconds)
    if outcome["status"] == "interrupted":
        raise KeyboardInterrupt
    return outcome


def outcome_of(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """The result of `function`; an error as `{"status": "failed", "error": ...}`, Ctrl-C as "interrupted"."""
    try:
        return function(*arguments)
    except KeyboardInterrupt:
        return {"status": "interrupted"}
    except SystemExit as error:  # a command's way to end, after it said why
        return {"status": "failed", "error": str(error.code).splitlines()[0].removeprefix("error: ")}
    except Exception as error:
        return {"status": "failed", "error": explain(error)}


def _child(task: bytes, environment: Mapping[str, str], sender: Connection) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    global _in_child
    _in_child = True
    os.environ.update(environment)
    send_messages(sender)
    function, arguments = cloudpickle.loads(task)
    sender.send(("outcome", outcome_of(function, *arguments)))


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
