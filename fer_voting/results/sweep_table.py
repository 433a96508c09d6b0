"""A sweep's results and its progress as Markdown tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from fer_voting.results.table import Table
from fer_voting.runs.identity import compared_data
from fer_voting.runs.lineage import inherited_lines
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep, seconds_left
from fer_voting.system.messages import duration
from fer_voting.system.text import counted
from fer_voting.votes import ALL_VOTES, PAPER_VOTES


def sweep_table(sweep: Sweep) -> tuple[str, int, Table]:
    """The jobs' results as Markdown with notes, how many runs are not finished, and the table.

    The votes are the paper's and those that the jobs were configured for. The votes of one training share a row.
    """
    jobs = sweep.jobs()
    asked = [*PAPER_VOTES, *(job["voting"] for job in jobs)]
    votes = [vote for vote in dict.fromkeys((*ALL_VOTES, *asked)) if vote in asked]
    rows, notes, unfinished, finished = [], [], [], []
    fingerprints: dict[tuple[str, str, bool], dict[str, str]] = {}  # comparable runs -> fingerprint -> a run's name
    for name in dict.fromkeys(job["run"] for job in jobs):
        run = Run(sweep.output_dir, name)
        status = run.status()
        result = run.result() if status in ("finished", "failed") else None
        rows.append({"run": name, "status": status})
        if result is None or status == "failed":
            unfinished.append(f"{name}: {status}{': ' + result['error'] if result else ''}")
            continue
        rows[-1] |= _results(result, votes)
        finished.append(result)
        key = result["dataset"], result["variant"], result["refit"]
        fingerprints.setdefault(key, {}).setdefault(compared_data(result), name)
    if any(result["synthetic"] for result in finished):
        notes.append("Synthetic faces: figures of `faces` say nothing about people.")
    for (dataset, *_), runs in fingerprints.items():
        if len(runs) > 1:
            examples = ", ".join(f"{fingerprint[:12]} in {name}" for fingerprint, name in runs.items())
            notes.append(f"Not comparable: runs on other data of {dataset}, fingerprints {examples}.")
    notes += [f"Inherited: {line}." for line in inherited_lines(finished)]
    if unfinished:
        notes.append("\n".join(unfinished))
    table = _table(rows)
    folds = _cross_validations(sweep) if any(_sweeps_folds(job) for job in jobs) else []
    text = "\n".join([table.markdown(), *(f"{note}\n" for note in (*notes, *folds))])
    return text, len(unfinished), table


def _sweeps_folds(job: Mapping[str, Any]) -> bool:
    return any(override.startswith("dataset.fold=") for override in job["overrides"])


def _cross_validations(sweep: Sweep) -> list[str]:
    """The test accuracy of the sweep's runs, folds pooled: tables of accuracies, comparisons and confusion matrices."""
    # They import torch, which takes seconds that other sweeps need not spend.
    from fer_voting.results.compare import accuracies, comparisons, confusion
    from fer_voting.results.load import load_runs
    from fer_voting.results.numbers import NUMBERS_NOTE, number_figures, number_table
    from fer_voting.results.text import FOLDS_NOTE, accuracy_table, comparison_table, confusion_table, missing_lines

    texts = []
    for group in load_runs(sweep.output_dir, {job["run"] for job in sweep.jobs()}).groups():
        for refit in sorted({run.refit for run in group.runs if run.fold is not None}):
            if group.number_names:
                texts.append(f"## {group.title}, {len(group.folds)} folds: numbers, test{refit and ' after refit'}")
                texts += [number_table(number_figures(group, "test", refit)).markdown(), NUMBERS_NOTE]
            if not group.has_classes:
                continue
            measured = [one for one in accuracies(group, "test", refit) if one.seeds]
            if not measured:
                continue
            pairs = [pair for pair in comparisons(group, "test", refit) if pair.difference is not None]
            texts.append(f"## {group.title}, {len(group.folds)} folds: test accuracy (%){refit and ' after refit'}")
            texts.append(accuracy_table(group, measured).markdown())
            if pairs:
                texts.append(comparison_table(group, pairs).markdown())
            texts.append(FOLDS_NOTE)
            if lines := missing_lines(one.missing for one in measured):
                texts.append("\n".join(f"- {line}" for line in lines))
            for split in dict.fromkeys(one.method.split for one in measured):
                runs = group.finished(split, refit)
                if (counts := confusion(runs, "soft", "test")) is not None:
                    texts.append(f"### {split}, soft vote: decisions over the folds (%)")
                    texts.append(confusion_table(counts, runs[0].result["class_names"]).markdown())
    return texts


def sweep_status(sweep: Sweep) -> tuple[str, int]:
    """The status of each job with rates and time left, as text, and how many jobs are not finished."""
    states = sweep.states()
    rows = [
        {
            "run": state.run,
            "status": state.status,
            "epochs": f"{state.epochs[0]} of {state.epochs[1]}" if state.epochs else "",
            "images/s": _number(state.images_per_second, 0),
            "time": duration(state.seconds) if state.seconds is not None else "",
            "left": duration(state.seconds_left) if state.seconds_left is not None else "",
        }
        for state in states
    ]
    notes = [f"{state.run}: {state.error}" for state in states if state.error]
    counts = Counter(state.status for state in states)
    summary = f"{counted(len(states), 'run')}: {', '.join(f'{count} {status}' for status, count in counts.items())}"
    left = seconds_left(states)
    if left is not None:
        summary += f"; about {duration(left)} left"
    unfinished = len(states) - counts["finished"]
    if unfinished and left is None:
        summary += "; how long the rest takes is not known: no job of its kind is finished"
    return "\n".join([_table(rows).markdown(), *notes, *([""] if notes else []), summary]) + "\n", unfinished


def _results(result: Mapping[str, Any], votes: Sequence[str]) -> dict[str, str]:
    """Column -> cell of a finished run; "" for what it has not measured."""
    cells = {}
    for part in ("val", "test"):
        for vote in votes:
            metrics = result["votes"].get(vote, {}).get(part, {})
            cells[f"{part} {vote} (%)"] = f"{100 * metrics['accuracy']:.2f}" if "accuracy" in metrics else ""
            cells[f"{part} {vote} CCC"] = _number(metrics.get("mean_ccc"), 3)
    return cells | {
        "MiB/image": _number(result["forward_mib_per_image"], 2),
        "GMACs/image": _number(result["gmacs"], 3),
        "torch GMACs": _number(result["torch_gmacs"], 3),
        "images/s": _number(result["images_per_second"], 0),
        "time": duration(result["seconds"]),
    }


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(rows: Sequence[Mapping[str, str]]) -> Table:
    """Columns that are empty in every row are left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in names if any(row.get(name) for row in rows)]
    best = {name for name in columns if name.endswith(("(%)", "CCC"))}
    return Table(columns, [[row.get(name, "") for name in columns] for row in rows], left=2, best=best)
