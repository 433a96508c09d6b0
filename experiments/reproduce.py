"""The paper from the data alone: `make reproduce-affectnet ROOT=DIR`, then `make reproduce-rafdb ROOT=DIR`.

Audits the data set, trains every split with every seed, refits each on training and validation images, and writes
the tables, figures and the report. Stopped at any point, the same command goes on where it was.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from fer_voting.config import compose_with_choices
from fer_voting.results.load import RunTable, load_runs
from fer_voting.results.missing import missing_runs
from fer_voting.runs.identity import setting_of

SPLITS = ("baseline", "m1", "m2", "m3")
SCRIPTS = {"affectnet": ["table3", "table4", "figure4", "figure5"], "rafdb": ["table5", "figure6"]}
"""What each data set adds; RAF-DB's networks start from AffectNet's, so its tables show both."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", choices=["affectnet", "rafdb"])
    parser.add_argument("--root", required=True, help="the folder that holds the data set")
    parser.add_argument("--seeds", default="0,1,2", help="(default: 0,1,2; the paper does not say how many it took)")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"))
    parser.add_argument("--plan", action="store_true", help="only say what would be run, and what it costs")
    parser.add_argument("overrides", nargs="*", help="of the training, e.g. trainer.precision=bf16-mixed")
    options = parser.parse_intermixed_args(arguments)
    if not options.root or not Path(options.root).is_dir():
        parser.error(f"--root (={options.root!r}) is not a folder: make reproduce-{options.dataset} ROOT=DIR")
    if not re.fullmatch(r"\d+(,\d+)*", options.seeds):
        parser.error(f"--seeds (={options.seeds!r}) must be whole numbers, e.g. 0,1,2")

    words = [f"dataset={options.dataset}", f"dataset.root={options.root}", f"output_dir={options.output_dir}"]
    setting = setting_of(*compose_with_choices([*words, *options.overrides]))
    _announce(options, setting)
    for command in _commands(options, words, setting):
        print(f"\n$ python -m {shlex.join(command)}", flush=True)
        if not options.plan and (code := subprocess.run([sys.executable, "-m", *command]).returncode):
            sys.exit(f"stopped: {command[0]} ended with exit code {code}; the same command goes on from here")


def _commands(options: argparse.Namespace, words: list[str], setting: str) -> Iterator[list[str]]:
    sweep = [*words, *options.overrides, f"split={','.join(SPLITS)}", f"seed={options.seeds}"]
    yield ["fer_voting.audit", *words]
    yield ["fer_voting.train", "-m", *sweep]
    yield ["fer_voting.train", "-m", *sweep, "refit=true"]
    output = ["--output-dir", str(options.output_dir)]
    scripts, datasets = SCRIPTS["affectnet"], "affectnet"
    if options.dataset == "rafdb":
        scripts, datasets = scripts + SCRIPTS["rafdb"], "affectnet rafdb"
    for script in scripts:
        yield [f"experiments.{script}", "--datasets", datasets, "--setting", setting, "--seeds", options.seeds, *output]
    yield ["fer_voting.report", *output]


def _announce(options: argparse.Namespace, setting: str) -> None:
    """Print what is still to be run, and its cost; ends the command if RAF-DB's initial weights are missing."""
    seeds = [int(seed) for seed in options.seeds.split(",")]
    runs = load_runs(options.output_dir) if options.output_dir.is_dir() else RunTable(options.output_dir, [], {})
    if options.dataset == "rafdb" and not any(word.startswith("init_from=") for word in options.overrides):
        lacking = missing_runs(runs, runs.group("affectnet", setting, seeds), SPLITS)
        if lacking:
            sys.exit(
                f"error: RAF-DB's networks start from AffectNet's weights (section 3.3), and {lacking.jobs} of those "
                f"runs are not there: make reproduce-affectnet ROOT=DIR first, or\n{lacking.command}"
            )
    section = runs.group(options.dataset, setting, seeds)
    for what, refit in (("selection", ""), ("refit", "soft")):
        lacking = missing_runs(runs, section, SPLITS, refit)
        print(f"{what}: {lacking.cost if lacking else 'all there'}", flush=True)


if __name__ == "__main__":
    main()
