"""Trackers by their real packages: W&B offline and with a server on the loopback, TensorBoard, MLflow."""

import csv
import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from helpers.train import TINY, train_here
from helpers.wandb_server import KEY, WandbServer
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from fer_voting.runs.run import Run
from fer_voting.system.arrays import write_npz
from fer_voting.training.loggers import best_metrics, mlflow_logger, mlflow_name, worst_errors
from fer_voting.votes import VOTES

OPTIONS = [word for word in TINY if word != "logger=none"] + ["dataset.size=24"]
STOPS = "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: nothing}"
"""Makes a training fail after its first epoch."""


def train(output_dir: Path, *words: str) -> None:
    train_here(output_dir, *OPTIONS, *words)


def inspect(run: Run, *words: str) -> str:
    """A run's offline file as W&B's own reader prints it."""
    (file,) = run.dir.glob("wandb/offline-run-*/run-*.wandb")
    command = [str(Path(sys.executable).with_name("wandb")), "leet", "inspect", "--json", *words, str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def table(run: Run, key: str) -> dict[str, Any]:
    (path,) = run.dir.glob(f"wandb/offline-run-*/files/media/table/{key}_*.table.json")
    return json.loads(path.read_text())


@pytest.mark.slow
def test_what_a_run_tells_wandb(tmp_path: Path):
    words = ["split=m3", "voting=hard", "name=mine", "sweep=a_sweep", "logger=offline", "logger.wandb.images=true"]
    train(tmp_path, *words)
    run = Run(tmp_path, "mine")
    result = run.result()
    assert result is not None
    names = result["class_names"]
    one = json.loads(inspect(run, "--summary"))
    assert (one["state"], one["exit_code"]) == ("finished", 0)
    assert one["name"] == "mine"
    assert one["tags"] == ["faces", "m3", "seed0"]
    assert one["config"]["split"] == {"name": "m3"}
    assert one["config"]["optimizer"]["lr"] == 2e-4
    assert one["summary"]["best/test/hard/accuracy"] == result["votes"]["hard"]["test"]["accuracy"]
    assert one["summary"]["best/val/soft/recall/happy"] == result["votes"]["soft"]["val"]["recall"]["happy"]
    assert one["summary"]["gmacs"] == pytest.approx(result["gmacs"])
    assert one["summary"]["forward_mib_per_image"] == result["forward_mib_per_image"]
    records = inspect(run)
    assert '"run_group":"a_sweep"' in records
    assert '"job_type":"train"' in records
    for vote in VOTES:
        for stage in ("val", "test"):
            rows = table(run, f"best/{stage}/{vote}/confusion_matrix_table")["data"]
            counts = result["votes"][vote][stage]["confusion_counts"]
            expected = {(names[i], names[j]): counts[i][j] for i in range(7) for j in range(7)}
            assert {(actual, predicted): count for actual, predicted, count in rows} == expected

    shown = table(run, "best/test/hard/worst_errors")
    assert shown["columns"] == ["image", "name", "actual", "predicted", "confidence"]
    errors = shown["data"]
    confidences = [row[4] for row in errors]
    assert confidences == sorted(confidences, reverse=True)
    assert len(errors) == round(20 * (1 - result["votes"]["hard"]["test"]["accuracy"]))
    with np.load(run.predictions_file("hard", "test")) as said:
        labels = dict(zip(said["names"], said["labels"], strict=True))
        decided = dict(zip(said["names"], said["scores"].argmax(axis=1), strict=True))
    for _, name, actual, predicted, _ in errors:
        assert (actual, predicted) == (names[labels[name]], names[decided[name]])
        assert actual != predicted
    # The images are kept in the run's folder, for `wandb sync`.
    assert len(list(run.dir.glob("wandb/artifacts/staging/*"))) >= len(errors)


def test_the_worst_errors_by_hand():
    likely = np.log(np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.9, 0.05, 0.05]], np.float32))
    logits = likely[:, None].repeat(2, axis=1)
    found = list(worst_errors(logits, logits.mean(axis=1), np.array([1, 1, 2, 2])))
    assert [(position, decision) for position, decision, _ in found] == [(3, 0), (0, 0), (1, 0)]
    assert [confidence for *_, confidence in found] == pytest.approx([0.9, 0.7, 0.6])


def test_best_metrics_are_plain_numbers_by_name():
    judged = {"accuracy": 0.5, "mean_recall": 0.4, "recall": {"a.b": 0.3}, "confusion_counts": [[1]]}
    cost = {"forward_mib_per_image": None, "parameters": 7, "gmacs": 0.1, "images_per_second": None}
    assert best_metrics({"votes": {"soft": {"best_epoch": 3, "test": judged}}, **cost}) == {
        "best/soft/epoch": 3,
        "best/test/soft/accuracy": 0.5,
        "best/test/soft/mean_recall": 0.4,
        "best/test/soft/recall/a.b": 0.3,
        "parameters": 7,
        "gmacs": 0.1,
    }


def test_best_metrics_of_numbers():
    judged = {"ccc": {"valence": 0.5, "arousal": 0.3}, "mean_ccc": 0.4}
    cost = dict.fromkeys(("forward_mib_per_image", "parameters", "gmacs", "images_per_second"))
    assert best_metrics({"votes": {"soft": {"best_epoch": 3, "val": judged}}, **cost}) == {
        "best/soft/epoch": 3,
        "best/val/soft/ccc/valence": 0.5,
        "best/val/soft/ccc/arousal": 0.3,
        "best/val/soft/mean_ccc": 0.4,
    }


@pytest.mark.slow
def test_a_failed_run_is_finished_with_another_exit_code(tmp_path: Path):
    with pytest.raises(SystemExit):
        train(tmp_path, "split=baseline", STOPS, "name=bad", "logger=offline")
    run = Run(tmp_path, "bad")
    assert run.status() == "failed"
    assert json.loads(inspect(run, "--summary"))["exit_code"] == 1


@pytest.mark.slow
def test_online_each_job_is_a_run_of_its_own(
    never_logged_in: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    """In one process, as the trainings of a notebook are."""
    with WandbServer() as server:
        never_logged_in.setenv("WANDB_BASE_URL", server.url)
        never_logged_in.setenv("WANDB_API_KEY", KEY)
        for split in ("baseline", "m3"):
            train(tmp_path, f"split={split}", f"name={split}", "sweep=mine", "logger=wandb")
    printed = "".join(capfd.readouterr())
    assert KEY not in printed
    assert "anonymous" not in printed
    assert "wandb" not in printed.lower()  # the client keeps quiet
    runs = [Run(tmp_path, split) for split in ("baseline", "m3")]
    seen = {one.about["displayName"]: one for one in server.runs.values()}
    assert set(seen) == {run.name for run in runs}
    for run, split in zip(runs, ("baseline", "m3"), strict=True):
        one, result = seen[run.name], run.result()
        assert result is not None
        assert (one.complete, one.exit_code) == (True, 0)
        assert (one.about["groupName"], one.about["jobType"]) == ("mine", "train")
        assert one.about["tags"] == ["faces", split, "seed0"]
        assert json.loads(one.about["config"])["split"]["value"] == {"name": split}
        curve = [row["val/soft/accuracy"] for row in one.history if "val/soft/accuracy" in row]
        assert len(curve) == 2  # one an epoch, none of the other job
        assert max(curve) == pytest.approx(result["votes"]["soft"]["val"]["accuracy"])
        assert one.summary["best/test/soft/accuracy"] == result["votes"]["soft"]["test"]["accuracy"]
        assert not list(run.dir.glob("wandb/offline-*"))
        for path in [run.dir / "config.yaml", run.dir / "result.json", *run.dir.glob("wandb/run-*/files/*.*")]:
            assert KEY not in path.read_text()
    assert {one["artifactTypeName"] for one in server.artifacts} == {"run_table"}


@pytest.mark.slow
def test_without_a_key_a_run_is_kept_offline(never_logged_in: pytest.MonkeyPatch, tmp_path: Path, messages):
    train(tmp_path, "split=baseline", "name=mine", "logger=wandb")
    (line,) = {line for line in messages.messages if "W&B" in line}
    folder = tmp_path / "runs" / "mine" / "wandb"
    assert "WANDB_API_KEY" in line
    assert f"wandb sync {folder}/offline-run-*" in line
    assert json.loads(inspect(Run(tmp_path, "mine"), "--summary"))["exit_code"] == 0
    assert list(folder.glob("**/confusion_matrix*"))
    assert not list(folder.glob("**/worst_errors*"))  # faces are personal data: only where asked for


@pytest.mark.slow
@pytest.mark.parametrize("server", ["closed", "silent", "broken"])
def test_without_a_server_a_run_is_kept_offline_and_uploads_later(
    never_logged_in: pytest.MonkeyPatch, tmp_path: Path, messages, server: str
):
    with socket.socket() as listener, WandbServer() as broken:
        listener.bind(("127.0.0.1", 0))
        if server == "silent":  # takes connections, and never answers
            listener.listen()
        broken.broken = True  # answers 500
        port = broken.server_port if server == "broken" else listener.getsockname()[1]
        never_logged_in.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        never_logged_in.setenv("WANDB_API_KEY", KEY)
        train(tmp_path, "split=baseline", "name=mine", "logger=wandb", "logger.wandb.start_timeout_seconds=1")
    run = Run(tmp_path, "mine")
    (line,) = {line for line in messages.messages if "W&B" in line}
    assert f"wandb sync {run.dir}/wandb/offline-run-*" in line
    assert run.status() == "finished"
    summary = json.loads(inspect(run, "--summary"))
    assert summary["exit_code"] == 0
    assert not list(run.dir.glob("wandb/run-*"))
    if server != "closed":
        return
    with WandbServer() as later:
        command = [str(Path(sys.executable).with_name("wandb")), "sync", *run.dir.glob("wandb/offline-run-*")]
        environment = {**os.environ, "WANDB_BASE_URL": later.url}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
    (uploaded,) = later.runs.values()
    assert uploaded.about["displayName"] == "mine"
    assert uploaded.exit_code == 0
    assert uploaded.summary["best/test/soft/accuracy"] == summary["summary"]["best/test/soft/accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["closed", "broken"])
def test_a_server_that_is_lost_on_the_way_costs_no_training(
    never_logged_in: pytest.MonkeyPatch, tmp_path: Path, messages, lost: str
):
    run = Run(tmp_path, "mine")
    with WandbServer() as server:
        never_logged_in.setenv("WANDB_BASE_URL", server.url)
        never_logged_in.setenv("WANDB_API_KEY", KEY)

        def lose_it() -> None:
            while not run.metrics_file.exists():  # its first epoch
                time.sleep(0.005)
            if lost == "broken":
                server.broken = True
                return
            server.shutdown()
            server.server_close()

        watcher = threading.Thread(target=lose_it)
        watcher.start()
        words = ["split=m3", "name=mine", "logger=wandb", "logger.wandb.upload_timeout_seconds=1"]
        train(tmp_path, *words)
        watcher.join()
    assert run.status() == "finished"
    warnings = {record.getMessage() for record in messages.records if record.levelname == "WARNING"}
    assert any("mine" in line for line in warnings)
    (kept,) = run.dir.glob("wandb/run-*")
    assert any("logger.wandb.upload_timeout_seconds=1" in line and f"wandb sync {kept}" in line for line in warnings)


@pytest.mark.slow
def test_tensorboard(tmp_path: Path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tmp_path, "split=baseline", "name=mine", "logger=tensorboard")
    run = Run(tmp_path, "mine")
    result = run.result()
    assert result is not None
    events = accumulators.EventAccumulator(str(run.dir))
    events.Reload()
    curve = [event.value for event in events.Scalars("val/soft/accuracy")]
    assert len(curve) == 2
    assert max(curve) == pytest.approx(result["votes"]["soft"]["val"]["accuracy"])
    (best,) = events.Scalars("best/test/hard/accuracy")
    assert best.value == pytest.approx(result["votes"]["hard"]["test"]["accuracy"])


@pytest.mark.slow
def test_mlflow_keeps_all_runs_in_one_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, messages):
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.chdir(tmp_path)
    output_dir = tmp_path / "outputs"
    train(output_dir, "split=baseline", "name=good", "sweep=mine", "logger=mlflow")
    with pytest.raises(SystemExit):
        train(output_dir, "split=m3", "name=bad", STOPS, "logger=mlflow")
    assert not [record for record in messages.records if "mlflow" in record.name]  # it keeps quiet
    assert [path.name for path in tmp_path.iterdir()] == ["outputs"]
    result = Run(output_dir, "good").result()
    assert result is not None
    # Read without MLflow.
    with sqlite3.connect(output_dir / "mlflow.db") as database:
        uuids = dict(database.execute("select name, run_uuid from runs"))
        states = dict(database.execute("select name, status from runs"))

        def of(what: str) -> dict[str, Any]:
            return dict(database.execute(f"select key, value from {what} where run_uuid = ?", [uuids["good"]]))

        params, tags = of("params"), of("tags")
        rows = database.execute("select key, value from metrics where run_uuid = ?", [uuids["good"]]).fetchall()
    database.close()
    assert states == {"good": "FINISHED", "bad": "FAILED"}
    assert params["optimizer.lr"] == "0.0002"
    assert params["split.name"] == "baseline"
    expected = {"dataset": "faces", "split": "baseline", "seed": "0", "sweep": "mine", "job_type": "train"}
    assert tags | expected == tags
    curve = [value for key, value in rows if key == "val/soft/accuracy"]
    assert len(curve) == 2
    assert max(curve) == pytest.approx(result["votes"]["soft"]["val"]["accuracy"])
    assert dict(rows)["best/test/hard/accuracy"] == pytest.approx(result["votes"]["hard"]["test"]["accuracy"])


@pytest.mark.parametrize("logger", ["tensorboard", "mlflow"])
def test_an_extra_that_is_not_installed_is_named_with_its_command(monkeypatch, tmp_path: Path, logger: str):
    monkeypatch.setitem(sys.modules, logger, None)  # what makes Python say that there is no such module
    with pytest.raises(SystemExit, match=rf"^error: logger={logger} .*pip install .*'\.\[{logger}\]'"):
        train(tmp_path, "split=baseline", "name=mine", f"logger={logger}")


@pytest.mark.slow
def test_a_run_that_the_process_has_open_is_neither_used_nor_ended(tmp_path: Path):
    import wandb

    with wandb.init(project="another", dir=tmp_path, mode="offline", settings=wandb.Settings(silent=True)) as other:
        train(tmp_path, "split=baseline", "name=mine", "logger=offline")
        other.log({"still": 1})
    assert json.loads(inspect(Run(tmp_path, "mine"), "--summary"))["name"] == "mine"


def interrupt_and_continue(output_dir: Path, *words: str) -> Run:
    """A run of two epochs that is interrupted after the first and goes on."""
    once = f"+callbacks.once={{_target_: helpers.callbacks.InterruptsOnce, flag: {output_dir}/interrupted, epoch: 1}}"
    words = ("split=baseline", "name=mine", once, *words)
    with pytest.raises(KeyboardInterrupt):
        train(output_dir, *words)
    train(output_dir, *words)
    return Run(output_dir, "mine")


def assert_one_run(server: WandbServer, run: Run) -> None:
    (seen,) = server.runs.values()
    result = run.result()
    assert result is not None
    curve = [row["val/soft/accuracy"] for row in seen.history if "val/soft/accuracy" in row]
    assert len(curve) == 2  # one an epoch
    steps = [row["_step"] for row in seen.history]
    assert steps == sorted(set(steps))
    assert seen.exit_code == 0
    assert seen.summary["best/test/soft/accuracy"] == result["votes"]["soft"]["test"]["accuracy"]


@pytest.mark.slow
def test_a_run_that_continues_is_one_run_offline_and_in_mlflow(
    never_logged_in: pytest.MonkeyPatch, tmp_path: Path, mlflow_database: Path
):
    shutil.copy(mlflow_database, tmp_path)
    run = interrupt_and_continue(tmp_path, "logger=[offline,mlflow]")
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select name, status from runs").fetchall() == [("mine", "FINISHED")]
        steps = database.execute("select step from metrics where key = 'val/soft/accuracy'").fetchall()
    database.close()
    assert steps == [(2,), (5,)]  # one an epoch of three steps
    folders = sorted(run.dir.glob("wandb/offline-run-*"))
    assert len(folders) == 2
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1
    with WandbServer() as server:
        command = [str(Path(sys.executable).with_name("wandb")), "sync", *folders]
        environment = {**os.environ, "WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, timeout=60)
    assert_one_run(server, run)


@pytest.mark.slow
def test_a_run_that_continues_is_one_run_online(never_logged_in: pytest.MonkeyPatch, tmp_path: Path):
    with WandbServer() as server:
        never_logged_in.setenv("WANDB_BASE_URL", server.url)
        never_logged_in.setenv("WANDB_API_KEY", KEY)
        run = interrupt_and_continue(tmp_path, "logger=wandb")
    assert_one_run(server, run)


@pytest.mark.slow
def test_a_run_that_mlflow_has_no_more_begins_anew(tmp_path: Path, mlflow_database: Path):
    for name in ("here", "elsewhere"):
        (tmp_path / name).mkdir()
        shutil.copy(mlflow_database, tmp_path / name)

    def start(output_dir: Path) -> str | None:
        about: dict[str, Any] = {"experiment": "e", "run_name": "mine", "tags": {}, "save_dir": str(tmp_path / "run")}
        return mlflow_logger(output_dir=str(output_dir), **about).run_id

    first = start(tmp_path / "here")
    assert start(tmp_path / "here") == first
    assert start(tmp_path / "elsewhere") != first


NAMES = ["happy", "開心", "दुखी", "Über", "ber", "-C3-9Cber", "-", "a b", "a_b", "a:b", "a%b", "😀", "..", "x" * 300]
"""Names of classes, some of which lose letters where trackers are not asked for them rightly."""


@pytest.mark.slow
def test_names_and_long_values_in_mlflow(tmp_path: Path, messages: pytest.LogCaptureFixture, mlflow_database: Path):
    shutil.copy(mlflow_database, tmp_path)
    about: dict[str, Any] = {"output_dir": str(tmp_path), "save_dir": str(tmp_path), "run_name": "mine", "tags": {}}
    logger = mlflow_logger(experiment="e", **about)
    logger.log_metrics({f"val/recall/{name}": float(i) for i, name in enumerate(NAMES)})
    logger.log_metrics({f"value/{i}": 0.0 for i in range(1200)})  # more than MLflow takes at once
    logger.log_hyperparams({"a": {"b": "x" * 5000, "開": "y" * 9000}, "c": 1})
    logger.log_hyperparams({"a": {"b": "x" * 5000, "開": "y" * 9000}, "c": 2})  # a continued run of other length
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        metrics = dict(database.execute("select key, value from metrics where key like 'val/%'"))
        params = dict(database.execute("select key, value from params"))
        tags = dict(database.execute("select key, value from tags"))
    database.close()
    assert sorted(metrics.values()) == list(range(len(NAMES)))
    assert metrics["val/recall/happy"] == 0
    assert metrics["val/recall/-C3-9Cber"] == NAMES.index("Über")
    assert tags["name/-C3-9Cber"] == "Über"
    assert set(tags.values()) >= set(NAMES[1:4])
    assert params["a.b"] == "x" * 5000
    assert params["a.-E9-96-8B"].startswith("yyyy")
    assert params["a.-E9-96-8B"].endswith("…")
    assert (params["c"], tags["c"]) == ("1", "2")


@given(st.text())
def test_a_name_in_mlflow_can_be_read_back(name: str):
    escaped = mlflow_name(name)
    assert re.fullmatch(r"[A-Za-z0-9_/. -]*", escaped)
    if len(escaped) < 250:  # a longer one has a digest
        assert unquote(re.sub(r"-(?=[0-9A-F]{2})", "%", escaped)) == name
    assert not name or os.path.normpath(escaped) == escaped
    assert not escaped.startswith(("/", ".."))


def test_names_stay_different_in_lightnings_own_loggers(tmp_path: Path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    metrics = {f"recall/{name}": float(i) for i, name in enumerate(NAMES)}
    for logger in (TensorBoardLogger(tmp_path, "tensorboard", ""), CSVLogger(tmp_path, "csv", "")):
        logger.log_metrics(metrics, step=0)
        logger.save()
        logger.finalize("success")
    events = accumulators.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {name: events.Scalars(name)[0].value for name in metrics} == metrics
    with (tmp_path / "csv" / "metrics.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert {name: float(row[name]) for name in metrics} == metrics


@pytest.mark.slow
def test_without_a_home_directory(tmp_path: Path):
    """A container that runs as a user who is not registered has none. Charts of classes and of numbers are written."""
    run = Run(tmp_path, "mine")
    write_npz(run.predictions_file("soft", "val"), number_labels=np.array([[0.5]]), number_scores=np.array([[0.25]]))
    scored = {"soft": {"val": {"confusion_counts": [[1]]}}}
    result = {"class_names": ["a"], "number_names": ["valence"], "votes": scored}
    program = """
import os, pwd, sys
pwd.getpwuid = {}.__getitem__
assert os.path.expanduser("~") == "~"
from pathlib import Path
from fer_voting.runs.run import Run
from fer_voting.training.loggers import wandb_logger
folder = Path(sys.argv[1])
logger = wandb_logger(offline=True, images=False, save_dir=str(folder), start_timeout_seconds=9,
                      upload_timeout_seconds=9, name="mine")
logger.log_charts(Run(folder.parent.parent, "mine"), "soft", RESULT, None)
logger.finish("success")
""".replace("RESULT", repr(result))
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "USER", "LOGNAME")}
    command = [sys.executable, "-c", program, str(run.dir)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert table(run, "best/val/soft/confusion_matrix_table")["data"] == [["a", "a", 1]]
    shown = table(run, "best/val/soft/valence_table")
    assert (shown["columns"], shown["data"]) == (["valence", "predicted valence"], [[0.5, 0.25]])
