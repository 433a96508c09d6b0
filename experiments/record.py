"""Keep a finished sweep in the repository.

`python -m experiments.record outputs/sweeps/NAME experiments/recorded/NAME` writes into the folder `table.md`,
`results.json` (each run's result.json) and the plots of each run's soft vote, and updates the pages that show the
table. With `--predictions test`, also each run's crop logits of the test images
(`predictions/<vote>-test.npz`): about 140 bytes an image for ten crops. Nothing recorded has a face, a file name or a
person's name.
"""

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from experiments.common import make_parser, origin, write_page
from fer_voting.results.load import PARTS, RunRecord, load_run, read_predictions
from fer_voting.results.sweep_table import sweep_table
from fer_voting.runs.run import Run
from fer_voting.runs.sweeps import Sweep
from fer_voting.system.arrays import write_npz
from fer_voting.system.atomic import write_json


def record(sweep: Sweep, folder: Path, predictions: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Write what is worth keeping of a sweep into `folder`; its table with the origin, and the pages that show it.

    Args:
        predictions: parts ("val", "test") whose predictions are kept too.

    Raises ValueError if a run of the sweep is not finished, or its predictions are not there or of numbers only.
    """
    names = dict.fromkeys(job["run"] for job in sweep.jobs())
    runs = [load_run(Run(sweep.output_dir, name)) for name in names]
    for run in runs:
        if run.problem:
            raise ValueError(f"the run {run.name} is {run.problem}: only a finished sweep is recorded")
        if predictions and not run.result["class_names"]:
            raise ValueError(f"{run.name} has no classes, whose crop logits --predictions keeps: leave it out")
    for run in runs:
        vote = run.refit or "soft"
        part = "test" if run.metrics(vote, "test") else "val"
        (folder / run.name).mkdir(parents=True, exist_ok=True)
        figure = "confusion" if run.result["class_names"] else "numbers"
        for plot in ("curves.png", f"{figure}-{vote}-{part}.png"):
            shutil.copyfile(run.run.dir / plot, folder / run.name / plot)
        for part in predictions:
            if run.metrics(vote, part):
                record_predictions(run, part, folder / run.name / "predictions")
    text, _, table = sweep_table(sweep)
    results = [run.result for run in runs]
    text += f"\n{origin(results)}\n"
    write_json(folder / "results.json", results)
    return text, write_page(folder / "table.md", text, [(f"sweep {sweep.dir.name}", table)])


def record_predictions(run: RunRecord, part: str, folder: Path) -> None:
    """Write what `read_predictions` reads: `logits` [N, V, K] in half precision, `labels` and `rows` [N].

    `rows` are the images' rows in a data set's csv, or else their positions in the evaluation. Of images with groups
    also `groups` [N]: digests of the names, which are equal in every run and fold.

    Raises ValueError if half precision changes a decision of the vote too often to give the same accuracy to 0.1 %.
    """
    stored = run.predictions(part)
    by_row = all(name.isdecimal() for name in stored.names)
    rows = stored.names.astype(np.int32) if by_row else np.arange(len(stored.names), dtype=np.int32)
    path = folder / run.predictions_file(part).name
    groups = () if stored.groups is None else [_digest(name) if name else "" for name in stored.groups]
    of_groups = {"groups": np.array(groups)} if groups else {}
    logits, labels = stored.logits.astype(np.float16), stored.labels.astype(np.min_scalar_type(stored.labels.max()))
    write_npz(path, logits=logits, labels=labels, rows=rows, **of_groups)
    vote = run.refit or "soft"
    changed = abs(read_predictions(path).correct(vote).mean() - stored.correct(vote).mean())
    if changed > 0.001:
        raise ValueError(f"{run.name}: half precision changes the accuracy of {path.name} by {changed:.2%}")


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("sweep", type=Path, help="a sweep's folder, as its last line names it")
    parser.add_argument("folder", type=Path, help="e.g. experiments/recorded/demo, relative to the repository")
    parser.add_argument("--predictions", nargs="+", choices=PARTS, default=[], help="parts whose predictions are kept")
    options = parser.parse_args(arguments)
    try:
        text, pages = record(Sweep(options.sweep), options.folder, options.predictions)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    print(text)
    print(f"recorded in {options.folder}; shown by {', '.join(pages) or 'no page'}")


if __name__ == "__main__":
    main()
