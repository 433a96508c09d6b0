"""A sweep's results and its progress as Markdown tables."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fer_voting.results.markdown import Table, markdown
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep, seconds_left
from fer_voting.system.messages import duration
from fer_voting.votes import ALL_VOTES, PAPER_VOTES


def sweep_table(sweep: Sweep) -> tuple[str, int]:
    """The jobs' results as a Markdown table with notes, and how many jobs are not finished.

    By the paper's votes, and those that the jobs were configured for.
    """
    jobs = sweep.jobs()
    votes = [vote for vote in ALL_VOTES if vote in (*PAPER_VOTES, *(job["voting"] for job in jobs))]
    rows, notes = [], []
    data: dict[
        tuple[str, str, bool], dict[str, str]
    ] = {}  # what should be the same data -> fingerprint -> a run's name
    for job in jobs:
        run = Run(sweep.output_dir, job["run"])
        status = run.status()
        result = run.result() if status in ("finished", "failed") else None
        if result is None or status == "failed":
            notes.append(f"{run.name}: {status}{': ' + result['error'] if result else ''}")
        elif "setting" in result:
            key = result["dataset"], result["setting"], result["refit"]
            data.setdefault(key, {}).setdefault(result["data_fingerprint"], run.name)
        rows.append(_row(job, votes, status, result))
    rows = list({tuple(row.items()): row for row in rows}.values())  # the votes of one training are one run
    synthetic = any(row["synthetic"] for row in rows)
    rows = [{name: cell for name, cell in row.items() if name != "synthetic"} for row in rows]
    lines = [_table(rows).rstrip()]
    if synthetic:
        lines += ["", "Synthetic faces: figures of `faces` say nothing about people."]
    for (dataset, *_), runs in data.items():
        if len(runs) > 1:
            examples = ", ".join(f"{fingerprint[:12]} in {name}" for fingerprint, name in runs.items())
            lines += ["", f"Not comparable: runs on other data of {dataset}, fingerprints {examples}."]
    notes = list(dict.fromkeys(notes))
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n", len(notes)


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
    summary = f"{len(states)} runs: {', '.join(f'{count} {status}' for status, count in counts.items())}"
    left = seconds_left(states)
    if left is not None:
        summary += f"; about {duration(left)} left"
    unfinished = len(states) - counts["finished"]
    return "\n".join([_table(rows), *notes, *([""] if notes else []), summary]) + "\n", unfinished


def _row(job: dict[str, Any], votes: Sequence[str], status: str, result: dict[str, Any] | None) -> dict[str, Any]:
    row: dict[str, Any] = {"run": job["run"], "status": status, "synthetic": False}
    finished = result if status == "finished" else None
    for part in ("val", "test"):
        for vote in votes:
            metrics = finished["votes"].get(vote, {}).get(part) if finished else None
            row[f"{part} {vote} (%)"] = f"{100 * metrics['accuracy']:.2f}" if metrics else ""
    row["MiB/image"] = row["GMACs/image"] = row["torch GMACs"] = row["images/s"] = row["time"] = ""
    if finished:
        row["synthetic"] = finished["synthetic"]
        row["MiB/image"] = _number(finished["forward_mib_per_image"], 2)
        row["GMACs/image"] = _number(finished["gmacs"], 3)
        row["torch GMACs"] = _number(finished.get("torch_gmacs"), 3)
        row["images/s"] = _number(finished["images_per_second"], 0)
        row["time"] = duration(finished["seconds"])
    return row


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _table(rows: list[dict[str, Any]]) -> str:
    """Markdown; columns that are empty in every row are left out."""
    columns = [name for name in rows[0] if any(row[name] != "" for row in rows)] if rows else []
    return markdown(Table(columns, [[str(row[name]) for name in columns] for row in rows], left=2))
