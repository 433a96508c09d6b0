"""Shared by the scripts of tables and figures: options, the sections they ask for, and how results are written."""

import argparse
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from experiments.pages import REPO as REPO
from experiments.pages import update_pages
from fer_voting.results.load import RunGroup, RunTable, load_runs
from fer_voting.results.markdown import Table, markdown
from fer_voting.results.missing import missing_runs
from fer_voting.results.text import missing_lines
from fer_voting.system.atomic import write_atomically, write_json

SYNTHETIC = "Synthetic faces: these figures say nothing about people."


@dataclass
class Report:
    """What a script writes: Markdown, rows of JSON, plots, and the commands for what is missing."""

    name: str
    heading: str
    markdown: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    plots: dict[str, Callable[[Path], None] | None] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """A paragraph, a list or a table."""
        self.markdown.append(text.rstrip("\n") + "\n")

    def add_table(self, table: Table) -> None:
        self.add(markdown(table))

    def add_plot(self, stem: str, draw: Callable[[Path], None], caption: str) -> None:
        """A plot: `draw` writes it to a path, once as PNG and once as SVG."""
        self.plots[stem] = draw
        self.add(f"![{caption}]({stem}.png)")

    def remove_plot(self, stem: str) -> None:
        """Deletes the plot that an earlier call wrote, whose runs are gone."""
        self.plots[stem] = None

    def add_notes(self, options: "Options", section: RunGroup, missing: Iterable[Mapping[str, str]]) -> None:
        """What is missing and why, other settings if there are no runs, the synthetic note, and the origin."""
        if lines := missing_lines(missing):
            self.add("\n".join(f"- {line}" for line in lines))
        settings = options.runs.settings(section.dataset)
        if settings and not section.runs:
            found = ", ".join(f"--setting {name or repr('')} ({count} runs)" for name, count in settings.items())
            self.add(f"There are runs of {section.dataset} under other settings: {found}.")
        if section.synthetic:
            self.add(SYNTHETIC)
        if results := [run.result for run in section.finished(refit=None)]:
            self.add(origin(results))

    def add_rows(self, section: RunGroup, rows: Iterable[Any]) -> None:
        """Dataclasses, for the JSON file."""
        self.rows += [{"dataset": section.dataset, "setting": section.setting} | asdict(row) for row in rows]

    def add_commands(self, options: "Options", section: RunGroup, splits: Sequence[str], refit: str = "") -> None:
        """The command for the missing runs of `splits`."""
        if missing := missing_runs(options.runs, section, splits, refit):
            self.commands.append(str(missing))


def origin(results: Sequence[Mapping[str, Any]]) -> str:
    """Where these results come from: seeds, commits, precisions, devices, versions, the last run's date."""

    def each(key: str) -> str:
        return ", ".join(sorted({str(result.get(key)) for result in results}))

    versions = results[0]["versions"]
    return (
        f"Seed {each('seed')}; commit {each('git_commit')}; {each('precision')} on {each('device')}; "
        f"torch {versions['torch']}, lightning {versions['lightning']}; {max(r['started'] for r in results)[:10]}."
    )


@dataclass(frozen=True)
class Options:
    runs: RunTable
    datasets: list[str]
    setting: str
    seeds: list[int] | None
    out: Path

    def sections(self, datasets: Sequence[str] | None = None) -> list[RunGroup]:
        datasets = self.datasets if datasets is None else datasets
        return [self.runs.group(dataset, self.setting, self.seeds) for dataset in datasets]


def add_choice_of_runs(parser: argparse.ArgumentParser) -> None:
    """The options `--datasets` and `--setting`, whose defaults are TABLE_DATASETS and TABLE_SETTING."""
    parser.add_argument(
        "--datasets",
        default=os.environ.get("TABLE_DATASETS") or "affectnet rafdb",
        help="names, by spaces or commas (default: TABLE_DATASETS in the environment, else affectnet rafdb)",
    )
    parser.add_argument(
        "--setting",
        default=os.environ.get("TABLE_SETTING") or "",
        help="runs of this setting only, e.g. demo: how they differ from the data set's defaults, as in their names "
        "(default: TABLE_SETTING in the environment, else none: the paper's protocol)",
    )


def chosen_datasets(parser: argparse.ArgumentParser, words: argparse.Namespace) -> list[str]:
    """The names in `--datasets`; ends the command if there is none."""
    datasets = re.findall(r"[^\s,]+", words.datasets)
    if not datasets:
        parser.error(f"--datasets (={words.datasets!r}) names no data set")
    return datasets


def parse_options(description: str | None, arguments: list[str] | None) -> Options:
    """The command line of all scripts."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_choice_of_runs(parser)
    parser.add_argument("--seeds", help="e.g. 0,1,2 (default: those, and all others found)")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    parser.add_argument("--out", type=Path, help="folder of the result (default: tables/ in the output folder)")
    words = parser.parse_args(arguments)
    datasets = chosen_datasets(parser, words)
    seeds = None
    if words.seeds is not None:
        if not re.fullmatch(r"\d+(,\d+)*", words.seeds):
            parser.error(f"--seeds (={words.seeds!r}) must be whole numbers, e.g. 0,1,2")
        seeds = sorted({int(seed) for seed in words.seeds.split(",")})
    try:
        runs = load_runs(words.output_dir)
    except FileNotFoundError as error:
        if words.output_dir != Path("outputs"):
            parser.error(f"--output-dir: {error}")
        runs = RunTable(words.output_dir, [], {})  # before the first training
    return Options(runs, datasets, words.setting, seeds, words.out or words.output_dir / "tables")


def datasets_of(table_of: str, datasets: Sequence[str]) -> list[str]:
    """Those of `datasets` that a table is about which in the paper is AffectNet's (Table 4, Figure 5) or RAF-DB's.

    AffectNet's takes AffectNet, or where that is not asked for the first data set that is not RAF-DB; RAF-DB's takes
    all others.
    """
    candidates = [dataset for dataset in datasets if dataset != "rafdb"]
    first = "affectnet" if "affectnet" in candidates else next(iter(candidates), None)
    return [dataset for dataset in datasets if (dataset == first) == (table_of == "affectnet")]


def write_result(folder: Path, name: str, text: str, data: Any) -> list[str]:
    """Write `NAME.md` and `NAME.json` into a folder; names of the pages that show the first, which are updated."""
    write_json(folder / f"{name}.json", data)
    with write_atomically(folder / f"{name}.md") as file:
        file.write(text)
    return update_pages(folder / f"{name}.md")


def publish(report: Report, out: Path, suffixes: Sequence[str] = ("png", "svg")) -> None:
    """Write the report's files into `out`, its plots in these formats, update the pages that show it, and print it."""
    markdown = "\n".join([f"# {report.heading}\n", *report.markdown])
    write_result(out, report.name, markdown, report.rows)
    written = [f"{report.name}.md", f"{report.name}.json"]
    for stem, draw in report.plots.items():
        for suffix in suffixes:
            path = out / f"{stem}.{suffix}"
            if draw is None:
                path.unlink(missing_ok=True)
            else:
                draw(path)
                written.append(path.name)
    print(markdown)
    if report.commands:
        print("Commands for what is missing:\n")
        print("\n\n".join(report.commands) + "\n")
    print(f"Written to {out}: {', '.join(written)}")
