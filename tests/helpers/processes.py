"""Commands in processes of their own, without the seconds in which a new interpreter imports torch and Lightning."""

import multiprocessing
import os
import runpy
import signal
import sys
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

from fer_voting.runs.processes import TRAIN


def fork_server() -> ForkServerContext:
    """The server that also starts the jobs of sweeps: one for all tests of this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([TRAIN[0]])
    return context


def start(
    program: str | Path, *words: str, printed: Path, errors: Path | None = None, cwd: Path | None = None,
    **environment: str,
) -> ForkServerProcess:  # fmt: skip
    """`python -m MODULE WORDS...` or `python SCRIPT WORDS...`, forked from the server; `join` waits for it.

    Args:
        program: a module's name, or the path of a script.
        printed: file that gets stdout, and stderr if there is no file for `errors`.
        cwd: folder to run it in; None: this process's.
        environment: variables besides those of this process.
    """
    variables = {**os.environ, **environment}
    process = fork_server().Process(target=_run, args=(program, words, (printed, errors), cwd or Path.cwd(), variables))
    process.start()
    return process


def _run(
    program: str | Path, words: tuple[str, ...], files: tuple[Path, Path | None], cwd: Path, environment: dict[str, str]
) -> None:
    multiprocessing.set_start_method(None, force=True)  # the server's children start theirs by it otherwise
    os.chdir(cwd)
    os.environ.clear()  # the server's is as old as the server
    os.environ.update(environment)
    for path, descriptors in zip(files, ((1, 2), (2,)), strict=True):
        if path is not None:
            with path.open("wb") as file:
                for descriptor in descriptors:
                    os.dup2(file.fileno(), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what runs in the background without it
    sys.argv = [str(program), *words]
    if isinstance(program, Path):
        runpy.run_path(str(program), run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)
