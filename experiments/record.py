"""Keep a finished sweep in the repository: `python -m experiments.record outputs/sweeps/NAME experiments/NAME`.

Writes `table.md`, `results.json` (each run's result.json) and the pictures of each run's soft vote into the folder,
and puts the table into README.md between the lines `<!-- FOLDER/table.md -->` and `<!-- end -->`, where they exist.
No picture shows a face.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from experiments.common import origin
from experiments.readme import put_into_readme
from fer_voting.results.sweep_table import sweep_table
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.atomic import write_atomically, write_json


def record(sweep: Sweep, folder: Path) -> str:
    """Copy what is worth keeping of `sweep` into `folder`; returns its table with its origin.

    Raises ValueError if a run of the sweep is not finished.
    """
    runs = list(dict.fromkeys(job["run"] for job in sweep.jobs()))
    results: list[dict[str, Any]] = []
    for name in runs:
        run = Run(sweep.output_dir, name)
        if (status := run.status()) != "finished":
            raise ValueError(f"the run {name} is {status}: only a finished sweep is recorded")
        result = run.result()
        assert result is not None
        results.append(result)
        stage = "test" if "test" in result["votes"]["soft"] else "val"
        for picture in ("curves.png", f"confusion-soft-{stage}.png"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.dir / picture, folder / name / picture)
    table, _ = sweep_table(sweep)
    text = f"{table}\n{origin(results)}\n"
    with write_atomically(folder / "table.md") as file:
        file.write(text)
    write_json(folder / "results.json", results)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="a sweep's folder, as its last line names it")
    parser.add_argument("folder", type=Path, help="e.g. experiments/recorded/demo, relative to the repository")
    options = parser.parse_args()
    try:
        text = record(Sweep(options.sweep), options.folder)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(text)
    told = (
        "README.md shows it" if put_into_readme(options.folder / "table.md", text) else "README.md has no place for it"
    )
    print(f"recorded in {options.folder}; {told}")


if __name__ == "__main__":
    main()
