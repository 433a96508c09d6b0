"""Decode a data set once: `python -m fer_voting.pack dataset=... dataset.root=DIR`; `--prune` lists packs to remove.

Training builds a missing pack itself; this command builds it beforehand, e.g. on a machine without a GPU.
"""

if __name__ == "__main__":  # compose first, import afterwards: `--help` and a misspelt key are answered at once
    import sys

    from fer_voting.config import command

    if "--prune" not in sys.argv:
        command("fer_voting.pack:job", "pack")
        raise SystemExit

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from fer_voting.config import explain, make, remake
from fer_voting.data.module import FERDataModule
from fer_voting.runs.run import Run
from fer_voting.system.messages import duration
from fer_voting.system.text import counted


def job(config: DictConfig) -> None:
    start = time.monotonic()
    pack = make(config.dataset).make_pack()
    seconds = time.monotonic() - start
    print(f"{pack.folder}: {counted(pack.good.sum(), 'image')}, {_mib(pack.folder):.1f} MiB, after {duration(seconds)}")
    if pack.problems:
        print(f"{counted(len(pack.problems), 'image')} can't be used: python -m fer_voting.audit says why")


def unneeded_packs(output_dir: Path) -> list[Path]:
    """Folders of the packs in `<output_dir>/packs` that no run in `<output_dir>/runs` needs, whatever its status.

    A run whose data set is not there now keeps every pack of its data set's name and size.

    Raises ValueError if a run's config.yaml is damaged, or names code that is not of conf/dataset here.
    """
    folders: set[Path] = set()
    prefixes: set[str] = set()
    nodes: list[Any] = []
    for path in sorted((output_dir / "runs").glob("*/config.yaml")):
        node = Run(output_dir, path.parent.name).config().get("dataset")
        if node in nodes:
            continue
        nodes.append(node)
        if not isinstance(node, dict):
            raise ValueError(f"{path} is damaged: it has no dataset")
        data: FERDataModule = remake(node, "dataset", path, cache_dir=output_dir / "packs")
        try:
            folders.add(data.pack_folder(data.source()))
        except (OSError, ValueError):
            prefixes.add(data.pack_prefix)
    packs = sorted(path.parent for path in (output_dir / "packs").glob("*/pack.json"))
    return [pack for pack in packs if pack not in folders and not pack.name.startswith(tuple(prefixes))]


def prune(arguments: list[str] | None = None) -> None:
    """The command with `--prune`; a mistake ends it with one line on stderr and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m fer_voting.pack")
    parser.add_argument("--prune", action="store_true", required=True, help="list the packs that no run needs")
    parser.add_argument("--remove", action="store_true", help="and remove them")
    parser.add_argument(
        "output_dir", nargs="?", type=Path, default=Path("outputs"), help="the folder of runs/ and packs/"
    )
    options = parser.parse_args(arguments)
    try:
        packs = unneeded_packs(options.output_dir)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {explain(error)}")
    for pack in packs:
        print(f"{pack}: {_mib(pack):.1f} MiB{', removed' if options.remove else ''}")
        if options.remove:
            shutil.rmtree(pack)
    how = "" if options.remove or not packs else "; --prune --remove removes them"
    print(f"{counted(len(packs), 'pack')} that no run in {options.output_dir / 'runs'} needs{how}")


def _mib(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / 2**20


if __name__ == "__main__":
    prune()
