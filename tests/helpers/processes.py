"""Commands in processes of their own, without the seconds in which a new interpreter imports torch and Lightning."""

import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from fer_voting.runs.processes import TRAIN


def start(module: str, *words: str, printed: Path) -> ForkServerProcess:
    """`python -m MODULE WORDS...`, forked from the server that also starts the jobs of sweeps; `join` waits for it.

    Args:
        printed: file that gets stdout and stderr.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([TRAIN[0]])
    process = context.Process(target=_run, args=(module, words, printed, dict(os.environ)))
    process.start()
    return process


def _run(module: str, words: tuple[str, ...], printed: Path, environment: dict[str, str]) -> None:
    os.environ.clear()  # the server's is as old as the server
    os.environ.update(environment)
    with printed.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
