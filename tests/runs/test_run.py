"""Names, identity, claims and states of runs."""

import functools
import json
import logging
import multiprocessing
import re
import time
from pathlib import Path
from typing import Any

import pytest
from helpers.composed import composed

from fer_voting.runs.identity import identity, resolve
from fer_voting.runs.naming import name_run
from fer_voting.runs.run import OtherInputsError, Run, RunInUseError, read_history


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([], "faces-m1-seed0"),
        (["split=baseline", "seed=3"], "faces-baseline-seed3"),
        (["dataset=fer2013", "dataset.root=/some/where", "split=m2"], "fer2013-m2-seed0"),
        (["voting=hard", "logger=none", "output_dir=elsewhere", "trainer.accelerator=cpu"], "faces-m1-seed0"),
        (["model.width=16"], "faces-m1-width16-seed0"),
        (["trainer.max_epochs=3"], "faces-m1-max_epochs3-seed0"),
        (["augment=none"], "faces-m1-none-seed0"),
        (["experiment=demo"], "faces-m1-demo-seed0"),
        (["experiment=demo", "model.width=8"], "faces-m1-demo-width8-seed0"),
        (["experiment=table3", "dataset=rafdb"], "rafdb-m1-seed0"),  # it says what to sweep over, nothing else
        (["refit=true", "voting=hard"], "faces-m1-refit_hard-seed0"),
        (["init_from=other-run"], "faces-m1-from_other_run-seed0"),
        (["augment.rotation.degrees=30"], "faces-m1-degrees30-seed0"),
    ],
)
def test_a_run_is_named_by_what_tells_it_from_the_defaults(words: list[str], name: str):
    assert name_run(composed(words)) == name


def test_a_name_has_at_most_120_characters():
    rest = len("faces-m1-from_-seed0")
    assert len(name_run(composed([f"init_from={'x' * (120 - rest)}"]))) == 120
    with pytest.raises(ValueError, match="set its name by name="):
        name_run(composed([f"init_from={'x' * (121 - rest)}"]))


def test_identity_is_what_figures_depend_on():
    def of(*words: str) -> dict:
        return identity(config_of(*words))

    assert of() == of("voting=hard", "logger=wandb", "dataset.num_workers=2", "output_dir=x", "~callbacks.throughput")
    for words in (["seed=1"], ["trainer.precision=bf16-mixed"], ["dataset.size=60"], ["optimizer.lr=1"], ["split=m2"]):
        assert of() != of(*words)
    assert of("refit=true") != of("refit=true", "voting=hard")  # which decides for how long


@functools.cache  # Hydra takes a tenth of a second for each
def config_of(*words: str) -> dict:
    return resolve(composed(list(words)))


INPUTS: dict[str, Any] = {
    "data": {"fingerprint": "a", "classes": ["x", "y"], "counts": {"train": {"x": 1}}},
    "initial_weights": {"sha256": "w"},
}


def test_a_folder_belongs_to_one_configuration(tmp_path: Path):
    run = Run(tmp_path, "mine")
    with run.open(config_of()):
        run.check_inputs(INPUTS)
    with run.open(config_of("voting=hard")):
        pass
    with (
        pytest.raises(ValueError, match=r"seed: 0 there, 1 here\); it is not overwritten: .* name="),
        run.open(config_of("seed=1")),
    ):
        pass


def test_a_vote_of_ones_own_has_its_best_epoch_only_in_a_run_that_began_with_it(tmp_path: Path):
    built_in, own = config_of(), config_of("voting.name=mine")
    for name, begun_with in (("with", own), ("without", built_in)):
        with Run(tmp_path, name).open(begun_with):
            Run(tmp_path, name).check_inputs(INPUTS)
        Run(tmp_path, name).check_config(built_in)
    Run(tmp_path, "with").check_config(own)
    with pytest.raises(ValueError, match=r"began without this vote \(mine\)"):
        Run(tmp_path, "without").check_config(own)


def test_a_configuration_that_came_to_nothing_gives_way(tmp_path: Path):
    """A start was refused before its data; the user repeats it under the same name, corrected."""
    run = Run(tmp_path, "mine")
    with run.open(config_of("seed=1")):
        run.write_result({"status": "failed"})
    with run.open(config_of()):
        assert run.config()["seed"] == 0


@pytest.mark.parametrize("first", ["null", "nothing"])
def test_null_is_another_configuration_than_a_key_that_is_absent(tmp_path: Path, first: str):
    """Which leaves its constructor's default."""
    absent = config_of()
    null = {**absent, "trainer": {**absent["trainer"], "accumulate_grad_batches": None}}
    there, here = (null, absent) if first == "null" else (absent, null)
    message = "None there, nothing here" if first == "null" else "nothing there, None here"
    run = Run(tmp_path, "mine")
    with run.open(there):
        run.check_inputs(INPUTS)
    with pytest.raises(ValueError, match=rf"trainer\.accumulate_grad_batches: {message}"), run.open(here):
        pass


def test_a_folder_in_use_is_refused_until_it_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fer_voting.runs.run.LOCK_WAIT_SECONDS", 0.001)
    run = Run(tmp_path, "mine")
    with run.open(config_of()), pytest.raises(RunInUseError, match=re.escape(str(run.dir))), run.open(config_of()):
        pass
    with run.open(config_of()):
        pass


def test_states_of_a_run(tmp_path: Path):
    run = Run(tmp_path, "mine")
    assert run.status() == "missing"
    with run.open(config_of()):
        run.write_result({"status": "running"})
        assert run.status() == "running"
    assert run.status() == "interrupted"  # nobody holds the folder any more
    run.write_result({"status": "failed"})
    assert run.status() == "failed"


def _open_in_another_process(folder: Path, config: dict, queue: multiprocessing.Queue) -> None:
    try:
        with Run(folder, "mine").open(config):
            queue.put("opened")
    except RunInUseError as error:
        queue.put(str(error))


@pytest.mark.slow
def fail_together(error_of_other_rank: Path, theirs: str) -> None:
    error_of_other_rank.write_text(theirs)
    raise ConnectionError("it is gone")


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({"RANK": "3", "LOCAL_RANK": "1"}, "3"),
        ({"SLURM_PROCID": "2"}, "2"),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, "1"),
        ({"NODE_RANK": "1", "LOCAL_RANK": "0"}, "1.0"),
    ],
)
def test_another_rank_keeps_its_error_where_rank_0_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    environment: dict[str, str], rank: str,
):  # fmt: skip
    """Also before the training, and in a folder that rank 0 has not made yet."""
    run = Run(tmp_path, "a")
    with monkeypatch.context() as patch:
        for variable, value in environment.items():
            patch.setenv(variable, value)
        with pytest.raises(FileNotFoundError, match=r"^no such folder$"), run.open(config_of()):
            raise FileNotFoundError("no such folder")
        assert f"rank {rank}: no such folder" in caplog.text
        assert {path.name: path.read_text() for path in run.dir.iterdir()} == {
            f"error-rank{rank}.txt": "no such folder"
        }
    for theirs, kept in (("no such folder", f"rank {rank}: no such folder"), ("it is gone", "it is gone")):
        with pytest.raises(ConnectionError), run.open(config_of()), run.recording({}):
            fail_together(run.error_of_rank(rank), theirs)
        assert (run.result() or {})["error"] == kept
    with run.open(config_of()):
        pass
    assert not run.error_of_rank(rank).exists()  # an earlier start's


def test_another_rank_fails_before_its_training_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from fer_voting import train

    monkeypatch.setenv("RANK", "1")
    config = composed(["dataset=folder", f"dataset.root={tmp_path / 'nowhere'}", f"output_dir={tmp_path}", "name=a"])
    try:
        with pytest.raises(FileNotFoundError, match="nowhere") as raised:
            train(config)
    finally:
        logging.getLogger("fer_voting").setLevel(logging.INFO)  # a rank above 0 says little; this process is none
    (kept,) = Run(tmp_path, "a").dir.iterdir()
    assert kept.read_text() == str(raised.value)


def test_two_processes_do_not_share_a_run(tmp_path: Path):
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    with Run(tmp_path, "mine").open(config_of()):
        process = context.Process(target=_open_in_another_process, args=(tmp_path, config_of(), queue))
        process.start()
        assert "another process" in queue.get(timeout=60)
        process.join()


def test_results_are_written_whole_or_not_at_all(tmp_path: Path):
    run = Run(tmp_path, "mine")
    run.write_result({"status": "finished", "figure": 1})
    with pytest.raises(TypeError):
        run.write_result({"status": "finished", "figure": object()})
    with pytest.raises(ValueError, match="JSON compliant"):
        run.write_result({"figure": float("nan")})
    assert json.loads((run.dir / "result.json").read_text()) == {"status": "finished", "figure": 1}
    assert [p.name for p in run.dir.iterdir()] == ["result.json"]  # no draft is left behind


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "x=1"])
def test_names_that_are_no_folder_names(tmp_path: Path, name: str):
    with pytest.raises(ValueError, match="`name`"):
        Run(tmp_path, name)


def _ask_status(folder: Path, seconds: float) -> None:
    run, end = Run(folder, "mine"), time.monotonic() + seconds
    while time.monotonic() < end:
        run.status()


@pytest.mark.slow
def test_asking_for_the_status_does_not_keep_a_run_from_starting(tmp_path: Path):
    run = Run(tmp_path, "mine")
    with run.open(config_of()):
        run.write_result({"status": "running"})
    process = multiprocessing.get_context("spawn").Process(target=_ask_status, args=(tmp_path, 2))
    process.start()
    config = config_of()
    while process.is_alive():
        with run.open(config):
            pass
    assert process.exitcode == 0


def test_the_status_needs_read_access_alone(tmp_path: Path):
    run = Run(tmp_path, "mine")
    run.dir.mkdir(parents=True)
    run.write_result({"status": "running"})
    assert run.status() == "interrupted"
    assert not (run.dir / ".lock").exists()


def test_differing_inputs_are_named(tmp_path: Path):
    run = Run(tmp_path, "mine")
    assert not run.was_started
    run.check_inputs(INPUTS)
    assert run.was_started
    run.check_inputs(INPUTS | {"data": INPUTS["data"] | {"layout": "other, with the same content"}})
    with pytest.raises(OtherInputsError, match=r"a there, b here.*classes.*train\.x: 1 there, 2 here.* name=") as error:
        run.check_inputs(INPUTS | {"data": {"fingerprint": "b", "classes": ["x"], "counts": {"train": {"x": 2}}}})
    assert "sha256" not in str(error.value)
    with pytest.raises(OtherInputsError, match=r"teacher\.sha256: None there, t here"):
        run.check_inputs(INPUTS | {"teacher": {"sha256": "t"}})
    with pytest.raises(OtherInputsError, match=r"initial_weights\.sha256: w there, None here"):
        run.check_inputs({"data": INPUTS["data"]})


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"data": "a"}'])
def test_damaged_inputs_are_other_inputs(tmp_path: Path, text: str):
    run = Run(tmp_path, "mine")
    run.check_inputs(INPUTS)
    (run.dir / "inputs.json").write_text(text)
    with pytest.raises(OtherInputsError, match=r"data\.fingerprint: None there, a here"):
        run.check_inputs(INPUTS)


@pytest.mark.parametrize("text", ["epoch\nfirst\n", "epoch,train/loss\n0,low\n", "epoch\n0,1\n", "epoch\n\0\n"])
def test_a_damaged_history(tmp_path: Path, text: str):
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged"):
        read_history(tmp_path / "metrics.csv")


@pytest.mark.parametrize(("text", "why"), [("seed: 0", "KeyError: 'refit'"), ("- seed", ""), ("a: [", "")])
def test_a_damaged_configuration(tmp_path: Path, text: str, why: str):
    run = Run(tmp_path, "mine")
    run.dir.mkdir(parents=True)
    (run.dir / "config.yaml").write_text(text)
    run.check_inputs(INPUTS)
    with pytest.raises(ValueError, match=rf"config\.yaml is damaged: {why}"), run.open(config_of()):
        pass


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"status": 3}'])
def test_a_damaged_result(tmp_path: Path, text: str):
    run = Run(tmp_path, "mine")
    run.dir.mkdir(parents=True)
    (run.dir / "result.json").write_text(text)
    assert run.status() == "damaged"
    with pytest.raises(ValueError, match=r"result\.json is damaged"):
        run.result()


def test_the_files_of_a_run_lie_where_the_documentation_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run = Run(Path("outputs"), "my--lr0.1-refit_hard-seed0")
    assert run.name == "my--lr0.1-refit_hard-seed0"
    files = [run.last_checkpoint, run.best_checkpoint("hard"), run.metrics_file, run.predictions_file("hard", "test")]
    assert [str(file.relative_to(tmp_path / "outputs" / "runs" / run.name)) for file in files] == [
        "checkpoints/last.ckpt",
        "checkpoints/best-hard.ckpt",
        "metrics.csv",
        "predictions/hard-test.npz",
    ]
