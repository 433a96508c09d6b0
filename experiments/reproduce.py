"""The paper from the data: `make reproduce-affectnet ROOT=DIR`, then `make reproduce-rafdb ROOT=DIR`.

Audits the data set, trains every split with every seed, refits each on training and validation images, and writes
the tables, figures and the report. Stopped at any point, the same command goes on where it was.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from experiments.common import SPLITS, make_parser, run_module, whole_numbers
from fer_voting.config import compose
from fer_voting.results.load import RunTable, load_runs
from fer_voting.results.missing import missing_runs
from fer_voting.runs.naming import variant_of

SCRIPTS = {
    "affectnet": [("tables", "table3"), ("tables", "table4"), ("figures", "figure4"), ("figures", "figure5")],
    "rafdb": [("tables", "table5"), ("figures", "figure6")],
}
"""The tables that each data set adds; RAF-DB's networks start from AffectNet's, so its tables show both."""


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("dataset", choices=["affectnet", "rafdb"])
    parser.add_argument("--root", required=True, help="the folder that holds the data set")
    parser.add_argument(
        "--seeds", type=whole_numbers, default="0,1,2", help="(default: 0,1,2; the paper does not say how many it took)"
    )
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"))
    parser.add_argument("--plan", action="store_true", help="only say what would be run, and what it costs")
    parser.add_argument("overrides", nargs="*", help="of the training, e.g. trainer.precision=bf16-mixed")
    options = parser.parse_intermixed_args(arguments)
    if not options.root or not Path(options.root).is_dir():
        parser.error(f"--root (={options.root!r}) is not a folder: make reproduce-{options.dataset} ROOT=DIR")

    data = [f"dataset={options.dataset}", f"dataset.root={options.root}", f"output_dir={options.output_dir}"]
    variant = variant_of(compose([*data, *options.overrides]))
    _announce(options, variant)
    for module, *words in _commands(options, data, variant):
        run_module(module, *words, run=not options.plan)


def _commands(options: argparse.Namespace, data: list[str], variant: str) -> Iterator[list[str]]:
    seeds = ",".join(map(str, options.seeds))
    sweep = [*data, *options.overrides, f"split={','.join(SPLITS)}", f"seed={seeds}"]
    yield ["fer_voting.audit", *data]
    yield ["fer_voting.train", "-m", *sweep]
    yield ["fer_voting.train", "-m", *sweep, "refit=true"]
    output = ["--output-dir", str(options.output_dir)]
    scripts, datasets = SCRIPTS["affectnet"], "affectnet"
    if options.dataset == "rafdb":
        scripts, datasets = scripts + SCRIPTS["rafdb"], "affectnet rafdb"
    for module, name in scripts:
        choice = ["--datasets", datasets, "--variant", variant, "--seeds", seeds]
        yield [f"experiments.{module}", name, *choice, *output]
    yield ["fer_voting.report", *output]


def _announce(options: argparse.Namespace, variant: str) -> None:
    """Print what is still to be run, and its cost. Where RAF-DB's initial weights are missing, a plan says so; other
    commands end."""
    runs = load_runs(options.output_dir) if options.output_dir.is_dir() else RunTable(options.output_dir, [], {})
    if options.dataset == "rafdb" and not any(word.startswith("init_from=") for word in options.overrides):
        lacking = missing_runs(runs, runs.group("affectnet", variant, options.seeds), SPLITS)
        if lacking:
            needed = (
                f"RAF-DB's networks start from AffectNet's weights (section 3.3), and {lacking.jobs} of those runs are "
                f"not there: make reproduce-affectnet ROOT=DIR first, or\n{lacking.command}"
            )
            if not options.plan:
                sys.exit(f"error: {needed}")
            print(needed)
    group = runs.group(options.dataset, variant, options.seeds)
    for what, refit in (("selection", ""), ("refit", "soft")):
        lacking = missing_runs(runs, group, SPLITS, refit)
        print(f"{what}: {lacking.cost if lacking else 'all there'}", flush=True)


if __name__ == "__main__":
    main()
