"""Messages of a command to its user: on stderr, for stdout holds results only."""

import logging
import sys
import threading
import warnings
from typing import Any, TextIO

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
    warnings.showwarning = _show_warning
    tqdm.set_lock(threading.RLock())  # its own default, a semaphore of the system, outlives a sweep's jobs
    # Loading in the training's own process is the choice of dataset.num_workers=auto, not an oversight.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message="GPU available but not used")
    # The evaluation logs values that are already computed over all ranks.
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")
    # The launcher's schema, by its name, is what conf/hydra/launcher/ray.yaml is meant to be checked by.
    warnings.filterwarnings("ignore", message=r"\s*'hydra/launcher/ray' is validated against ConfigStore schema")
    warnings.filterwarnings("ignore", message=".*LeafSpec.* is deprecated")  # Lightning's use of torch, not ours


class _Stderr(logging.StreamHandler):
    """Writes to what `sys.stderr` is at the time, which a notebook or a test may replace and close."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
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
    if not sys.stderr.isatty():
        options |= {"mininterval": 30, "maxinterval": 60}
    return tqdm(*items, dynamic_ncols=True, file=sys.stderr, **options)


def duration(seconds: float) -> str:
    """`3 h 05 min`, `12 min`, `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
