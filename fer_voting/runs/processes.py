"""Functions called in processes of their own: a sweep continues after a job that fails or that the system kills."""

import os
import signal
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing import get_context, parent_process, set_start_method
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle
from hydra.core.utils import run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from fer_voting.config import explain
from fer_voting.system.messages import Screen, send_messages

TRAIN = "fer_voting.experiment", "train"
"""Module and function of a training. A sweep's own process does not import it, which takes seconds."""


def call(module: str, function: str, *arguments: Any) -> Any:
    """`module.function(*arguments)`; the module is imported here."""
    return getattr(import_module(module), function)(*arguments)


in_child = False
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


def hydra_job(context: HydraContext, task: TaskFunction, config: DictConfig) -> dict[str, Any]:
    """One job in a process of its own: its outcome, or what else the task returns as "value"."""
    setup_globals()
    returned = run_job(
        task_function=task,
        config=config,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
        hydra_context=context,
    )
    value = returned.return_value  # raises what the task raised
    return value if isinstance(value, dict) and "status" in value else {"status": "finished", "value": value}


def _child(task: bytes, environment: Mapping[str, str], sender: Connection) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    global in_child
    in_child = True
    # The workers of loaders would start by a fork server of their own otherwise: seconds of imports each.
    set_start_method(None, force=True)
    os.environ.update(environment)
    send_messages(sender)
    function, arguments = cloudpickle.loads(task)
    sender.send(("outcome", outcome_of(function, *arguments)))


def _die_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)
