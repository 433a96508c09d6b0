"""A contact sheet of drawn faces with a network's predictions: `python -m experiments.contact_sheet RUN`.

Shows the first test images of each class, whether the network is right about them or not: a column a class, under
each image the soft vote's prediction and how many crops agree with it. For the drawn faces only: other data sets show
people.
"""

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.common import make_parser
from experiments.crop_analysis import agreeing_crops
from fer_voting.config import remake
from fer_voting.results.load import load_run
from fer_voting.results.plots import INK, save
from fer_voting.runs.run import Run
from fer_voting.votes import soft_vote

RIGHT, WRONG = "#0072B2", "#D55E00"


def contact_sheet(run: Run, rows: int) -> Figure:
    """The figure for a finished run, `rows` test images of each class.

    Raises ValueError if the run is not finished, is not of drawn faces, or has no test predictions.
    """
    record = load_run(run)
    if record.problem:
        raise ValueError(f"the run {run.name} is {record.problem}: a contact sheet needs a finished run")
    if not record.result["synthetic"]:
        raise ValueError(f"the run {run.name} is of {record.dataset}: its images show people and are not published")
    stored, classes = record.predictions("test"), record.result["class_names"]
    logits = torch.from_numpy(stored.logits)
    decided, agreement = soft_vote(logits).argmax(dim=1).numpy(), agreeing_crops(logits)
    chosen = [np.flatnonzero(stored.labels == label)[:rows] for label in range(len(classes))]
    images = _images(run, stored.names)

    figure = Figure(figsize=(1.3 * len(classes), 1.62 * rows + 0.3))
    with mpl.rc_context({"text.color": INK}):
        axes = figure.subplots(rows, len(classes), squeeze=False)
        for column, positions in enumerate(chosen):
            axes[0, column].set_title(classes[column], fontsize=11, fontweight="bold", pad=8)
            for row in range(rows):
                cell = axes[row, column]
                cell.axis("off")
                if row < len(positions):
                    position = positions[row]
                    cell.imshow(images[position])
                    colour = RIGHT if decided[position] == column else WRONG
                    text = f"{classes[decided[position]]}\n{agreement[position]} of {logits.shape[1]} crops"
                    cell.text(0.5, -0.05, text, transform=cell.transAxes, ha="center", va="top", color=colour, size=8.5)
        figure.subplots_adjust(left=0.01, right=0.99, bottom=0.5 / (1.62 * rows), top=0.9, wspace=0.1, hspace=0.35)
    return figure


def _images(run: Run, names: NDArray[np.str_]) -> NDArray[np.uint8]:
    """Images [N, S, S, 3] by name, from the pack of the run's data set, which is drawn again if it is not there."""
    pack = remake(run.config()["dataset"], "dataset", run.dir / "config.yaml").make_pack()
    position_of = {name: position for position, name in enumerate(pack.names(np.arange(len(pack.images))))}
    return pack.images[np.array([position_of[str(name)] for name in names])]


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("run", help="a finished run of drawn faces, e.g. faces-m3-demo-seed0")
    parser.add_argument("--rows", type=int, default=3, help="images of each class (default: 3)")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs"), help="holds runs/ (default: outputs)")
    parser.add_argument("--out", type=Path, help="the image file (default: contact_sheet.png in the run's folder)")
    options = parser.parse_args(arguments)
    if options.rows < 1:
        parser.error(f"--rows (={options.rows}) must be at least 1")
    try:
        run = Run(options.output_dir, options.run)
        figure = contact_sheet(run, options.rows)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    path = options.out or run.dir / "contact_sheet.png"
    save(figure, path)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
