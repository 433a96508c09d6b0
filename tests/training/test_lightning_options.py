"""Options of Lightning and Hydra mean what they say in a run, or are refused with what to type instead."""

import inspect
import math
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from helpers.callbacks import RateWitness
from helpers.composed import composed
from helpers.train import REPO, TINY
from omegaconf import OmegaConf

from fer_voting.config import compose, explain
from fer_voting.data import module as data_module
from fer_voting.data.batches import BatchDataset
from fer_voting.experiment import train
from fer_voting.runs.naming import settle
from fer_voting.runs.processes import run_isolated
from fer_voting.runs.run import Run, read_history
from fer_voting.system.conf_folders import USER_CONF_VARIABLE
from fer_voting.training.options import REFUSED, refuse_trainer_options

pytestmark = pytest.mark.slow

EARLY_STOPPING = (
    "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/soft/accuracy, mode: max,"
    " patience: 1, min_delta: 0.9}"
)
INTERRUPT = "+callbacks.interrupt={{_target_: helpers.callbacks.InterruptsOnce, flag: '{}', epoch: {}}}"

Trained = Callable[..., Run]


@pytest.fixture(scope="module")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("options") / "outputs"


@pytest.fixture
def trained(output_dir: Path) -> Trained:
    """The run after a training of a second; in one output folder, so that the faces are drawn once."""

    def trained(name: str | None, *words: str) -> Run:
        named = [f"name={name}"] if name else []
        config = settle(composed([*TINY, "split=baseline", f"output_dir={output_dir}", *named, *words]))
        train(config)
        return Run(output_dir, config.name)

    return trained


def result_of(run: Run) -> dict[str, Any]:
    result = run.result()
    assert result is not None
    return result


def last(run: Run) -> dict[str, Any]:
    return torch.load(run.last_checkpoint, weights_only=True)


def same_weights(one: Path, other: Path) -> bool:
    ours, theirs = (torch.load(path, weights_only=True)["state_dict"] for path in (one, other))
    keys = [key for key in ours if key.startswith("net.")]
    return all(torch.equal(ours[key], theirs[key]) for key in keys)


@pytest.fixture(scope="module")
def plain(output_dir: Path) -> Run:
    train(composed([*TINY, "split=baseline", f"output_dir={output_dir}", "name=plain"]))
    return Run(output_dir, "plain")


# Schedules ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheduler", "words", "steps"),
    [
        ("cosine", (), 6),
        ("cosine", ("+trainer.accumulate_grad_batches=2",), 4),
        ("cosine", ("+trainer.limit_train_batches=2",), 4),
        ("one_cycle", ("+trainer.accumulate_grad_batches=2",), 4),
    ],
)
def test_a_schedule_of_steps_reaches_its_end(
    trained: Trained, scheduler: str, words: tuple[str, ...], steps: int
) -> None:
    name = "-".join([scheduler, *(re.sub(r"\W+", "_", word) for word in words)])
    trained(name, f"scheduler={scheduler}", *words, "+callbacks.rates={_target_: helpers.callbacks.RateWitness}")
    assert len(RateWitness.rates) == steps
    if scheduler == "cosine":
        by_hand = [2e-4 * (1 + math.cos(math.pi * step / steps)) / 2 for step in range(steps)]
        assert RateWitness.rates == pytest.approx(by_hand)
    else:
        assert max(RateWitness.rates) > 1e-4
        assert RateWitness.rates[-1] < 1e-8


# A training that ends early -----------------------------------------------------------------------------------------


def test_early_stopping_is_named_and_counted(trained: Trained, messages: pytest.LogCaptureFixture) -> None:
    run = trained(None, "trainer.max_epochs=6", EARLY_STOPPING)
    assert re.search(r"-stop\b.*-seed0$", run.name)
    assert "EarlyStopping" not in run.name
    assert result_of(run)["epochs"] == len(read_history(run.metrics_file)) == 2
    assert f"{run.name}: EarlyStopping of val/soft/accuracy ended the training in epoch 2 of 6" in messages.text


def test_a_refit_trains_the_epochs_that_a_stopped_run_found_best(trained: Trained) -> None:
    selected = result_of(trained(None, "trainer.max_epochs=6", EARLY_STOPPING))
    refit = result_of(trained(None, "trainer.max_epochs=6", EARLY_STOPPING, "refit=true"))
    assert refit["epochs"] == selected["votes"]["soft"]["best_epoch"] + 1


def test_a_stopped_run_that_was_killed_is_evaluated_and_not_trained_further(trained: Trained, tmp_path: Path) -> None:
    words = ("stopped", "trainer.max_epochs=6", EARLY_STOPPING, INTERRUPT.format(tmp_path / "flag", "null"))
    with pytest.raises(KeyboardInterrupt):
        trained(*words)
    run = trained(*words)
    assert result_of(run)["epochs"] == 2
    assert last(run)["epoch"] == 1


def test_max_steps_ends_a_training_and_says_so(trained: Trained, messages: pytest.LogCaptureFixture) -> None:
    run = trained("steps", "trainer.max_epochs=3", "+trainer.max_steps=4")
    assert result_of(run)["epochs"] == 2
    assert "steps: trainer.max_steps=4 ended the training in epoch 2 of 3, after 4 steps" in messages.text
    messages.clear()
    trained("all-steps", "+trainer.max_steps=6")
    assert "ended the training" not in messages.text


def test_max_time_ends_a_training_and_says_so(trained: Trained, messages: pytest.LogCaptureFixture) -> None:
    run = trained("time", "trainer.max_epochs=9999", "+trainer.max_time={milliseconds: 300}")
    assert result_of(run)["epochs"] == len(read_history(run.metrics_file)) < 9999
    assert re.search(
        r"time: trainer\.max_time \(\d s are over\) ended the training in epoch \d+ of 9999", messages.text
    )


@pytest.mark.parametrize(
    ("name", "words"), [("steps2", "+trainer.max_steps=2"), ("time0", "+trainer.max_time={seconds: 0}")]
)
def test_a_training_without_a_validation_is_answered_in_words(trained: Trained, name: str, words: str) -> None:
    for _ in range(2):  # started again, too
        with pytest.raises(ValueError, match="ended before its first validation"):
            trained(name, words)


# Arguments of the trainer -------------------------------------------------------------------------------------------


def test_options_that_change_no_result_change_none(
    trained: Trained, plain: Run, tmp_path: Path, messages, capfd
) -> None:
    words = {
        "default_root_dir": f"'{tmp_path}'",
        "detect_anomaly": "true",
        "enable_autolog_hparams": "false",
        "enable_checkpointing": "true",
        "enable_model_summary": "true",
        "enable_progress_bar": "false",
        "inference_mode": "false",
        "min_epochs": 1,
        "min_steps": 1,
        "num_sanity_val_steps": 1,
        "overfit_batches": 0,
        "profiler": "simple",
        "reload_dataloaders_every_n_epochs": 1,
        "use_distributed_sampler": "false",
        "val_check_interval": 1.0,
    }
    run = trained("many", *(f"+trainer.{key}={value}" for key, value in words.items()))
    assert run.metrics_file.read_bytes() == plain.metrics_file.read_bytes()
    assert same_weights(run.best_checkpoint("soft"), plain.best_checkpoint("soft"))
    printed = "".join(capfd.readouterr())
    assert "FIT Profiler Report" in messages.text
    assert "Trainable params" in printed
    assert "many: 100%" not in printed


@pytest.mark.parametrize("bar", ["RichProgressBar", "TQDMProgressBar"])
def test_another_progress_bar_takes_the_place_of_ours(trained: Trained, bar: str, capfd) -> None:
    trained(f"bar{bar}", "trainer.max_epochs=1", f"+callbacks.bar={{_target_: lightning.pytorch.callbacks.{bar}}}")
    printed = "".join(capfd.readouterr())
    assert "Epoch 0" in printed
    assert f"bar{bar}: 100%" not in printed


def test_the_progress_bar_counts_the_batches_that_are_trained(trained: Trained, capfd) -> None:
    trained("counted", "+trainer.limit_train_batches=1")
    assert re.search(r"counted: 100%.* 40/40 ", capfd.readouterr().err)


def test_test_can_be_left_out(trained: Trained, messages: pytest.LogCaptureFixture) -> None:
    votes = result_of(trained("untested", "trainer.max_epochs=1", "+trainer.limit_test_batches=0"))["votes"]
    assert all("val" in figures and "test" not in figures for figures in votes.values())
    assert "untested: nothing is tested (trainer.limit_test_batches=0)" in messages.text


def test_fast_dev_run_is_one_batch_of_each_part_without_loggers(trained: Trained) -> None:
    run = trained("fast", "+trainer.fast_dev_run=true", "logger=tensorboard")
    assert result_of(run)["epochs"] == 1
    for part in ("val", "test"):
        counts = torch.tensor(result_of(run)["votes"]["soft"][part]["confusion_counts"])
        assert counts.sum() == 20  # the part has no more
    assert last(run)["global_step"] == 1
    assert not list(run.dir.rglob("events*"))


REFUSED_VALUES = {
    "barebones": "true",
    "callbacks": "[{_target_: lightning.pytorch.callbacks.LearningRateMonitor}]",
    "enable_checkpointing": "false",
    "limit_predict_batches": 1,
    "logger": "true",
    "model_registry": "mine",
    "overfit_batches": 2,
    "use_distributed_sampler": "true",
    "val_check_interval": 0.5,
}
OTHERS = {
    "accumulate_grad_batches=0": "at least 1",
    "check_val_every_n_epoch=null": "must be 1 to trainer.max_epochs",
    "check_val_every_n_epoch=0": "must be 1 to trainer.max_epochs",
    "limit_train_batches=0": "trains nothing",
    "max_epochs=null": "must be at least 1",
    "max_epochs=-1": "must be at least 1",
    "max_steps=0": "at least 1, or -1",
    "max_time=5": "DD:HH:MM:SS",
    "plugins={_target_: lightning.pytorch.plugins.io.AsyncCheckpointIO}": "trainer.plugins: AsyncCheckpointIO",
    "strategy=ddp_spawn": "trainer=ddp",
    "strategy=ddp_notebook": "trainer=ddp",
}


@pytest.mark.parametrize(
    ("option", "words"),
    [*((f"{key}={value}", REFUSED[key][1]) for key, value in REFUSED_VALUES.items()), *OTHERS.items()],
)
def test_what_a_run_cannot_follow_is_refused_at_once(
    trained: Trained, output_dir: Path, option: str, words: str
) -> None:
    key = option.partition("=")[0]
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        trained("refused", f"++trainer.{option}")
    assert f"trainer.{key}" in str(error.value)
    assert not (output_dir / "runs" / "refused" / "inputs.json").exists()


def test_every_refusal_is_tried() -> None:
    assert REFUSED_VALUES.keys() == REFUSED.keys()
    signature = inspect.signature(L.Trainer).parameters
    for key, (allowed, _) in REFUSED.items():
        if allowed and key != "use_distributed_sampler":
            refuse_trainer_options({key: signature[key].default})


def test_the_pages_table_has_every_argument_of_the_trainer() -> None:
    page = (REPO / "docs" / "training.md").read_text()
    table = page.partition("### Arguments of Lightning's trainer")[2].partition("\n## ")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    meanings = {name.strip(" `"): meaning for names, meaning in rows for name in names.split(",")}
    assert meanings.keys() == inspect.signature(L.Trainer).parameters.keys()
    assert all("refused" in meanings[name] for name in REFUSED)


# Callbacks, optimizers, loggers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LearningRateFinder", "BatchSizeFinder"])
def test_tuners_are_refused_with_a_sweep_that_tries_values(trained: Trained, name: str) -> None:
    with pytest.raises(ValueError, match=rf"callbacks\.tune: {name} .*-m \w+\.\w+="):
        trained("refused", f"+callbacks.tune={{_target_: lightning.pytorch.callbacks.{name}}}")


def test_a_callback_is_removed_by_null_and_checked_by_class(trained: Trained) -> None:
    run = trained("fewer", "trainer.max_epochs=1", "callbacks.throughput=null", "callbacks.forward_memory=null")
    assert result_of(run)["images_per_second"] is None
    with pytest.raises(ValueError, match=r"callbacks\.mine is a dict, and no callback"):
        trained("refused", "+callbacks.mine={_target_: builtins.dict}")


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_clipping_under_autocast_is_not_fused(
    trained: Trained, optimizer: str, messages: pytest.LogCaptureFixture
) -> None:
    words = ("trainer.precision=bf16-mixed", "+trainer.gradient_clip_val=0.05", f"optimizer={optimizer}")
    run = trained(f"clip-{optimizer}", *words)
    assert "is not fused" in messages.text
    messages.clear()
    unfused = trained(f"clip-{optimizer}-unfused", *words, "optimizer.fused=false")
    assert run.metrics_file.read_bytes() == unfused.metrics_file.read_bytes()
    assert "is not fused" not in messages.text


@pytest.mark.parametrize("group", ["logger", "callbacks"])
def test_a_group_of_null_is_answered_by_what_to_type(group: str) -> None:
    with pytest.raises(Exception, match="override") as error:
        compose([f"{group}=null"])
    assert "e.g. logger=none, or ~logger to leave the group out" in explain(error.value)
    assert group not in compose([f"~{group}"]) or not compose([f"~{group}"])[group]


# Loader workers -------------------------------------------------------------------------------------------------------


def hangs(*_: Any) -> None:
    time.sleep(60)


def dies(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_and_lose_workers(output_dir: Path, lose: Callable[..., None], timeout_seconds: float) -> dict[str, Any]:
    """A training whose loader workers hang or die, in a process of its own: torch answers the death of a worker by an
    exception in whatever its process does then, which may be after the test."""
    multiprocessing.set_start_method("fork", force=True)  # so that the workers inherit the two changes
    data_module.LOADER_TIMEOUT_SECONDS = timeout_seconds
    BatchDataset.__getitem__ = lose  # type: ignore[method-assign]
    return train(composed([*TINY, "split=baseline", f"output_dir={output_dir}", "dataset.num_workers=1"]))


@pytest.mark.parametrize(
    ("lose", "timeout_seconds", "pattern"),
    [
        (hangs, 2, "timed out after 2 seconds"),
        # torch has a text for the signal and one for the wait, either may come first; 60: a busy machine forks slowly
        (dies, 60, r"worker \(pid.* (is killed by signal: Killed|exited unexpectedly)"),
    ],
)
def test_a_worker_that_is_lost_ends_the_training(
    tmp_path: Path, lose: Callable[..., None], timeout_seconds: float, pattern: str
) -> None:
    outcome = run_isolated("lost", train_and_lose_workers, tmp_path, lose, timeout_seconds)
    assert outcome["status"] == "failed"
    assert re.search(pattern, outcome["error"])
    assert "dataset.num_workers=0 loads the batches without workers" in outcome["error"]


def test_shared_memory_that_cannot_hold_the_batches_is_refused(tmp_path: Path) -> None:
    data_module.check_shared_memory(1, 2, tmp_path)
    data_module.check_shared_memory(2**60, 2, tmp_path / "macos")
    with pytest.raises(OSError, match=r"dataset\.num_workers=2: .* needs at least .*MiB: set dataset\.num_workers=0"):
        data_module.check_shared_memory(2**60, 2, tmp_path)


# A network of the user's own, and one that draws random numbers -------------------------------------------------------


@pytest.fixture
def own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of groups whose `model=dropout` draws random numbers in training."""
    node = {
        "_target_": "fer_voting.models.voting.vote_in",
        "backbone": {"_target_": "helpers.networks.WithDropout", "_partial_": True},
    }
    (tmp_path / "conf" / "model").mkdir(parents=True)
    OmegaConf.save(node, tmp_path / "conf" / "model" / "dropout.yaml")
    monkeypatch.setenv(USER_CONF_VARIABLE, str(tmp_path / "conf"))


@pytest.mark.usefixtures("own_network")
def test_dropout_of_a_continued_run_draws_as_of_an_undisturbed_one(output_dir: Path, tmp_path: Path) -> None:
    tiny = [word for word in TINY if not word.startswith("model.")]

    def history(name: str, flag: Path) -> list[dict[str, float]]:
        words = ("model=dropout", "split=baseline", f"name={name}", f"output_dir={output_dir}", "trainer.max_epochs=3")
        train(composed([*tiny, *words, INTERRUPT.format(flag, 1)]))
        return read_history(Run(output_dir, name).metrics_file)

    with pytest.raises(KeyboardInterrupt):
        history("dropped", tmp_path / "flag")
    (tmp_path / "other").touch()
    torch.rand(7)  # what else draws does not matter
    assert [row["train/loss"] for row in history("undisturbed", tmp_path / "other")] == [
        row["train/loss"] for row in history("dropped", tmp_path / "flag")
    ]


# More epochs for a finished run ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("callbacks", ["default", "ema"])
def test_more_epochs_of_a_finished_run_are_those_of_a_longer_one(
    trained: Trained, tmp_path: Path, callbacks: str
) -> None:
    words = (f"callbacks={callbacks}", "split=m3", INTERRUPT.format(tmp_path / "flag", 3))
    (tmp_path / "flag").touch()
    short = trained(f"short-{callbacks}", *words)
    whole = trained(f"whole-{callbacks}", *words, "trainer.max_epochs=4")
    before = result_of(short)
    (tmp_path / "flag").unlink()
    for _ in range(2):  # interrupted once
        try:
            run = trained(f"longer-{callbacks}", *words, "trainer.max_epochs=4", f"continue_from={short.name}")
        except KeyboardInterrupt:
            assert len(read_history(Run(short.dir.parent.parent, f"longer-{callbacks}").metrics_file)) == 3
    assert run.metrics_file.read_bytes() == whole.metrics_file.read_bytes()
    for vote in ("soft", "hard"):
        assert same_weights(run.best_checkpoint(vote), whole.best_checkpoint(vote))
        assert result_of(run)["votes"][vote] == result_of(whole)["votes"][vote]
    assert same_weights(run.last_checkpoint, whole.last_checkpoint)
    assert result_of(run)["epochs"] == 4
    assert result_of(run)["seconds"] > before["seconds"]
    assert result_of(short) == before


def test_more_epochs_from_the_folder_of_a_run(trained: Trained, plain: Run, tmp_path: Path) -> None:
    longer = ("trainer.max_epochs=3", f"continue_from='{plain.dir}'", f"output_dir='{tmp_path}'")
    trained("longer", *longer)
    assert result_of(Run(tmp_path, "longer"))["epochs"] == 3
    assert read_history(Run(tmp_path, "longer").metrics_file)[:2] == read_history(plain.metrics_file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("scheduler=cosine",), r"equal in all but trainer.max_epochs .*scheduler\._target_"),
        (("seed=1",), r"\(seed: 0 there, 1 here\)"),
        (("trainer.max_epochs=2",), "=2 must be above the 2 of that run"),
        (("continue_from=no_run",), "is missing: only a finished run"),
    ],
)
def test_a_run_that_is_not_the_beginning_of_a_longer_one(
    trained: Trained, plain: Run, words: tuple[str, ...], message: str
) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=f"^continue_from=.*{message}"):
        trained("not-longer", "trainer.max_epochs=3", f"continue_from={plain.name}", *words)


@pytest.mark.parametrize("scheduler", ["cosine", "one_cycle"])
def test_a_schedule_of_the_whole_length_cannot_be_made_longer(trained: Trained, scheduler: str) -> None:
    short = trained(f"short-{scheduler}", f"scheduler={scheduler}")
    with pytest.raises(ValueError, match=f"scheduler={scheduler} depends on the length"):
        trained("refused", f"scheduler={scheduler}", "trainer.max_epochs=3", f"continue_from={short.name}")


def test_a_run_without_its_last_checkpoint_says_so(trained: Trained) -> None:
    short = trained("removed", "trainer.max_epochs=1")
    short.last_checkpoint.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no checkpoints/last\.ckpt"):
        trained("refused", "continue_from=removed")
    trained("removed", "trainer.max_epochs=1")  # is still finished


def test_the_refusal_of_another_length_names_the_way(trained: Trained, plain: Run) -> None:
    with pytest.raises(ValueError, match=r"name=OTHER continue_from=plain trainer\.max_epochs=N"):
        trained("plain", "trainer.max_epochs=3")
    with pytest.raises(ValueError, match="seed: 0 there, 3 here") as error:
        trained("plain", "seed=3")
    assert "continue_from" not in str(error.value)
