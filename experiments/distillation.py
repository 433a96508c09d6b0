"""What a teacher gives to networks of one pass: `python -m experiments.distillation [key=value ...]`.

Trains what is missing: a voting network, and the baseline at several widths, on the labels alone and with that network
as its teacher. Then writes distillation.md and distillation.json. The words are those of a training, without `split`,
`seed` and `teacher`; by default `experiment=demo`. FER2013:

    python -m experiments.distillation experiment=fer2013_small dataset.root=DIR

Stopped at any point, the same command goes on.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from experiments.common import SYNTHETIC, Report, origin, publish
from fer_voting.config import compose_with_choices
from fer_voting.models import SPLITS
from fer_voting.results.load import TITLES, RunRecord, load_run
from fer_voting.results.markdown import Table
from fer_voting.results.statistics import mcnemar_p, paired_difference
from fer_voting.results.text import p_text, percent
from fer_voting.runs.plan import plan_job
from fer_voting.runs.run import Run
from fer_voting.system.messages import set_up_messages

VOTE = "soft"
MEANS = (
    "Soft vote, mean ± standard deviation over seeds. Difference: with teacher less without, of networks of the same "
    "seed on the same images, in percentage points, with its 95 % bootstrap interval over images and, from three seeds "
    "on, seeds; McNemar's exact p of each seed, two-sided."
)


@dataclass(frozen=True)
class Network:
    """A row of the table: runs that differ in their seed.

    Attributes:
        words: of its trainings, without the seed.
        alone: the same network without its teacher; None for one that has none.
    """

    title: str
    targets: str
    words: tuple[str, ...]
    alone: "Network | None" = None
    runs: dict[int, RunRecord] = field(default_factory=dict, compare=False)

    def plan(self, seed: int) -> dict[str, Any]:
        words = [*self.words, f"seed={seed}"]
        return plan_job(words, *compose_with_choices(words))


def networks(words: Sequence[str], teacher: str, widths: Sequence[int]) -> Iterator[Network]:
    """The teacher, and the baseline at its own and at these widths, without and with it."""
    yield Network(f"{teacher}, the teacher", "labels", (*words, f"split={teacher}"))
    for width in (None, *widths):
        own = (*words, "split=baseline", *(() if width is None else (f"model.width={width}",)))
        title = "baseline" if width is None else f"baseline, width {width}"
        alone = Network(title, "labels", own)
        yield alone
        yield Network(title, f"labels and {teacher}", (*own, f"teacher={teacher}"), alone)


def train_missing(network: Network, seeds: Sequence[int], output_dir: Path) -> None:
    """Trains the runs that are not finished; ends the command if one fails."""
    missing = [seed for seed in seeds if Run(output_dir, network.plan(seed)["name"]).status() != "finished"]
    if missing:
        command = ["fer_voting.train", "-m", *network.words, f"seed={','.join(map(str, missing))}"]
        print(f"\n$ python -m {shlex.join(command)}", flush=True)
        if code := subprocess.run([sys.executable, "-m", *command]).returncode:
            sys.exit(f"stopped: {command[0]} ended with exit code {code}; the same command goes on from here")
    for seed in seeds:
        run = load_run(Run(output_dir, network.plan(seed)["name"]))
        if run.problem:
            sys.exit(f"stopped: {run.name} is {run.problem}")
        network.runs[seed] = run


def compared(network: Network, part: str) -> dict[str, Any]:
    """`difference`, `low`, `high` and `p_values` (by seed) of a network with a teacher and the one without."""
    assert network.alone is not None
    correct, p_values = [], {}
    for seed, run in network.runs.items():
        ours, theirs = run.predictions(part), network.alone.runs[seed].predictions(part)
        if not np.array_equal(ours.names, theirs.names):
            sys.exit(f"stopped: {run.name} was evaluated on other images than {network.alone.runs[seed].name}")
        correct.append((ours.correct(VOTE), theirs.correct(VOTE)))
        p_values[seed] = mcnemar_p(*correct[-1])
    found = paired_difference(*np.stack(correct, axis=1))
    return {"difference": found.mean, "low": found.low, "high": found.high, "p_values": p_values}


def write(rows: Sequence[Network]) -> Report:
    """The table of trained networks."""
    report = Report("distillation", "Distillation: a voting network as the teacher")
    first = next(iter(rows[0].runs.values()))
    parts = [part for part in ("val", "test") if first.metrics(VOTE, part)]
    table = Table(["network", "trained on", "runs", *(f"{part} (%)" for part in parts)], [], left=2)
    cells: list[list[str]] = []
    for network in rows:
        accuracies = {
            part: {seed: run.result["votes"][VOTE][part]["accuracy"] for seed, run in network.runs.items()}
            for part in parts
        }
        own = [_mean_text(list(of_part.values())) for of_part in accuracies.values()]
        table.rows.append([network.title, network.targets, str(len(network.runs)), *own])
        words = [re.sub(r"^(dataset\.root)=.*", r"\1=DIR", word) for word in network.words]  # where it lies is private
        row: dict[str, Any] = {"network": network.title, "trained_on": network.targets, "words": words}
        row |= {"runs": {seed: run.name for seed, run in network.runs.items()}, "accuracies": accuracies}
        row["gmacs"] = next(iter(network.runs.values())).result["gmacs"]
        if network.alone is None:
            cells.append(["", "", ""])
        else:
            row |= {"part": parts[-1], **compared(network, parts[-1])}
            interval = f"{100 * row['low']:+.2f} to {100 * row['high']:+.2f}"
            p_values = ", ".join(map(p_text, row["p_values"].values()))
            cells.append([f"{100 * row['difference']:+.2f}", interval, p_values])
        report.rows.append(row)
    for column, header in enumerate((f"difference ({parts[-1]})", "95 % interval", "McNemar's p")):
        table.add_column(header, [row[column] for row in cells])
    table.add_column("GMACs an image", [f"{row['gmacs']:.3f}" for row in report.rows])
    results = [run.result for network in rows for run in network.runs.values()]
    images = sum(first.result["counts"][parts[-1]].values())
    report.add(f"## {TITLES.get(first.dataset, first.dataset)}, {images:,} images of {parts[-1]}")
    report.add_table(table)
    report.add(MEANS)
    if first.result["synthetic"]:
        report.add(SYNTHETIC)
    report.add(origin(results))
    return report


def _mean_text(shares: Sequence[float]) -> str:
    mean = percent(fmean(shares))
    return mean if len(shares) == 1 else f"{mean} ± {percent(stdev(shares))}"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="of the trainings (default: experiment=demo)")
    voting = [split for split in SPLITS if split != "baseline"]
    parser.add_argument("--teacher", default="m3", choices=voting, help="its split (default: %(default)s)")
    parser.add_argument("--widths", default="8", help="of narrower networks (default: %(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="(default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    parser.add_argument("--out", type=Path, help="folder of the result (default: tables/ in the output folder)")
    options = parser.parse_intermixed_args(arguments)
    for name in ("widths", "seeds"):
        if not re.fullmatch(r"\d+(,\d+)*", text := getattr(options, name)):
            parser.error(f"--{name} (={text!r}) must be whole numbers, e.g. 8,4")
    seeds, widths = ([int(number) for number in text.split(",")] for text in (options.seeds, options.widths))
    words = [*(options.words or ["experiment=demo"]), f"output_dir={options.output_dir}"]
    if taken := [word for word in words if word.partition("=")[0] in ("split", "seed", "teacher", "name")]:
        parser.error(f"{', '.join(taken)}: split, seed, teacher and name are set by this command's own options")
    set_up_messages()
    rows = list(networks(words, options.teacher, widths))
    try:
        for network in rows:
            train_missing(network, seeds, options.output_dir)
        report = write(rows)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    publish(report, options.out or options.output_dir / "tables")


if __name__ == "__main__":
    main()
