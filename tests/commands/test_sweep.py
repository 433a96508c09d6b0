"""Jobs in processes of their own, what a job needs, and the sweep's record."""

import fcntl
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.composed import composed
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fer_voting.config import command
from fer_voting.results.sweep_table import sweep_status, sweep_table
from fer_voting.runs.identity import resolve
from fer_voting.runs.naming import drop_overrides, settle
from fer_voting.runs.processes import run_isolated
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import JobState, Sweep, seconds_left
from fer_voting.sweep import main
from fer_voting.train import use_command_line

pytestmark = pytest.mark.slow


def plan(*words: str) -> dict:
    return settle(composed(words))


def job_of(**values: Any) -> DictConfig:
    """A configuration with the keys that a job's own process reads, and values for the functions below."""
    return OmegaConf.create({"name": "x", "sweep": "s", "output_dir": "o", "composition": {"overrides": []}, **values})


def killed(config: DictConfig) -> dict:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def wrong(config: DictConfig) -> dict:
    raise ValueError(f"no good: {config['name']}")


def typed(config: DictConfig) -> dict:
    use_command_line(config)
    return {"status": "finished", "overrides": sys.argv[1:]}


def doubled(config: DictConfig) -> dict:
    return {"status": "finished", "value": 2 * config["value"], "pid": os.getpid()}


def test_a_job_has_a_process_of_its_own():
    outcome = run_isolated("x", doubled, job_of(value=21))
    assert outcome["value"] == 42
    assert outcome["pid"] != os.getpid()


def start_method(config: DictConfig) -> dict:
    return {"status": "finished", "value": multiprocessing.get_start_method()}


def test_a_job_starts_the_workers_of_its_loaders_as_any_training_does():
    usual = run_isolated("x", start_method, job_of())["value"]
    assert usual == multiprocessing.get_all_start_methods()[0]  # the system's default stands first


def test_a_job_that_is_killed_or_fails_takes_nothing_with_it():
    assert run_isolated("x", killed, job_of()) == {
        "status": "failed",
        "error": "the job's process was killed by SIGKILL",
    }
    assert run_isolated("x", wrong, job_of()) == {"status": "failed", "error": "no good: x"}


def test_a_job_needs_the_other_data_sets_run_of_the_same_split_seed_and_values():
    planned = plan("dataset=rafdb", "dataset.root=/r", "split=m2", "seed=3", "model.width=16")
    assert planned["name"] == "rafdb-m2-width16-seed3"
    assert planned["init_from"] == "affectnet-m2-width16-seed3"
    overrides = planned["composition"]["needs"]["weights"]["overrides"]
    assert overrides == ["dataset=affectnet", "split=m2", "seed=3", "model.width=16"]


def test_values_of_a_data_set_hold_for_the_run_that_gives_the_weights_where_it_knows_them():
    planned = plan("dataset=rafdb", "dataset.root=/r", "dataset.val_fraction=0.2", "dataset.batch_size=32")
    assert planned["name"] == "rafdb-m1-batch_size32-val_fraction0.2-seed0"
    assert planned["init_from"] == "affectnet-m1-batch_size32-seed0"


def test_a_refit_needs_its_selection():
    planned = plan("split=m3", "refit=true", "voting=hard")
    assert planned["name"] == "faces-m3-refit_hard-seed0"
    assert planned["composition"]["needs"]["selection"] == {
        "run": "faces-m3-seed0",
        "overrides": ["split=m3", "voting=hard"],
    }


def test_a_table_shows_holes_by_name(tmp_path: Path):
    sweep = Sweep(tmp_path / "sweeps" / "mine")
    sweep.write(["seed=0,1,2"], [{"overrides": [], "run": f"r{k}", "voting": "soft"} for k in (0, 1, 2)])
    figures = {"accuracy": 0.625}
    Run(tmp_path, "r0").write_result(
        {
            "status": "finished",
            "dataset": "faces",
            "variant": "",
            "refit": False,
            "data_fingerprint": "00",
            "synthetic": True,
            "votes": {"soft": {"val": figures}},
            "forward_mib_per_image": 40.341,
            "gmacs": 6.6561,
            "torch_gmacs": None,
            "images_per_second": 99.6,
            "seconds": 60,
        }
    )
    Run(tmp_path, "r1").write_result({"status": "failed", "error": "no space left"})
    table, unfinished, _ = sweep_table(sweep)
    assert unfinished == 2
    lines = table.splitlines()
    assert [cell.strip() for cell in lines[0].split("|")[1:-1]] == [
        "run", "status", "val soft (%)", "MiB/image", "GMACs/image", "images/s", "time",
    ]  # fmt: skip
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        "r0", "finished", "62.50", "40.34", "6.656", "100", "60 s",
    ]  # fmt: skip
    assert "r1: failed: no space left" in lines
    assert "r2: missing" in lines
    assert "Synthetic faces" in table


def test_resolved_configurations_travel_to_other_processes():
    config = settle(composed(["split=m1"]))
    assert run_isolated("x", doubled, OmegaConf.merge(config, {"value": 1}))["value"] == 2


def test_drop_overrides_a_key_and_what_lies_below_it():
    words = ["split=m1", "+model.width=8", "model.widths=2", "~callbacks.history", "name=x"]
    assert drop_overrides(words, "model.width", "callbacks", "name") == ["split=m1", "model.widths=2"]


def test_states_rates_and_time_left(tmp_path: Path):
    sweep = Sweep(tmp_path / "sweeps" / "mine")
    names = ("done", "wrong", "going", "none")
    sweep.write(["name=x"], [{"overrides": [], "run": name, "voting": "soft"} for name in (*names, "done")])
    done, wrong, going, _ = (Run(tmp_path, name) for name in names)
    done.write_result({"status": "finished", "epochs": 20, "seconds": 600})
    wrong.write_result({"status": "failed", "error": "first\nlast line"})
    now = time.time()
    # Went on after its second epoch, 100 s ago; two more are done, the last of them just now.
    progress = {"epochs": 10, "epochs_before": 2, "images_per_epoch": 1000, "since_unix_seconds": now - 100}
    going.write_result({"status": "running", "progress": progress})
    going.metrics_file.write_text("epoch\n0\n1\n2\n3\n")
    os.utime(going.metrics_file, (now, now))
    # The lock is an exclusive `flock` of the run's .lock file.
    with (going.dir / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        states = sweep.states()
        text, unfinished = sweep_status(sweep)
    assert [(state.run, state.status) for state in states] == [
        ("done", "finished"), ("wrong", "failed"), ("going", "running"), ("none", "missing"),
    ]  # fmt: skip
    assert states[0].epochs == (20, 20)
    assert states[1].error == "last line"
    assert states[2].epochs == (4, 10)
    assert states[2].images_per_second == pytest.approx(1000 / 50)
    assert states[2].seconds_left == pytest.approx(6 * 50, abs=2)
    # One at a time: what is left of the running, and the mean of the finished for the failed and the missing.
    assert seconds_left(states) == pytest.approx(300 + 2 * 600, abs=2)
    assert unfinished == 3
    assert "wrong: last line" in text
    assert "4 runs: 1 finished, 1 failed, 1 running, 1 missing; about 25 min left" in text
    assert sweep.states()[2].status == "interrupted"


def test_how_long_a_job_takes_is_known_only_of_its_kind():
    finished = [JobState("a", "finished", seconds=100, kind="m1"), JobState("b", "finished", seconds=300, kind="m1")]
    assert seconds_left([*finished, JobState("c", "missing", kind="m1")]) == 200
    assert seconds_left([*finished, JobState("c", "missing", kind="m3")]) is None
    assert seconds_left([*finished, JobState("c", "running", seconds_left=7, kind="m3")]) == 7


def test_two_at_a_time_take_half_as_long():
    finished, running = JobState("a", "finished", seconds=100), JobState("b", "running", seconds_left=50)
    assert seconds_left([finished, running, running, JobState("c", "missing")]) == pytest.approx((50 + 50 + 100) / 2)
    assert seconds_left([JobState("c", "missing")]) is None
    assert seconds_left([finished]) is None


@pytest.mark.parametrize("text", ["mime", "outputs/sweeps", "outputs"])
def test_a_folder_that_is_no_sweeps_is_answered_with_those_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], text: str
):
    monkeypatch.chdir(tmp_path)
    Sweep(Path("outputs") / "sweeps" / "mine").write([], [])
    with pytest.raises(SystemExit) as exit_info:
        main(["status", text])
    assert exit_info.value.code == 2
    assert capsys.readouterr().err.endswith(
        f"error: {text} is no sweep's folder (there is no sweep.json in it); there are outputs/sweeps/mine\n"
    )


def test_the_table_of_a_sweep_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    sweep = Sweep(Path("outputs") / "sweeps" / "mine")
    sweep.write([], [{"overrides": [], "run": "none", "voting": "soft"}])
    with pytest.raises(SystemExit) as exit_info:
        main(["table", "mine"])
    assert exit_info.value.code == 1
    assert capsys.readouterr().out == sweep_table(sweep)[0]


@pytest.mark.parametrize(
    "words",
    [
        ["split=choice(m3,m1)", "voting=hard", "seed=range(0,2)"],
        ["split=glob(*,exclude=[baseline,input,m2])", "seed=0"],
        ["seed=1,2", "split=m1", "~callbacks.throughput", "+optimizer.amsgrad=true,false", "seed=5"],
        ["dataset.balance.target=mean", "model.width=sort(16,8)", "init_from='a,b'"],
        ["seed=0,1", "name=r${seed}", "dataset.val_size=3${seed}"],
        ["name=2024_06_01,1e3", "seed=4", "dataset.cache_dir=~/a"],
    ],
)
def test_the_recorded_jobs_are_those_that_hydra_starts_in_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
):
    started = []

    def job(config: Any) -> None:
        hydra = OmegaConf.to_container(HydraConfig.get(), resolve=False)
        started.append((hydra["overrides"]["task"], settle(config).name))

    monkeypatch.setattr(
        sys, "argv", ["x", "-m", f"output_dir={tmp_path}", "sweep=mine", "hydra/launcher=basic", *words]
    )
    with pytest.raises(SystemExit):  # nothing was trained
        command(job)
    assert len(started) > 1
    sweep = Sweep(tmp_path / "sweeps" / "mine")
    assert [job["overrides"] for job in sweep.jobs()] == [overrides for overrides, _ in started]
    assert [job["run"] for job in sweep.jobs()] == [run for _, run in started]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["split=m1,m9"], "m9"),
        (["seed=interval(0,1)"], "interval"),
        (["seed=0,x"], "seed"),
        (["seed=0,1", *(f"+optimizer.option{k}=1" for k in range(12))], "name="),  # too long a name
        (["seed=0,1", "name=foo"], r"two jobs would be the run foo \(seed: 0 in one, 1 in the other\)"),
        (["dataset=fer2013", "dataset.root=a,b"], "dataset.root: a in one, b in the other"),
        (["seed=0,1", "optimizer.lr=${there_is_none:1}"], "there_is_none"),
        (["output_dir=a,b"], "output_dir"),
    ],
)
def test_a_sweep_with_a_job_that_cannot_run_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], named: str
):
    started = []
    monkeypatch.setattr(sys, "argv", ["x", "-m", f"output_dir={tmp_path}", "sweep=mine", *words])
    with pytest.raises(SystemExit, match=f"error: .*{named}"):
        command(started.append)
    assert not started
    assert not (tmp_path / "sweeps" / "mine" / "sweep.json").exists()


def test_a_sweep_does_not_start_where_a_job_would_be_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, config = (
        Run(tmp_path, "mine-1"),
        resolve(settle(composed(["seed=1", "name=mine-1", f"output_dir={tmp_path}"]))),
    )
    with run.open(config):
        run.check_inputs({"data": {"fingerprint": "a"}})
    started: list[Any] = []

    def begin(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["x", "-m", f"output_dir={tmp_path}", *words])
        command(started.append)

    with pytest.raises(SystemExit, match=r"mine-1 holds a run of another configuration \(optimizer\.lr: .*name="):
        begin("seed=0,1", "name=mine-${seed}", "optimizer.lr=0.5")
    assert not started
    with pytest.raises(SystemExit) as nothing_was_trained:
        begin("seed=0,1", "name=mine-${seed}", "hydra/launcher=basic")
    assert nothing_was_trained.value.code == 1
    assert len(started) == 2


def test_a_sweep_s_name_stands_for_its_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def begin(*words: str) -> None:
        monkeypatch.setattr(sys, "argv", ["x", "-m", f"output_dir={tmp_path}", "sweep=mine", *words])
        command(lambda config: None)

    with pytest.raises(SystemExit) as nothing_was_trained:
        begin("split=m1,m2")
    assert nothing_was_trained.value.code == 1
    for words in (["split=m2,m1", "logger=none"], ["split=m1,m2", "voting=soft"]):  # the same runs
        with pytest.raises(SystemExit) as nothing_was_trained:
            begin(*words)
        assert nothing_was_trained.value.code == 1
    record = Sweep(tmp_path / "sweeps" / "mine").record()
    with pytest.raises(
        SystemExit, match=r"of other jobs \(faces-m2-seed0 .* only there, faces-m3-seed0 .* only here\)"
    ):
        begin("split=m1,m3")
    assert Sweep(tmp_path / "sweeps" / "mine").record() == record


def test_a_job_in_a_folder_with_an_apostrophe(tmp_path: Path):
    outcome = run_isolated("x", typed, job_of(output_dir="it's (mine)"))
    assert outcome["overrides"] == ["name='x'", "sweep='s'", r"output_dir='it\'s (mine)'"]


@pytest.mark.parametrize(
    "content",
    [
        '{"status": "finished", "epochs": 2, "seconds": 1e999}',
        '{"status": "finished"}',
        '{"status": "running", "progress": 3}',
        "[]",
    ],
)
def test_a_damaged_result_is_one_job_of_the_status(tmp_path: Path, content: str):
    sweep = Sweep(tmp_path / "sweeps" / "mine")
    sweep.write([], [{"overrides": ["split=m1"], "run": "mine", "voting": "soft"}])
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "result.json").write_text(content)
    text, unfinished = sweep_status(sweep)
    assert "1 run: 1 damaged" in text
    assert unfinished == 1
