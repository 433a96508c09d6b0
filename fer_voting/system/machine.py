"""The cores and the memory that this process may use: of the machine, its affinity and its control group."""

import importlib.util
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 2**20
CORES_VARIABLE = "FER_VOTING_CORES"
"""Environment variable with a job's share of the cores, where several run side by side."""

GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""The drivers' devices: NVIDIA's, AMD's, and Windows' below its Linux."""

_CGROUP, _GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
_UNLIMITED_V1 = 2**62  # version 1 writes the largest multiple of a page where there is no limit


def usable_cores() -> int:
    """Number of cores, at least 1: those of the affinity, of a quota (rounded up), and of a job's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [math.ceil(quota) for quota in _quotas()]
    share = [int(os.environ[CORES_VARIABLE])] if os.environ.get(CORES_VARIABLE, "").isdigit() else []
    return max(1, min(cores, *quotas, *share, cores))


def thread_choices(threads: int | str) -> tuple[int, ...]:
    """The numbers of threads that a training on a processor may have, the usual one first.

    Args:
        threads: a number, or `auto`: OMP_NUM_THREADS where it is set; else all usable cores, half of them, or one.

    Raises ValueError for another value, or for more threads than usable cores.
    """
    cores = usable_cores()
    if threads == "auto":
        asked = os.environ.get("OMP_NUM_THREADS", "")
        return (int(asked),) if asked.isdigit() and int(asked) else tuple(dict.fromkeys((cores, max(1, cores // 2), 1)))
    if not isinstance(threads, int) or not 1 <= threads <= cores:
        raise ValueError(f"threads={threads} must be auto, or 1 to {cores}, the cores that this process may use")
    return (threads,)


def processor(threads: int) -> str:
    """The processor's name, with a number of threads: `AMD EPYC, 2 threads`."""
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        name = names[0] if names else name
    return f"{name}, {threads} thread{'s' * (threads > 1)}"


@contextmanager
def passive_waiting() -> Iterator[None]:
    """The first import of torch in this context gives it threads that sleep while they wait for each other.

    OMP_WAIT_POLICY in the environment decides instead. Threads that wait at work take the core that the thread they
    wait for needs: beside one busy process on two cores, PyTorch took 1,700 ms for a face by two threads, 240 ms by
    one, and 260 ms by two that sleep (AMD EPYC, loaded).
    """
    if "OMP_WAIT_POLICY" in os.environ:
        yield
        return
    os.environ["OMP_WAIT_POLICY"] = "passive"  # libgomp reads it when it is loaded
    try:
        yield
    finally:
        del os.environ["OMP_WAIT_POLICY"]


def has_gpu() -> bool:
    """Whether PyTorch is installed and can use a GPU. It is only imported where there is a driver for one."""
    if not any(Path(device).exists() for device in GPU_DEVICES) or importlib.util.find_spec("torch") is None:
        return False
    with passive_waiting():
        import torch

    return torch.cuda.is_available()


def available_mib() -> float:
    """Memory that can be taken without swapping, in MiB; infinity where the system doesn't say."""
    meminfo = Path("/proc/meminfo")
    amounts = [math.inf]
    if meminfo.exists():
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        amounts.append(int(lines["MemAvailable"].split()[0]) / 1024)
    for folder in _group_folders("memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < _UNLIMITED_V1:
            amounts.append((limit - used) / MIB)
    return max(0.0, min(amounts))


def _quotas() -> Iterator[float]:
    """Cores that each control group of this process may keep busy."""
    for folder in _group_folders("cpu"):
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                yield int(quota) / int(period)
        elif (quota_us := _number(folder / "cpu.cfs_quota_us")) and quota_us > 0:
            yield quota_us / (_number(folder / "cpu.cfs_period_us") or 100_000)


def _group_folders(controller: str) -> Iterator[Path]:
    """This process's control group and those above it, of version 1 or 2; a container's own is its root."""
    if not _GROUPS.exists():
        return
    for line in _GROUPS.read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        base = _CGROUP / controller if controllers else _CGROUP
        folder = base / group.lstrip("/")
        while folder != base.parent:
            yield folder
            folder = folder.parent


def _number(path: Path) -> int | None:
    """A file's content as a number; None for `max`, or where there is no such file."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
