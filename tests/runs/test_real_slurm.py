"""Sweeps on a real Slurm, which this file starts where it is installed (Debian: slurm-wlm and munge)."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from helpers.train import REPO, TINY

from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep

PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "srun"]
SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
MISSING = [name for name in PROGRAMS if not shutil.which(name, path=SBIN)]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"Slurm is not installed: no {' '.join(MISSING)}"),
]

CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/ctld
SlurmdSpoolDir={folder}/d
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=1,sched_interval=2,bf_interval=2
KillWait=2
ReturnToService=2
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def wait_for(condition: Callable[[], object], seconds: float = 300) -> None:
    """On an idle machine all come about in some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of one node with 16 processors, without accounting, whose commands are on the path."""
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("ctld", "d"):
        (folder / name).mkdir()
    folder.chmod(0o755)  # munge's socket must lie where everyone may go
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    host = socket.gethostname().partition(".")[0]
    conf = CONF.format(host=host, folder=folder, user=getpass.getuser(), ports=free_ports(2))
    (folder / "slurm.conf").write_text(conf)
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "log", "pid", "seed")]
    daemons = [
        ["munged", "--foreground", "--force", f"--socket={folder}/munge.socket", *files],
        ["slurmctld", "-D"],
        ["slurmd", "-D", "-N", host],
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("PATH", SBIN)
        processes = []
        try:
            for words in daemons:
                with (folder / f"{words[0]}.out").open("w") as out:
                    processes.append(subprocess.Popen(words, stdout=out, stderr=out))
                time.sleep(0.5)
            try:
                subprocess.run(["srun", "-n1", "true"], check=True, timeout=120, capture_output=True)
            except (subprocess.SubprocessError, OSError) as error:
                pytest.skip(f"Slurm is installed, but does not start here: {error}")
            yield
        finally:
            with suppress(subprocess.SubprocessError):
                subprocess.run(["scancel", f"--user={getpass.getuser()}"], timeout=10)
                wait_for(lambda: not subprocess.check_output(["squeue", "--noheader"], timeout=10), 30)
            for process in reversed(processes):
                process.terminate()
                process.wait(20)


class Command:
    """`python -m fer_voting.train -m ...` on Slurm, under way."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.sweep = Sweep(folder / "outputs" / "sweeps" / "mine")
        self._printed = folder / "printed"
        launcher = ["hydra/launcher=slurm_cpu", "hydra.launcher.cpus_per_task=1", "sweep=mine"]
        with self._printed.open("w") as printed:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fer_voting.train", "-m", *launcher, *TINY, "split=baseline", *words],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"},
                stdout=printed,
                stderr=subprocess.STDOUT,
                # A shell starts what runs in the background without it.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    def runs(self) -> list[Run]:
        return [Run(self.sweep.output_dir, job["run"]) for job in self.sweep.jobs()]

    def ids(self) -> list[str]:
        return list(self.sweep.slurm_jobs().values())

    def statuses(self) -> list[str]:
        return [state.status for state in self.sweep.states()]

    def logs(self, job: str, kind: str) -> str:
        return (self.sweep.dir / "jobs" / job / f"{job}_0_log.{kind}").read_text()


PLACED_NOWHERE = ["seed=1,2", "hydra.launcher.nodes=3"]


@pytest.fixture(scope="module")
def commands(slurm: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Command]]:
    """Sweeps that run at the same time: of a job that fails, one that ends and one that would not; of a job that is
    longer than its time; of jobs of two ranks, one of which needs the other; of jobs that no node can run."""
    words = {
        "mixed": ["dataset.size=24", "trainer.max_epochs=1,9999", "model.width=4,0"],
        "long": ["trainer.max_epochs=9998", "hydra.launcher.timeout_min=9", "hydra.launcher.signal_delay_s=50"],
        "ranks": [
            *("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2", "hydra.launcher.tasks_per_node=2"),
            *("refit=true,false", "dataset.size=48"),  # by which the name is short enough
        ],
        "placed nowhere": PLACED_NOWHERE,
    }
    started = {name: Command(tmp_path_factory.mktemp(name), *words[name]) for name in words}
    yield started
    for command in started.values():  # also those that a test added
        if command.process.poll() is None:
            command.process.kill()
            command.process.wait()


def test_jobs_that_no_node_can_run_are_queued_and_stay_after_one_interrupt(commands: dict[str, Command]):
    command = commands["placed nowhere"]
    wait_for(lambda: "2 queued (PartitionNodeLimit)" in command.printed)
    states = command.sweep.states()
    assert [(state.status, state.error) for state in states] == [
        ("queued", "waits in Slurm's queue (PartitionNodeLimit)")
    ] * 2
    (array,) = {each.partition("_")[0] for each in command.ids()}
    command.process.send_signal(signal.SIGINT)
    wait_for(lambda: f"to cancel them: scancel {array}" in command.printed)
    assert command.process.wait(60) == 1
    assert command.statuses() == ["queued"] * 2

    command = commands["again"] = Command(command.sweep.output_dir.parent, *PLACED_NOWHERE)
    wait_for(lambda: f"2 jobs of this sweep in the queue already: {array}\n" in command.printed)
    wait_for(lambda: "2 queued (PartitionNodeLimit)" in command.printed)
    assert "submitted" not in command.printed
    command.process.send_signal(signal.SIGINT)
    wait_for(lambda: f"to cancel them: scancel {array}" in command.printed)
    command.process.send_signal(signal.SIGINT)
    assert command.process.wait(60) == 1
    assert f"cancelled: {array}" in command.printed
    assert command.statuses() == ["missing"] * 2


def test_two_ranks_are_one_job_and_a_refit_waits_for_the_run_that_it_needs(commands: dict[str, Command]):
    command = commands["ranks"]
    assert command.process.wait(300) == 0, command.printed
    refit, selection = [run.finished_result() or {} for run in command.runs()]
    assert [result["ranks"] for result in (refit, selection)] == [2, 2]
    assert refit["refit"]
    assert "1 job waits for others to end before submission\n" in command.printed


def test_a_job_that_fails_or_is_cancelled_ends_no_other_and_the_table_follows(commands: dict[str, Command]):
    command = commands["mixed"]
    wait_for(lambda: command.statuses().count("failed") == 2 and "finished" in command.statuses())
    wait_for(lambda: "running" in command.statuses())
    (endless,) = [key for key in command.sweep.slurm_jobs() if "epochs9999" in key and "width0" not in key]
    subprocess.run(["scancel", command.sweep.slurm_jobs()[endless]], check=True)
    cancelled = time.monotonic()
    assert command.process.wait(120) == 1
    assert time.monotonic() - cancelled < 60
    assert "ended as CANCELLED, without a result; its output: " in command.printed
    assert (command.sweep.dir / "table.md").read_text() in command.printed
    assert sorted(command.statuses()) == ["failed", "failed", "finished", "interrupted"]
    failed = next(id for key, id in command.sweep.slurm_jobs().items() if "width0" in key)
    assert "width" in command.logs(failed, "err").splitlines()[0]
    assert "completed successfully" not in command.logs(failed, "out")


def test_a_job_that_is_out_of_time_goes_on_in_a_new_one(commands: dict[str, Command]):
    command = commands["long"]
    wait_for((command.sweep.dir / "slurm.json").exists)
    (run,) = command.runs()
    wait_for(lambda: run.last_checkpoint.exists())
    (job,) = command.ids()
    # Its time is over within half a minute; Slurm counts in minutes.
    subprocess.run(["scontrol", "update", f"JobId={job}", "TimeLimit=1"], check=True)
    wait_for(lambda: command.statuses() == ["queued"])
    assert run.status() == "interrupted"
    subprocess.run(
        ["scontrol", "update", f"JobId={job}", "StartTime=now", "TimeLimit=9"], check=True
    )  # not in two minutes
    wait_for(lambda: f"continues from {run.last_checkpoint}" in command.logs(job, "err"))
    assert command.process.poll() is None, command.printed
    subprocess.run(["scancel", job], check=True)
    assert command.process.wait(120) == 1
