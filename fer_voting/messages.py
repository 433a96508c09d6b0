"""What a command tells the person who typed it: on stderr, so that stdout keeps to results."""

import sys

__all__ = ["announce", "duration"]


def announce(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`3 h 05 min`, `12 min`, `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
