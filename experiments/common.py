"""Shared parts of the experiments: their command lines, the runs that they ask for, and how results are written."""

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fer_voting.config import compose, make
from fer_voting.data.module import FERDataModule
from fer_voting.results.compare import Comparison
from fer_voting.results.load import RunGroup, RunTable, load_runs
from fer_voting.results.missing import missing_runs
from fer_voting.results.table import Table, write_tables
from fer_voting.results.text import COMPARISON_NOTE, NO_TEST, comparison_table, missing_lines
from fer_voting.runs.identity import resolve
from fer_voting.runs.lineage import inherited_lines
from fer_voting.runs.naming import settle
from fer_voting.system.atomic import write_atomically, write_json
from fer_voting.system.text import counted

REPO = Path(__file__).resolve().parent.parent
MARKS = re.compile(r"(<!-- (\S+\.md) -->\n).*?(<!-- end -->)", re.DOTALL)
"""A page shows a Markdown file of the repository between the lines `<!-- FILE -->` and `<!-- end -->`."""
SPLITS = ("baseline", "m1", "m2", "m3")
"""The paper's comparison."""
SYNTHETIC = "Synthetic faces: these figures say nothing about people."


@dataclass
class Report:
    """The output of a script: Markdown, rows of JSON, tables by heading, plots, the commands for what is missing."""

    name: str
    heading: str
    markdown: list[str] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    tables: list[tuple[str, Table]] = field(default_factory=list)
    plots: dict[str, Callable[[Path], None] | None] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """A heading, a paragraph or a list."""
        self.markdown.append(text.rstrip("\n") + "\n")

    def add_table(self, table: Table) -> None:
        """A table, also as LaTeX and CSV, below the last heading."""
        heading = next((text for text in reversed(self.markdown) if text.startswith("#")), self.heading)
        self.tables.append((heading.strip("#\n "), table))
        self.add(table.markdown())

    def add_plot(self, stem: str, draw: Callable[[Path], None], caption: str) -> None:
        """A plot: `draw` writes it to a path, in the format of its suffix."""
        self.plots[stem] = draw
        self.add(f"![{caption}]({stem}.png)")

    def remove_plot(self, stem: str) -> None:
        """Deletes the plot that an earlier call wrote, whose runs are gone."""
        self.plots[stem] = None

    def add_comparisons(self, heading: str, group: RunGroup, pairs: Sequence[Comparison]) -> None:
        """Differences on the same images, if there is any."""
        if any(pair.difference is not None for pair in pairs):
            self.add(heading)
            self.add_table(comparison_table(group, pairs))
            self.add(COMPARISON_NOTE)

    def add_notes(self, options: "Options", group: RunGroup, missing: Iterable[Mapping[str, str]]) -> None:
        """Missing runs and their reasons, other variants if there are no runs, the synthetic note, and the origin."""
        if lines := missing_lines(missing):
            self.add("\n".join(f"- {line}" for line in lines))
        variants = options.runs.variants(group.dataset)
        if variants and not group.runs:
            names = ", ".join(
                f"--variant {name or repr('')} ({counted(count, 'run')})" for name, count in variants.items()
            )
            self.add(f"There are runs of {group.dataset} under other variants: {names}.")
        if group.synthetic:
            self.add(SYNTHETIC)
        if results := [run.result for run in group.finished(refit=None)]:
            self.add(origin(results))

    def add_rows(self, group: RunGroup, rows: Iterable[Any]) -> None:
        """Dataclasses, for the JSON file."""
        self.rows += [{"dataset": group.dataset, "variant": group.variant} | asdict(row) for row in rows]

    def add_commands(self, options: "Options", group: RunGroup, splits: Sequence[str], refit: str = "") -> None:
        """The commands for the missing runs of `splits` and, if `refit` names a vote, for their refits."""
        for each in ("", refit) if refit else ("",):
            if each and group.lacks_test:
                self.add(NO_TEST)
            elif missing := missing_runs(options.runs, group, splits, each):
                self.commands.append(str(missing))

    def add_if_empty(self, options: "Options") -> None:
        if not self.markdown:
            self.add(f"None of the data sets asked for ({', '.join(options.datasets)}) belongs here.")


def origin(results: Sequence[Mapping[str, Any]]) -> str:
    """Where these results come from: seeds, commits, precisions, devices, versions, the last run's date, and evaluated
    images that the runs before them were trained on."""

    def each(key: str) -> str:
        return ", ".join(sorted({str(result.get(key)) for result in results}))

    versions = results[0]["versions"]
    inherited = "; ".join(inherited_lines(results))
    return (
        f"Seed {each('seed')}; commit {each('git_commit')}; {each('precision')} on {each('device')}; "
        f"torch {versions['torch']}, lightning {versions['lightning']}; {max(r['started'] for r in results)[:10]}."
        + (f" Inherited: {inherited}." if inherited else "")
    )


# --- command lines --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """The runs that a table or figure is about, and the folder that it is written to."""

    name: str
    runs: RunTable
    datasets: list[str]
    variant: str
    seeds: list[int] | None
    out: Path

    def groups(self, datasets: Sequence[str] | None = None) -> list[RunGroup]:
        """The runs of these data sets, by default of those asked for."""
        datasets = self.datasets if datasets is None else datasets
        return [self.runs.group(dataset, self.variant, self.seeds) for dataset in datasets]


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help shows the description as it is."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_folders(parser: argparse.ArgumentParser, result: str = "tables") -> None:
    """The options `--output-dir` and `--out`.

    Args:
        result: folder in the first that the result goes to without the second.
    """
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    parser.add_argument("--out", type=Path, help=f"folder of the result (default: {result}/ in the output folder)")


def whole_numbers(text: str) -> list[int]:
    """`2,0,1` -> [2, 0, 1]: the type of an argument."""
    if not re.fullmatch(r"\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers, e.g. 0,1,2")
    return list(dict.fromkeys(int(number) for number in text.split(",")))


def add_parts(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """The arguments PART, each of `names`; without one, all."""
    names = list(names)

    def part(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"there is no part {text}; there are {', '.join(names)}")
        return text

    parser.add_argument("parts", nargs="*", type=part, metavar="PART", help=f"of {', '.join(names)} (default: all)")


def add_choice_of_runs(parser: argparse.ArgumentParser) -> None:
    """The options `--datasets` and `--variant`, whose defaults are TABLE_DATASETS and TABLE_VARIANT."""
    parser.add_argument(
        "--datasets",
        type=_names,
        default=os.environ.get("TABLE_DATASETS") or "affectnet rafdb",
        help="names, by spaces or commas (default: TABLE_DATASETS in the environment, else affectnet rafdb)",
    )
    parser.add_argument(
        "--variant",
        default=os.environ.get("TABLE_VARIANT") or "",
        help="runs of this variant only, e.g. demo: how they differ from the data set's defaults, as in their names "
        "(default: TABLE_VARIANT in the environment, else none: the paper's protocol)",
    )


def _names(text: str) -> list[str]:
    if not (names := re.findall(r"[^\s,]+", text)):
        raise argparse.ArgumentTypeError(f"{text!r} names no data set")
    return names


def parse_options(description: str | None, arguments: Sequence[str] | None, names: Iterable[str] = ()) -> Options:
    """The command line of tables and figures; its first word is one of `names`, if there are any."""
    parser = make_parser(description)
    if names:
        parser.add_argument("name", choices=list(names))
    add_choice_of_runs(parser)
    parser.add_argument("--seeds", type=whole_numbers, help="e.g. 0,1,2 (default: those, and all others found)")
    add_folders(parser)
    chosen = parser.parse_args(arguments)
    try:
        runs = load_runs(chosen.output_dir)
    except FileNotFoundError as error:
        if chosen.output_dir != Path("outputs"):
            parser.error(f"--output-dir: {error}")
        runs = RunTable(chosen.output_dir, [], {})  # before the first training
    out = chosen.out or chosen.output_dir / "tables"
    seeds = chosen.seeds and sorted(chosen.seeds)
    return Options(getattr(chosen, "name", ""), runs, chosen.datasets, chosen.variant, seeds, out)


def belongs_to(table_of: str, datasets: Sequence[str]) -> list[str]:
    """The data sets that a table covers, if the paper shows it for AffectNet only or for RAF-DB only.

    AffectNet's (Table 4, Figure 5) takes AffectNet, or else the first data set that is not RAF-DB; RAF-DB's takes all
    others.
    """
    candidates = [dataset for dataset in datasets if dataset != "rafdb"]
    first = "affectnet" if "affectnet" in candidates else next(iter(candidates), None)
    return [dataset for dataset in datasets if (dataset == first) == (table_of == "affectnet")]


# --- trainings ------------------------------------------------------------------------------------------------------


def run_config(overrides: Sequence[str]) -> dict[str, Any]:
    """The resolved configuration of the run that a training's overrides make, with its name."""
    return resolve(settle(compose(overrides)))


def open_data(overrides: Sequence[str], **values: Any) -> FERDataModule:
    """The data module of these overrides, their augmentation and seed among them, with some values replaced."""
    config = compose(list(overrides))
    return make(config.dataset, **{"augment": config.augment, "seed": config.seed, **values})


def run_module(module: str, *words: str, run: bool = True) -> None:
    """Print and run `python -m MODULE WORDS...`; ends this command if it fails."""
    print(f"\n$ python -m {shlex.join([module, *words])}", flush=True)
    if run and (code := subprocess.run([sys.executable, "-m", module, *words]).returncode):
        sys.exit(f"stopped: {module} ended with exit code {code}; the same command goes on from here")


# --- results --------------------------------------------------------------------------------------------------------


def update_pages(file: Path) -> list[str]:
    """Names of the pages (README.md, docs/) that show `file`; their text between its marks is now its content.

    Headings are left out; links to plots in the file's folder become relative to the page.
    """
    shown = []
    text = re.sub(r"^#+ .*\n+", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
    for page in (REPO / "README.md", *sorted((REPO / "docs").rglob("*.md"))):
        folder = Path(os.path.relpath(file.resolve().parent, page.parent)).as_posix()
        linked = re.sub(r"\]\((?=[^)/]+\.png\))", f"]({folder}/", text)
        old = new = page.read_text(encoding="utf-8")
        for start, name, end in MARKS.findall(old):
            if REPO / name == file.resolve():
                before, _, after = new.partition(start)
                new = before + start + linked + end + after.partition(end)[2]
                shown.append(page.relative_to(REPO).as_posix())
        if new != old:
            with write_atomically(page) as out:
                out.write(new)
    return shown


def write_page(path: Path, text: str, tables: Iterable[tuple[str, Table]] = ()) -> list[str]:
    """Write a Markdown file, and its tables, each with its title, as LaTeX and CSV; names of the pages that show it,
    which are updated."""
    write_tables(path.with_suffix(""), tables)
    with write_atomically(path) as file:
        file.write(text)
    return update_pages(path)


def write_result(folder: Path, name: str, text: str, data: Any, tables: Iterable[tuple[str, Table]] = ()) -> None:
    """Write `NAME.md`, with its tables and the pages that show it, and `NAME.json` into a folder."""
    write_page(folder / f"{name}.md", text, tables)
    write_json(folder / f"{name}.json", data)


def publish(report: Report, out: Path, suffixes: Sequence[str] = ("png", "svg", "pdf")) -> None:
    """Write the report's files into `out`, its plots in these formats, update the pages that show it, and print it."""
    markdown = "\n".join([f"# {report.heading}\n", *report.markdown])
    write_result(out, report.name, markdown, report.rows)
    written = [f"{report.name}.md", f"{report.name}.json", *write_tables(out / report.name, report.tables)]
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
