"""Accuracy that a teacher adds to networks of one pass: `python -m experiments.distillation [key=value ...]`.

Trains the runs that are missing: a voting network, and the baseline at several widths, on the labels and with that
network as its teacher. Then writes distillation.md and distillation.json. The overrides are those of a training, but
`split`, `seed` and `teacher`; by default `experiment=demo`. FER2013:

    python -m experiments.distillation experiment=fer2013_small dataset.root=DIR

Stopped at any point, the same command goes on.
"""

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments import common
from experiments.common import SYNTHETIC, Report, make_parser, origin, publish, run_config, whole_numbers
from experiments.compare import read_correct
from fer_voting.models import SPLITS
from fer_voting.results.compare import Comparison, compare_correct, correct_for_number
from fer_voting.results.load import TITLES, RunRecord, load_run
from fer_voting.results.table import Table
from fer_voting.results.text import INTERVAL_NOTE, P_NOTE, interval_text, mean_text, p_text
from fer_voting.runs.run import Run
from fer_voting.system.messages import set_up_messages

VOTE = "soft"
MEANS = (
    "Soft vote, mean ± standard deviation over seeds. Difference: with teacher less without, of networks of the same "
    f"seed on the same images, in percentage points. {INTERVAL_NOTE} {P_NOTE}"
)


@dataclass(frozen=True)
class Network:
    """A row of the table: runs that differ in their seed.

    Attributes:
        overrides: of its trainings, without the seed.
        without_teacher: the same network trained on the labels only; None for one that has no teacher.
    """

    title: str
    targets: str
    overrides: tuple[str, ...]
    without_teacher: "Network | None" = None
    runs: dict[int, RunRecord] = field(default_factory=dict, compare=False)

    def run(self, output_dir: Path, seed: int) -> Run:
        return Run(output_dir, run_config([*self.overrides, f"seed={seed}"])["name"])


def networks(overrides: Sequence[str], teacher: str, widths: Sequence[int]) -> Iterator[Network]:
    """The teacher, and the baseline at its own and at these widths, without and with it."""
    yield Network(f"{teacher}, the teacher", "labels", (*overrides, f"split={teacher}"))
    for width in (None, *widths):
        own = (*overrides, "split=baseline", *(() if width is None else (f"model.width={width}",)))
        title = "baseline" if width is None else f"baseline, width {width}"
        without_teacher = Network(title, "labels", own)
        yield without_teacher
        yield Network(title, f"labels and {teacher}", (*own, f"teacher={teacher}"), without_teacher)


def train_missing(network: Network, seeds: Sequence[int], output_dir: Path) -> None:
    """Trains the runs that are not finished; ends the command if one fails."""
    missing = [seed for seed in seeds if network.run(output_dir, seed).status() != "finished"]
    if missing:
        common.run_module("fer_voting.train", "-m", *network.overrides, f"seed={','.join(map(str, missing))}")
    for seed in seeds:
        run = load_run(network.run(output_dir, seed))
        if run.problem:
            sys.exit(f"stopped: {run.name} is {run.problem}")
        network.runs[seed] = run


def compared(network: Network, part: str) -> Comparison:
    """A network with a teacher against the one without."""
    assert network.without_teacher is not None
    pair = [[*one.runs.values()] for one in (network, network.without_teacher)]
    (first, second), groups = read_correct(pair, part, VOTE)
    titles = f"{network.title}, {network.targets}", f"{network.title}, {network.without_teacher.targets}"
    return Comparison(*titles, part, **compare_correct(first, second, groups=groups))


def write(rows: Sequence[Network]) -> Report:
    """The table of trained networks."""
    report = Report("distillation", "Distillation: a voting network as the teacher")
    first = next(iter(rows[0].runs.values()))
    parts = [part for part in ("val", "test") if first.metrics(VOTE, part)]
    shares = [f"{part} (%)" for part in parts]
    table = Table(["network", "trained on", "runs", *shares], [], left=2, best={*shares})
    with_teacher = [network for network in rows if network.without_teacher is not None]
    corrected = correct_for_number([compared(network, parts[-1]) for network in with_teacher])
    comparisons = dict(zip(with_teacher, corrected, strict=True))
    for network in rows:
        accuracies = {
            part: {seed: run.result["votes"][VOTE][part]["accuracy"] for seed, run in network.runs.items()}
            for part in parts
        }
        own = [mean_text(of_part.values()) for of_part in accuracies.values()]
        table.rows.append([network.title, network.targets, str(len(network.runs)), *own])
        private = re.compile(r"^(dataset\.root|output_dir)=.*")
        overrides = [private.sub(r"\1=DIR", word) for word in network.overrides]
        row: dict[str, Any] = {"network": network.title, "trained_on": network.targets, "overrides": overrides}
        row |= {"runs": {seed: run.name for seed, run in network.runs.items()}, "accuracies": accuracies}
        row["gmacs"] = next(iter(network.runs.values())).result["gmacs"]
        if network in comparisons:
            row |= asdict(comparisons[network])
        report.rows.append(row)
    columns: dict[str, Callable[[Comparison], str]] = {
        f"difference ({parts[-1]})": lambda one: f"{100 * (one.difference or 0):+.2f}",
        "95 % interval": interval_text,
        "McNemar's p": lambda one: ", ".join(map(p_text, one.p_values.values())),
        "Holm's p": lambda one: ", ".join(map(p_text, one.holm.values())),
    }
    for header, text_of in columns.items():
        table.add_column(header, [text_of(comparisons[one]) if one in comparisons else "" for one in rows])
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


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the trainings (default: experiment=demo)")
    voting = [split for split in SPLITS if split != "baseline"]
    parser.add_argument("--teacher", default="m3", choices=voting, help="its split (default: %(default)s)")
    parser.add_argument("--widths", type=whole_numbers, default="8", help="of narrower networks (default: %(default)s)")
    parser.add_argument("--seeds", type=whole_numbers, default="0,1,2", help="(default: %(default)s)")
    common.add_folders(parser)
    options = parser.parse_intermixed_args(arguments)
    overrides = [*(options.overrides or ["experiment=demo"]), f"output_dir={options.output_dir}"]
    if taken := [word for word in overrides if word.partition("=")[0] in ("split", "seed", "teacher", "name")]:
        parser.error(f"{', '.join(taken)}: split, seed, teacher and name are set by this command's own options")
    set_up_messages()
    rows = list(networks(overrides, options.teacher, options.widths))
    try:
        for network in rows:
            train_missing(network, options.seeds, options.output_dir)
        report = write(rows)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    publish(report, options.out or options.output_dir / "tables")


if __name__ == "__main__":
    main()
