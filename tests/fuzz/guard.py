"""Watches code for forbidden actions: writing outside a folder, starting a program, connecting to another machine."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {"os.mkdir": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1, "os.link": 2, "os.symlink": 2, "os.truncate": 1}
"""Event of Python's audit -> how many of its arguments are paths (PEP 578)."""
_PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork")
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")


class _Watch:
    """The one hook of this process: a hook stays for the life of an interpreter."""

    def __init__(self) -> None:
        self.folder: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event == "open" and arguments[2] & _WRITES:
            self._path(event, arguments[0])
        elif event in _PATHS:
            for path in arguments[: _PATHS[event]]:
                self._path(event, path)
        elif event in _PROGRAMS or event in _NETWORK:
            self.seen.append(f"{event} {arguments[:2]!r}"[:200])

    def _path(self, event: str, path: Any) -> None:
        if isinstance(path, int) or path == os.devnull:
            return
        real = os.path.realpath(os.fsdecode(path))
        if os.path.commonpath([real, str(self.folder)]) != self.folder:
            self.seen.append(f"{event} {real}")


_watch: _Watch | None = None


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """Forbidden actions of the code in this context, one line each: writing outside of `folder`, starting a program,
    connecting. Only what goes through Python is seen."""
    global _watch
    _watch = _watch or _Watch()
    _watch.folder, _watch.seen = os.path.realpath(folder), []
    try:
        yield _watch.seen
    finally:
        _watch.folder = None
