"""Search for good values of a training's keys: `python -m fer_voting.search NAME --trials N key=values ...`."""

import argparse
import fcntl
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_voting.config import HOW_TO_SEE_MORE, as_typed, compose, explain
from fer_voting.results.table import Table, write_tables
from fer_voting.runs.naming import drop_overrides, settle
from fer_voting.runs.processes import run_isolated
from fer_voting.runs.run import Run
from fer_voting.system.messages import set_up_messages
from fer_voting.system.packages import whole_package
from fer_voting.system.text import counted
from fer_voting.train import train_apart
from fer_voting.votes import find_vote

with whole_package():
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep

if TYPE_CHECKING:
    import optuna

log = logging.getLogger("fer_voting.search")

ABOUT = """\
Search for good values of a training's keys by Optuna, with the tree-structured Parzen estimator.

Values that are searched, in the words of Hydra's sweepers:
  'optimizer.lr=tag(log,interval(1e-4,1e-2))'  a number in a range, evenly in its logarithm (without the tag: evenly)
  'dataset.batch_size=range(32,129,32)'        one of 32, 64, 96, 128
  augment=none,paper                           one of these
All other words hold for every trial.

A trial is a run of fer_voting.train, in a process of its own, judged by the validation accuracy of `voting` in its best
epoch. The study is kept in outputs/studies/NAME.db. The same command, typed again, goes on where it was; a larger N
adds trials. Optuna comes with the extra `search`."""

MAX_FAILURES = 5
"""Trials that may fail in a row. A full disk fails each."""
DIGITS = 3
"""Significant digits of a sampled value. More would only make run names longer."""


class Space:
    """The values that are searched: a parsed word for each key.

    Args:
        words: of the command line.

    Raises ValueError if no word has several values, or one of them cannot be searched.
    """

    def __init__(self, words: Sequence[str]) -> None:
        words = [as_typed(word) for word in words]
        parsed = OverridesParser.create().parse_overrides(words)
        self.fixed = [word for word, one in zip(words, parsed, strict=True) if not one.is_sweep_override()]
        self.searched = {one.get_key_element(): one for one in parsed if one.is_sweep_override()}
        if not self.searched:
            raise ValueError(
                "no word has several values: e.g. 'optimizer.lr=tag(log,interval(1e-4,1e-2))' or split=m1,m3"
            )
        for one in self.searched.values():
            value = one.value()
            assert isinstance(value, Sweep)
            if value.tags and (value.tags != {"log"} or not isinstance(value, IntervalSweep)):
                raise ValueError(f"{one.input_line}: the only tag is log, of an interval: tag(log,interval(1e-4,1e-2))")
            if value.tags and isinstance(value, IntervalSweep) and not (value.start or 0) > 0:
                raise ValueError(f"{one.input_line}: a logarithm needs an interval above 0")
            if isinstance(value, RangeSweep) and not list(value.range()):
                raise ValueError(f"{one.input_line} has no value")

    def suggest(self, trial: "optuna.Trial") -> list[str]:
        """The words of a trial that the study chooses."""
        return [f"{key}={self._value(trial, key, one)}" for key, one in self.searched.items()]

    @staticmethod
    def _value(trial: "optuna.Trial", key: str, one: Override) -> Any:
        value = one.value()
        if isinstance(value, IntervalSweep):
            assert value.start is not None
            assert value.end is not None
            return f"{trial.suggest_float(key, value.start, value.end, log='log' in value.tags):.{DIGITS}g}"
        if isinstance(value, RangeSweep) and isinstance(value.start, int) and isinstance(value.step, int):
            values = list(value.range())
            return trial.suggest_int(key, int(values[0]), int(values[-1]), step=value.step)
        return trial.suggest_categorical(key, list(one.sweep_string_iterator()))


def search(name: str, words: Sequence[str], trials: int, seed: int = 0) -> "optuna.Study":
    """The study `name` with as many finished trials, continued where it was.

    Args:
        words: of a training's command line; those with several values are searched (`Space`).
        trials: how many are to be finished in all.
        seed: of the choices. What a trial tries depends on it and on the trials before, so that a study that was
            interrupted tries what it would have tried.

    Raises ValueError if the words are wrong, or are not those that the study was begun with; BlockingIOError if another
    process searches in it; ChildProcessError if a trial fails before any has finished, or `MAX_FAILURES` in a row.
    """
    space = Space(words)
    optuna = _import_optuna()
    path = study_file(space, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _alone(path):
        study = optuna.create_study(
            storage=f"sqlite:///{path.absolute()}", study_name=name, direction="maximize", load_if_exists=True
        )
        _claim(study, words, seed, path)
        _finish(study, space, trials, seed)
    return study


def study_file(space: Space, name: str) -> Path:
    """`<output_dir>/studies/<name>.db`. Raises ValueError if `name` can't be a file's name."""
    output_dir = Path(compose(space.fixed).output_dir)
    return output_dir / "studies" / f"{Run(output_dir, name).name}.db"


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another process is searching in {path}") from None
        yield


def _finish(study: "optuna.Study", space: Space, trials: int, seed: int) -> None:
    """Train until as many trials are finished."""
    optuna = _import_optuna()
    finished = optuna.trial.TrialState.COMPLETE
    failures = 0  # in a row
    while (done := len(study.get_trials(deepcopy=False, states=[finished]))) < trials:
        number, chosen = _next_trial(study, space, seed)
        job = [*space.fixed, *chosen]
        planned = settle(compose(job))
        log.info(f"trial {number} ({done} of {trials} finished): {' '.join(chosen)}: {planned['name']}")
        result = run_isolated(planned.name, train_apart, planned)
        if result["status"] != "finished":
            study.tell(number, state=optuna.trial.TrialState.FAIL)
            failures += 1
            if not done or failures == MAX_FAILURES:
                row = f"{counted(failures, 'trial')} failed in a row, at last " if done else ""
                raise ChildProcessError(f"{row}{planned['name']}: {result['error']}")
            continue
        failures = 0
        metric = result["best_metric"]
        value = result["votes"][find_vote(planned.voting.name).epoch_vote]["val"][metric]
        study.set_user_attr("metric", metric)
        study.tell(number, value)
        unit = " %" if metric == "accuracy" else f" ({metric})"
        best = _value_text(study.best_value, metric)
        log.info(f"trial {number}: {_value_text(value, metric)}{unit}; the best so far: {best}{unit}")


def _value_text(value: float, metric: str) -> str:
    """An accuracy in percent, any other metric as it is."""
    return f"{100 * value:.2f}" if metric == "accuracy" else f"{value:.3f}"


def _import_optuna() -> Any:
    """The module. Raises ValueError that names the extra if it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise ValueError("the search needs more: pip install 'fer_voting[search]'") from error
    return optuna


def _claim(study: "optuna.Study", words: Sequence[str], seed: int, path: Path) -> None:
    """Record what is searched, or compare it with what an earlier start recorded."""
    ours = {"words": sorted(drop_overrides(words, "output_dir", "logger")), "seed": seed}
    theirs = {key: study.user_attrs.get(key) for key in ours}
    if theirs["words"] is None:
        for key, value in ours.items():
            study.set_user_attr(key, value)
    elif theirs != ours:
        raise ValueError(
            f"{path} holds a study of other words (seed {theirs['seed']}: {shlex.join(theirs['words'])}); it is not "
            "overwritten: choose another name, or remove the file"
        )


def _next_trial(study: "optuna.Study", space: Space, seed: int) -> tuple[int, list[str]]:
    """Number and words of the trial that was interrupted, or of a new one."""
    optuna = _import_optuna()
    for begun in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.RUNNING]):
        if "words" in begun.user_attrs:
            return begun.number, begun.user_attrs["words"]
        study.tell(begun.number, state=optuna.trial.TrialState.FAIL)  # killed before its values were known
    # A sampler begins its random numbers anew in each process.
    study.sampler = optuna.samplers.TPESampler(seed=(seed * 1_000_003 + len(study.trials)) % 2**32)
    trial = study.ask()
    chosen = space.suggest(trial)
    trial.set_user_attr("words", chosen)
    return trial.number, chosen


def _table(study: "optuna.Study", space: Space) -> "Table":
    """Every trial with its values, its validation metric and its run, best first."""
    metric = study.user_attrs.get("metric", "accuracy")
    table = Table(["run", "trial", *space.searched, "val (%)" if metric == "accuracy" else f"val {metric}"], [])
    trials = study.get_trials(deepcopy=False)
    for trial in sorted(trials, key=lambda trial: (-(trial.value if trial.value is not None else -2), trial.number)):
        words = trial.user_attrs.get("words", [])
        job = [*space.fixed, *words]
        name = settle(compose(job)).name if words else ""
        figure = trial.state.name.lower() if trial.value is None else _value_text(trial.value, metric)
        values = [word.partition("=")[2] for word in words] or [""] * len(space.searched)
        table.rows.append([name, str(trial.number), *values, figure])
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m fer_voting.search", description=ABOUT, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help="of the study")
    parser.add_argument("words", nargs="+", metavar="key=values", help="of a training")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="to finish in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the choices (default: %(default)s)")
    options = parser.parse_intermixed_args(arguments)
    if options.trials < 1:
        parser.error(f"--trials (={options.trials}) must be at least 1")
    set_up_messages()
    try:
        study = search(options.name, options.words, options.trials, options.seed)
        space = Space(options.words)
    except KeyboardInterrupt:
        sys.exit("\ninterrupted: the same command goes on from the last checkpoint")
    except Exception as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        sys.exit(f"error: {explain(error, overrides=options.words)}\n{HOW_TO_SEE_MORE}")
    table, file = _table(study, space), study_file(space, options.name)
    write_tables(file.with_suffix(""), [(f"study {options.name}", table)])
    print(f"\n{table.markdown()}")
    best = [*space.fixed, *study.best_trial.user_attrs["words"]]
    print(f"the best: python -m fer_voting.train {shlex.join(best)}")
    print(f"study: {file}; the table beside it as CSV and LaTeX")


if __name__ == "__main__":
    main()
