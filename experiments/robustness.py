"""Networks beside each other on worse images: `python -m experiments.robustness EVALUATION.json ...`.

The files are what `fer_voting.evaluate ... robustness=true` wrote of each network on the same images. Writes a table
and a plot, a column and a line a network, by the soft vote; of a network with crops also the decision by its whole map,
which is the baseline with the same parameters.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from experiments.common import SYNTHETIC, Report, add_folders, make_parser, publish
from fer_voting.results.evaluation import intervals_over
from fer_voting.results.plots import save
from fer_voting.results.robustness import WHOLE_MAP, RobustnessRow, robustness_figure, robustness_table
from fer_voting.system.atomic import read_json


def read_evaluation(path: Path) -> dict[str, Any]:
    """The content of an evaluation with worse images, and `network`, whose name its file has.

    Raises ValueError if the file is none, or is not there.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    evaluation = read_json(path)
    if not isinstance(evaluation, dict) or not evaluation.get("robustness"):
        raise ValueError(f"{path} is not what `python -m fer_voting.evaluate ... robustness=true` writes")
    return evaluation | {"network": path.stem.partition("-on-")[0]}


def beside_each_other(evaluations: dict[str, dict[str, Any]]) -> list[RobustnessRow]:
    """Rows as of one network, with the networks, and their whole maps, in the place of the votes.

    Raises ValueError if the evaluations are of different images, or made worse in other ways.
    """
    images = {
        name: [*(each[key] for key in ("data_fingerprint", "part", "images"))]
        + [(row["corruption"], row["strength"]) for row in each["robustness"]]
        for name, each in evaluations.items()
    }
    first, *others = evaluations
    for name in others:
        if images[name] != images[first]:
            raise ValueError(f"{name} and {first} were evaluated on different images: give one command each")
    rows = []
    for of_each in zip(*(each["robustness"] for each in evaluations.values()), strict=True):
        shown = {}
        for name, row in zip(evaluations, of_each, strict=True):
            shown[name] = row["votes"]["soft"]
            if WHOLE_MAP in row["votes"]:
                shown[f"{name}, {WHOLE_MAP}"] = row["votes"][WHOLE_MAP]
        rows.append(of_each[0] | {"votes": shown})
    return rows


def report(evaluations: dict[str, dict[str, Any]]) -> Report:
    rows = beside_each_other(evaluations)
    one = next(iter(evaluations.values()))
    written = Report("robustness", "Worse images", rows=rows)
    title = f"{one['dataset']}, {one['part']}, {one['images']:,} images"
    written.add(f"## {title}")
    draw = partial(save, robustness_figure(rows, title, list(rows[0]["votes"])))
    written.add_plot("robustness", draw, f"accuracy on worse images, {title}")
    written.add_table(robustness_table(rows, noun=""))
    of_classes = np.sum(one["votes"]["soft"]["confusion_counts"], axis=1)
    written.add(
        "Accuracy in percent by the soft vote; *whole map* is the decision without crops. "
        f"Always the most frequent class: {100 * of_classes.max() / of_classes.sum():.2f}. "
        f"docs/evaluate.md describes the corruptions; robustness.json has the {intervals_over(one['votes']['soft'])}."
    )
    if one["synthetic"]:
        written.add(SYNTHETIC)
    commits, devices, precisions = (
        ", ".join(sorted({str(each[key]) for each in evaluations.values()}))
        for key in ("git_commit", "device", "precision")
    )
    networks = "; ".join(f"{name}: {each['network']}" for name, each in evaluations.items())
    written.add(f"{networks}. Commit {commits}; {precisions} on {devices}.")
    return written


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("evaluations", nargs="+", type=Path, metavar="EVALUATION.json", help="a file of each network")
    parser.add_argument("--names", nargs="+", help="of the networks (default: the files' names)")
    add_folders(parser)
    options = parser.parse_args(arguments)
    names = options.names or [path.stem.partition("-on-")[0] for path in options.evaluations]
    if len({*names}) != len(options.evaluations):
        files = len(options.evaluations)
        parser.error(f"{files} files need {files} different names, not {', '.join(names)}: give them by --names")
    try:
        evaluations = {name: read_evaluation(path) for name, path in zip(names, options.evaluations, strict=True)}
        publish(report(evaluations), options.out or options.output_dir / "tables")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
