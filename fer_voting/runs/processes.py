"""Child processes: the jobs of a sweep, and the ranks of a training over several devices."""

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, cast

from fer_voting.config import explain

if TYPE_CHECKING:  # a sweep's own process trains nothing, and importing Lightning takes seconds
    import lightning as L

log = logging.getLogger(__name__)

Function = Callable[[dict[str, Any]], dict[str, Any]]

PRELOADED = ["fer_voting.training.fit", "fer_voting.results.plots", "lightning.pytorch.loggers"]
"""Modules that every job imports: the fork server imports them once."""
RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Environment variables in which torchrun, Slurm, Lightning and `other_ranks` give a process its rank."""
STUCK_SECONDS = 30
"""Seconds that rank 0 may continue after another rank has failed, before it is taken to wait in a collective."""


def is_first_rank() -> bool:
    """Whether this process is rank 0 of its training, which writes the run's files."""
    return all(os.environ.get(variable, "0") == "0" for variable in RANK_VARIABLES)


class _Child:
    """`function(config)` in a child process, which is killed when this process ends."""

    def __init__(self, function: Function, config: dict[str, Any], environment: Mapping[str, str]) -> None:
        # A fork of a server that has imported everything starts at once. Unlike a fork of this process, it inherits
        # neither threads nor a CUDA context.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.pipe, theirs = context.Pipe(duplex=False)
        # The server's environment is as old as the server.
        changed = {**os.environ, **environment}
        self.process = context.Process(target=_child, args=(function, config, changed, theirs), name=config["name"])
        self.process.start()
        theirs.close()

    def outcome(self) -> dict[str, Any]:
        """Wait for the function's result, `{"status": "interrupted"}` or `{"status": "failed", "error": ...}`."""
        try:
            outcome = self.pipe.recv()
        except EOFError:
            self.process.join()
            code = self.process.exitcode or 0
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            outcome = {"status": "failed", "error": f"the job's process was {how}"}
        self.process.join()
        return outcome


def _child(function: Function, config: dict[str, Any], environment: Mapping[str, str], pipe: Connection) -> None:
    threading.Thread(target=_die_with_parent, daemon=True).start()
    os.environ.update(environment)
    try:
        outcome = function(config)
    except KeyboardInterrupt:
        outcome = {"status": "interrupted"}
    except Exception as error:
        outcome = {"status": "failed", "error": explain(error)}
    pipe.send(outcome)


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def run_isolated(function: Function, config: dict[str, Any]) -> dict[str, Any]:
    """The result of `function(config)` in a child process, or `{"status": "failed", "error": ...}`.

    A sweep continues after a job that fails or that the system kills. The child is killed when this process ends.

    Raises KeyboardInterrupt after Ctrl-C, which ends the sweep.
    """
    child = _Child(function, config, {})
    try:
        outcome = child.outcome()
    except KeyboardInterrupt:
        child.process.join(30)  # it received the same signal, and writes its last lines
        raise
    finally:
        child.process.kill()
    if outcome["status"] == "interrupted":
        raise KeyboardInterrupt
    if outcome["status"] == "failed":
        log.info(f"{config['name']}: failed: {outcome['error']}")
    return outcome


@contextmanager
def other_ranks(
    trainer: "L.Trainer", function: Function, config: dict[str, Any], give_up: Callable[[str], None]
) -> Iterator[None]:
    """Start ranks 1, 2, … of this node, each of which runs `function(config)`, for the time of the context.

    Lightning would repeat this process's command line for each rank, which in a job of a sweep is the whole sweep's.
    Nothing is started where one device trains, or where a launcher (torchrun, Slurm) starts all ranks.

    Args:
        trainer: the training's; its strategy says how many devices there are.
        give_up: called with one line before this process ends itself, because another rank failed and rank 0 hangs.

    Raises ChildProcessError if another rank fails, KeyboardInterrupt if it is interrupted.
    """
    import torch.distributed as dist
    from lightning.pytorch.strategies import ParallelStrategy

    strategy = trainer.strategy
    if (
        trainer.num_devices == 1
        or not isinstance(strategy, ParallelStrategy)
        or strategy.cluster_environment is None
        or strategy.cluster_environment.creates_processes_externally
    ):
        yield
        return
    cluster = strategy.cluster_environment
    # These make Lightning take all ranks as started (`LightningEnvironment.creates_processes_externally`).
    environment = {
        "MASTER_ADDR": cluster.main_address,
        "MASTER_PORT": str(cluster.main_port),
        "NODE_RANK": str(cluster.node_rank()),
        "WORLD_SIZE": str(trainer.world_size),
        "LOCAL_RANK": "0",
    }
    before = {variable: os.environ.get(variable) for variable in environment}
    children = {
        rank: _Child(function, config, {**environment, "LOCAL_RANK": str(rank)})
        for rank in range(1, trainer.num_devices)
    }
    os.environ.update(environment)
    watch = _Watch(children, give_up)
    try:
        yield
        watch.settled.wait()
    except Exception as error:
        if watch.settled.wait(2):  # this rank's error is then a consequence of the other's
            watch.check(error)
        raise
    finally:
        for child in children.values():
            child.process.kill()
        if dist.is_initialized():
            dist.destroy_process_group()
        watch.ended.set()
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value
    watch.check()


class _Watch(threading.Thread):
    """Waits until all other ranks have finished or one has failed (`settled`), and then for rank 0 (`ended`)."""

    def __init__(self, children: Mapping[int, _Child], give_up: Callable[[str], None]) -> None:
        super().__init__(daemon=True)
        self.children, self.give_up = children, give_up
        self.settled, self.ended = threading.Event(), threading.Event()
        self.status, self.error = "finished", ""
        self.start()

    def run(self) -> None:
        ranks = {child.pipe: rank for rank, child in self.children.items()}
        while ranks and self.status == "finished":
            for pipe in wait(list(ranks)):
                rank = ranks.pop(cast(Connection, pipe))
                outcome = self.children[rank].outcome()
                if outcome["status"] != "finished":
                    self.status = outcome["status"]
                    self.error = f"rank {rank}: {outcome.get('error', self.status)}"
                    break
        self.settled.set()
        if self.status != "finished" and not self.ended.wait(STUCK_SECONDS):
            self.give_up(self.error)
            os._exit(1)

    def check(self, cause: Exception | None = None) -> None:
        """Raise the error of another rank."""
        if self.status == "interrupted":
            raise KeyboardInterrupt from cause
        if self.status == "failed":
            raise ChildProcessError(self.error) from cause
