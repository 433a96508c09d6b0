import math
import os
from pathlib import Path

import pytest
import torch

from fer_voting.system import machine


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(4)), raising=False)
    for variable in (machine.CORES_VARIABLE, "OMP_NUM_THREADS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(machine, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path / "groups")


def write(path: Path, text: str):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_affinity_counts_where_nothing_limits_it():
    assert machine.usable_cores() == 4


@pytest.mark.parametrize(("quota", "cores"), [("max", 4), ("50000", 1), ("100000", 1), ("150000", 2), ("900000", 4)])
def test_quotas_of_version_2(tmp_path: Path, quota: str, cores: int):
    write(tmp_path / "groups", "0::/a/b\n")
    write(tmp_path / "cgroup/a/cpu.max", f"{quota} 100000\n")  # of the group above
    assert machine.usable_cores() == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1", 4), ("50000", 1), ("250000", 3)])
def test_quotas_of_version_1(tmp_path: Path, quota: str, cores: int):
    write(tmp_path / "groups", "4:memory:/m\n3:cpu,cpuacct:/c\n0::/\n")
    write(tmp_path / "cgroup/cpu/c/cpu.cfs_quota_us", quota)
    write(tmp_path / "cgroup/cpu/c/cpu.cfs_period_us", "100000")
    assert machine.usable_cores() == cores


def test_the_share_of_a_job_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(machine.CORES_VARIABLE, "3")
    assert machine.usable_cores() == 3
    monkeypatch.setenv(machine.CORES_VARIABLE, "64")
    assert machine.usable_cores() == 4


def test_memory_is_what_the_machine_and_the_group_leave(tmp_path: Path):
    free = machine.available_mib()
    assert 0 < free <= math.inf
    write(tmp_path / "groups", "0::/a\n")
    write(tmp_path / "cgroup/a/memory.max", str(300 * 2**20))
    write(tmp_path / "cgroup/a/memory.current", str(100 * 2**20))
    assert machine.available_mib() == min(200, free)
    write(tmp_path / "cgroup/a/memory.max", "max")
    assert machine.available_mib() > 200


def test_threads_are_all_cores_half_or_one(monkeypatch: pytest.MonkeyPatch):
    assert machine.thread_choices("auto") == (4, 2, 1)
    assert machine.thread_choices(3) == (3,)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert machine.thread_choices("auto") == (2,)


@pytest.mark.parametrize("threads", [0, 5, "many", 1.5])
def test_a_wrong_number_of_threads_is_refused_with_the_cores(threads):
    with pytest.raises(ValueError, match=f"threads={threads} must be auto, or 1 to 4"):
        machine.thread_choices(threads)


def test_torch_is_imported_for_a_gpu_only_where_there_is_a_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(machine, "GPU_DEVICES", (str(tmp_path / "nvidia"),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert not machine.has_gpu()
    (tmp_path / "nvidia").touch()
    assert machine.has_gpu()


def test_only_the_import_sees_how_threads_are_to_wait(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    with machine.passive_waiting():
        assert os.environ["OMP_WAIT_POLICY"] == "passive"
    assert "OMP_WAIT_POLICY" not in os.environ
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    with machine.passive_waiting():
        assert os.environ["OMP_WAIT_POLICY"] == "active"
    assert os.environ["OMP_WAIT_POLICY"] == "active"


def test_a_processor_has_a_name_and_threads():
    assert machine.processor(1).endswith(", 1 thread")
    assert machine.processor(2).endswith(", 2 threads")
