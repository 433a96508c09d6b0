"""The environment of a measurement: device, package versions, commit."""

import ctypes
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import torch

from fer_voting.system.machine import processor, thread_choices

PACKAGES = ("torch", "torchvision", "lightning", "hydra-core", "torchmetrics", "albumentations", "numpy")


def describe_device(device: torch.device) -> str:
    """The GPU's name, or the processor's with the number of threads that torch uses."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    here = processor(torch.get_num_threads())
    return here if device.type == "cpu" else f"{device.type}, {here.rpartition(',')[0]}"


def keep_to_usable_cores() -> None:
    """Compute with no more threads than usable cores, quotas counted, or as OMP_NUM_THREADS says.

    torch takes a thread for each core of the machine: with a quota of half a core, they wait for each other.
    """
    torch.set_num_threads(min(torch.get_num_threads(), thread_choices("auto")[0]))


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next tensors; no effect on other systems.

    A training step on a CPU frees and allocates the same large maps. Returned to the system in between, their pages
    are zeroed anew, which takes up to a tenth of a step.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h


def now(device: torch.device) -> float:
    """Seconds of a monotonic clock, after all work queued on `device`."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def package_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{package: version(package) for package in PACKAGES}}


def git_commit() -> str | None:
    """The checkout's commit, with `+changes` if its code was edited since; None outside of a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, check=True).stdout

    try:
        commit = git("rev-parse", "--short=12", "HEAD").strip()
        return commit + ("+changes" if git("status", "--porcelain", "--", "fer_voting", "conf").strip() else "")
    except (OSError, subprocess.CalledProcessError):
        return None
