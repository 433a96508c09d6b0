"""Ends a command by SIGKILL at a chosen file operation; for `tests.chaos.run`.

A Python process that imports this module through `sitecustomize` and finds a plan in its environment counts the file
operations below a folder by Python's audit hook, which is called before each: opening a file to write, renaming,
removing, and making a folder. Each is appended to a log. Before the chosen one the whole process group is killed, as by
a power failure: what the operation before left on the disk is all that is left.
"""

import os
import signal
import sys
from typing import Any

PLAN = "FER_VOTING_KILL_PLAN"
"""Environment variable: folder, log file and number of the operation (0: none), with a line break between them."""

OPERATIONS = {"open": "write", "os.rename": "rename", "os.remove": "remove", "os.mkdir": "mkdir"}


def plan(folder: str, log: str, number: int) -> dict[str, str]:
    """The environment of a command that is killed before operation `number`, counted from 1 in each process."""
    return {PLAN: f"{folder}\n{log}\n{number}"}


def install() -> None:
    """Install the audit hook if the environment holds a plan."""
    if PLAN not in os.environ:
        return
    folder, log, number = os.environ[PLAN].split("\n")
    prefix, last = folder.rstrip("/") + "/", int(number)
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    counts: dict[int, int] = {}  # by process: a fork starts to count anew

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in OPERATIONS or not _writes(event, arguments):
            return
        path = os.fsdecode(arguments[0])
        if not os.path.abspath(path).startswith(prefix):
            return
        process = os.getpid()
        counts[process] = counts.get(process, 0) + 1
        os.write(descriptor, f"{counts[process]} {OPERATIONS[event]} {os.path.abspath(path)}\n".encode())
        if counts[process] == last:
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


def _writes(event: str, arguments: tuple[Any, ...]) -> bool:
    if not isinstance(arguments[0], str | bytes):  # a descriptor, which was opened before
        return False
    if event != "open":
        return True
    _, mode, flags = arguments
    return bool(set(mode) & set("wax+")) if mode else bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
