"""`python -m fer_voting.search`: what is tried, studies that go on, and mistakes."""

import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from helpers.processes import start
from helpers.train import TINY
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial, TrialState

from fer_voting import search as searching
from fer_voting.runs.run import Run
from fer_voting.search import MAX_FAILURES, Space, main, search

SPACE = ("optimizer.lr=tag(log,interval(1e-4,1e-1))", "augment=none,paper", "dataset.batch_size=range(8,33,8)")


@pytest.fixture
def accuracies(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """In place of trainings: an accuracy that is highest at a learning rate of 1e-2 without augmentation; returns the
    planned configurations."""
    planned: list[dict[str, Any]] = []

    def accuracy(module: str, function: str, config: dict[str, Any]) -> dict[str, Any]:
        planned.append(config)
        distance = abs(float(f"{config['optimizer']['lr']:e}".partition("e")[2]) + 2) / 10
        value = 0.9 - distance - 0.1 * ("rotation" in config["augment"])
        return {"status": "finished", "best_metric": "accuracy", "votes": {"soft": {"val": {"accuracy": value}}}}

    monkeypatch.setattr(searching, "run_isolated", accuracy)
    return planned


def tried(study: optuna.Study) -> list[list[str]]:
    return [trial.user_attrs["words"] for trial in study.trials]


def test_the_words_of_a_trial() -> None:
    space = Space(["split=m3", *SPACE])
    assert space.fixed == ["split=m3"]
    trial = FixedTrial({"optimizer.lr": 0.00123456, "augment": "paper", "dataset.batch_size": 24})
    assert space.suggest(trial) == ["optimizer.lr=0.00123", "augment=paper", "dataset.batch_size=24"]  # type: ignore[arg-type]


def test_the_distributions_are_those_of_the_words() -> None:
    study = optuna.create_study()
    trial = study.ask()
    Space(SPACE).suggest(trial)
    assert trial.distributions == {
        "optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True),
        "augment": CategoricalDistribution(("none", "paper")),
        "dataset.batch_size": IntDistribution(8, 32, step=8),
    }


@pytest.mark.slow
def test_a_study_goes_on_with_what_it_would_have_tried(tmp_path: Path, accuracies: list[dict[str, Any]]) -> None:
    whole = search("mine", [*SPACE, f"output_dir={tmp_path / 'whole'}"], 8)
    words = [*SPACE, f"output_dir={tmp_path / 'parts'}"]
    assert len(search("mine", words, 3).trials) == 3
    parts = search("mine", words, 8)
    assert tried(parts) == tried(whole)
    assert len({tuple(words) for words in tried(whole)}) > 6
    assert len(accuracies) == 16
    assert parts.best_value == max(trial.value for trial in parts.trials if trial.value is not None) > 0.7
    assert len(search("mine", words, 5).trials) == 8  # no more are asked for


@pytest.mark.slow
def test_an_interrupted_trial_is_finished_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["split=baseline,m1,m3", f"output_dir={tmp_path}"]
    names: list[str] = []

    def interrupted(module: str, function: str, config: dict[str, Any]) -> dict[str, Any]:
        names.append(config["name"])
        raise KeyboardInterrupt

    monkeypatch.setattr(searching, "run_isolated", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search("mine", words, 1)

    def finished(module: str, function: str, config: dict[str, Any]) -> dict[str, Any]:
        names.append(config["name"])
        return {"status": "finished", "best_metric": "accuracy", "votes": {"soft": {"val": {"accuracy": 0.5}}}}

    monkeypatch.setattr(searching, "run_isolated", finished)
    study = search("mine", words, 1)
    assert names[0] == names[1]
    assert [(trial.number, trial.state) for trial in study.trials] == [(0, TrialState.COMPLETE)]


@pytest.mark.parametrize(
    ("metric", "heading", "figures"),
    [("accuracy", "val (%)", ["41.20", "-3.00"]), ("mean_ccc", "val mean_ccc", ["0.412", "-0.030"])],
)
def test_the_table_shows_the_metric_that_the_target_optimises(metric: str, heading: str, figures: list[str]) -> None:
    study = optuna.create_study(direction="maximize")
    study.set_user_attr("metric", metric)
    for value in (-0.03, 0.412):
        study.tell(study.ask(), value)
    table = searching._table(study, Space(SPACE))
    assert (table.header[-1], [row[-1] for row in table.rows]) == (heading, figures)


@pytest.mark.slow
def test_a_trial_that_fails_is_left_out_unless_it_is_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = iter(["finished", "failed", "finished"])

    def outcome(module: str, function: str, config: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": next(outcomes),
            "error": "no",
            "best_metric": "accuracy",
            "votes": {"soft": {"val": {"accuracy": 0.5}}},
        }

    monkeypatch.setattr(searching, "run_isolated", outcome)
    study = search("mine", ["split=m1,m3", f"output_dir={tmp_path}"], 2)
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    monkeypatch.setattr(searching, "run_isolated", lambda *job: {"status": "failed", "error": "no space left"})
    with pytest.raises(ChildProcessError, match="no space left"):
        search("other", ["split=m1,m3", f"output_dir={tmp_path}"], 2)


@pytest.mark.slow
def test_a_search_whose_trials_keep_failing_ends_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = iter(["finished", *["failed"] * (MAX_FAILURES - 1), "finished", *["failed"] * MAX_FAILURES])

    def outcome(module: str, function: str, config: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": next(outcomes),
            "error": "no space left",
            "best_metric": "accuracy",
            "votes": {"soft": {"val": {"accuracy": 0.5}}},
        }

    monkeypatch.setattr(searching, "run_isolated", outcome)
    with pytest.raises(ChildProcessError, match=f"{MAX_FAILURES} trials failed in a row, .*: no space left"):
        search("mine", ["split=m1,m3", f"output_dir={tmp_path}"], 9)
    assert next(outcomes, None) is None


@pytest.mark.slow
def test_a_study_belongs_to_its_words(tmp_path: Path, accuracies: list[dict[str, Any]]) -> None:
    words = ["split=m1,m3", f"output_dir={tmp_path}"]
    search("mine", words, 1)
    search("mine", [*words, "logger=none"], 1)
    for other in ({"words": [*words, "seed=1"]}, {"words": words, "seed": 1}):
        with pytest.raises(ValueError, match="holds a study of other words"):
            search("mine", trials=2, **other)  # type: ignore[arg-type]
    assert len(accuracies) == 1


def test_one_process_searches_in_a_study(tmp_path: Path, accuracies: list[dict[str, Any]]) -> None:
    words = ["split=m1,m3", f"output_dir={tmp_path}"]
    search("mine", words, 1)
    with searching._alone(tmp_path / "studies/mine.db"), pytest.raises(BlockingIOError, match="another process"):
        search("mine", words, 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["mine", "split=m1"], "no word has several values"),
        (["mine", "optimizer.lr=tag(log,interval(0,1))"], "above 0"),
        (["mine", "dataset.batch_size=tag(log,range(16,129,16))"], "the only tag is log, of an interval"),
        (["mine", "optimizer.lr=tag(logarithm,interval(1,2))"], "the only tag is log"),
        (["mine", "dataset.batch_size=range(16,16)"], "has no value"),
        (["mine", "splitt=m1,m3"], "splitt"),
        (["a/b", "split=m1,m3"], "a/b"),
    ],
)
def test_a_mistake_ends_with_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=message) as stopped:
        main([*words, f"output_dir={tmp_path}"])
    assert str(stopped.value.code).startswith("error: ")


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"fer_voting\[search\]"):
        search("mine", ["split=m1,m3", f"output_dir={tmp_path}"], 1)


@pytest.mark.slow
def test_a_killed_search_goes_on_from_the_last_epoch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["mine", "--trials", "2", *TINY, "split=baseline,m3", "dataset.size=24", f"output_dir={tmp_path}"]
    words += ["trainer.max_epochs=3", "optimizer.lr=interval(0.001,0.002)"]
    process = start("fer_voting.search", *words, printed=tmp_path / "printed", cwd=tmp_path)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("runs/*/checkpoints/last.ckpt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.join()
    (folder,) = (tmp_path / "runs").iterdir()
    first = Run(tmp_path, folder.name)
    while first.status() == "running" and time.monotonic() < deadline:
        time.sleep(0.05)  # until the child has noticed
    assert first.status() == "interrupted"
    main(words)
    printed = capsys.readouterr().out
    assert printed.count("| faces-") == 2
    assert first.status() == "finished"
    result = first.result()
    assert result is not None
    assert f"{100 * result['votes']['soft']['val']['accuracy']:.2f} |" in printed
    assert (tmp_path / "studies/mine.csv").read_text().count("\nfaces-") == 2
    assert r"\toprule" in (tmp_path / "studies/mine.tex").read_text()
    study = optuna.load_study(study_name="mine", storage=f"sqlite:///{tmp_path / 'studies/mine.db'}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
