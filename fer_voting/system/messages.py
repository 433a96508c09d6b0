"""Messages of a command to its user: on stderr, for stdout holds results only."""

import io
import logging
import os
import sys
import threading
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn, TextIO

from tqdm import tqdm

from fer_voting.system.text import escape

log = logging.getLogger(__name__)


def set_up_messages() -> None:
    """Show this project's messages and every warning on stderr, one plain line each. Idempotent."""
    root = logging.getLogger("fer_voting")
    if not root.handlers:
        handler = _Stderr()
        handler.setFormatter(_Line())
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        root.propagate = False
    for chatty in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.profilers").setLevel(logging.INFO)  # a profiler's summary, which was asked for
    logging.getLogger("lightning.fabric.strategies.launchers").setLevel(logging.INFO)  # the rank that was killed
    warnings.showwarning = _show_warning
    tqdm.set_lock(threading.RLock())  # its own default, a semaphore of the system, outlives a sweep's jobs
    # Loading in the training's own process is the choice of dataset.num_workers=auto, not an oversight.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="GPU available but not used")
    # On a machine from which one submits to Slurm: a training outside a job is not meant to be one.
    warnings.filterwarnings("ignore", message="The `srun` command is available on your system but is not used")
    # The evaluation logs values that are already computed over all ranks.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    # The launcher's schema, by its name, is what conf/hydra/launcher/ray.yaml is meant to be checked by.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against ConfigStore schema")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's use of torch, not ours


def exit_without_reader() -> NoReturn:
    """End the process with exit code 1 after a BrokenPipeError: the reader of stdout (`| head`) has ended."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter's last flush goes there
    sys.exit(1)


class _Stderr(logging.StreamHandler):
    """Writes to what `sys.stderr` is at the time, which a notebook or a test may replace and close."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        with tqdm.external_write_mode(sys.stderr):  # above the progress bars
            super().emit(record)


class _Line(logging.Formatter):
    """A message as one line; what a stranger's file name holds cannot steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return escape(super().format(record))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Log a warning without the line of the library that gave it, which says nothing to a user."""
    log.warning("warning: %s", " ".join(str(message).split()))


def progress_bar(*items: Any, **options: Any) -> tqdm:
    """`tqdm(*items, **options)` on stderr; where stderr is a file, it writes every 30 s at most."""
    if _outgoing is not None:
        return _SentBar(*items, file=io.StringIO(), mininterval=0.5, **options)
    if not sys.stderr.isatty():
        options |= {"mininterval": 30, "maxinterval": 60}
    return tqdm(*items, dynamic_ncols=True, file=sys.stderr, **options)


# Messages of a child process, which its parent shows ----------------------------------------------------------------

_outgoing: "_Outgoing | None" = None


class _Outgoing(logging.Handler):
    """Sends this process's messages and bars to its parent."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection, self._sending = connection, threading.RLock()

    def emit(self, record: logging.LogRecord) -> None:
        self.send("log", (record.levelno, record.getMessage()))

    def send(self, kind: str, content: Any) -> None:
        with self._sending, suppress(BrokenPipeError):  # a parent that is killed takes this process along
            self._connection.send((kind, content))


class _SentBar(tqdm):
    """A progress bar that the parent process draws."""

    disable: bool

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        assert _outgoing is not None
        state = self.format_dict
        keys = ("prefix", "n", "total", "initial", "unit", "unit_scale", "postfix")
        _outgoing.send("bar", {key: state[key] for key in keys})
        return True

    def close(self) -> None:
        if not self.disable and _outgoing is not None:
            self.disable = True
            _outgoing.send("bar", None)


def send_messages(connection: Connection) -> None:
    """From now on send this process's messages and progress bars to its parent (`Screen.show`)."""
    global _outgoing
    set_up_messages()
    _outgoing = _Outgoing(connection)
    logging.getLogger("fer_voting").handlers = [_outgoing]


class Screen:
    """Shows the messages and progress bars of child processes; a line that several of them send, once.

    Args:
        bars: whether to draw the bars.
    """

    def __init__(self, bars: bool = True) -> None:
        self._draw = bars
        self._bars: dict[str, tqdm] = {}
        self._shown: set[str] = set()
        self._shares: dict[str, float] = {}

    def __enter__(self) -> "Screen":
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._bars):
            self.show(name, "bar", None)

    def show(self, name: str, kind: str, content: Any) -> None:
        """Show a message of the child `name`: `kind` is "log" or "bar"."""
        if kind == "bar" and content is not None:
            self._shares[name] = content["n"] / content["total"] if content["total"] else 0.0
        if kind == "bar" and not self._draw:
            return
        if kind == "log":
            level, text = content
            if text not in self._shown:
                self._shown.add(text)
                log.log(level, "%s", text)
        elif content is None:
            if name in self._bars:
                self._bars.pop(name).close()
        else:
            if name not in self._bars:
                options = {key: content[key] for key in ("total", "initial", "unit", "unit_scale")}
                self._bars[name] = progress_bar(desc=content["prefix"], leave=False, **options)
            bar = self._bars[name]
            bar.set_postfix_str(content["postfix"] or "", refresh=False)
            bar.update(content["n"] - bar.n)

    def share(self, name: str) -> float:
        """The share of its last bar that the child `name` has done, 0 to 1."""
        return self._shares.get(name, 0.0)


def duration(seconds: float) -> str:
    """`3 h 05 min`, `12 min`, `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
