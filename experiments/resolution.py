"""Accuracy against input resolution: `make resolution RUNS="NAME ..."`, or `python -m experiments.resolution NAME ...`.

The paper's motivation is small faces; it reports 48 pixels only. Here the images that a finished run was not
trained on are brought down to 8, 12, 16, 24, 32 and 40 pixels by area averaging, and back to the size that the network
takes. One forward pass a resolution and split serves every vote. Runs that differ only in their seed share a row,
whatever their names, and networks are compared in pairs on the same images.

Writes resolution.md, .json, tables and plot into <output-dir>/tables. No file holds a face. On 2 cores a network of
width 16 takes a minute or two for the 3,589 test images of FER2013.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from experiments.common import SYNTHETIC, Report, add_folders, make_parser, origin, publish, whole_numbers
from fer_voting.config import remake
from fer_voting.data.corruptions import corrupt
from fer_voting.data.module import FERDataModule
from fer_voting.experiment import use_float32_precision
from fer_voting.inference.recognizer import Recognizer
from fer_voting.inference.runtime import TorchRuntime
from fer_voting.models import SPLITS
from fer_voting.networks import Network, load_network, match_classes
from fer_voting.results.compare import Correct, compare_correct
from fer_voting.results.evaluation import (
    confusion_counts,
    counts_of_groups,
    intervals_over,
    metric_intervals,
    metrics_of_counts,
)
from fer_voting.results.plots import INK, SPLIT_COLOURS, save
from fer_voting.results.table import Table
from fer_voting.results.text import INTERVAL_NOTE, NOTHING, mean_text
from fer_voting.runs.identity import recipe
from fer_voting.runs.run import Run
from fer_voting.system.messages import progress_bar, set_up_messages
from fer_voting.votes import VOTES

RESOLUTIONS = (8, 12, 16, 24, 32, 40, 48)
"""Pixels a side."""

Row = dict[str, Any]
"""One accuracy: `dataset`, `part`, `images`, `groups` (their number, e.g. of people; None: there are none), `majority`
(share of the most frequent class), `image_size`, `network` (`name_networks`), `run`, `checksum` (of its weights),
`seed`, `trained_split`, `split`, `vote`, `resolution` (pixels), `accuracy` with the ends `low` and `high` of its 95 %
interval, over images or their groups, `mean_recall`, and `right` (bool [N], of each image; not in files)."""


@dataclass(frozen=True)
class LoadedRun:
    """A finished run with the data that it was trained on."""

    run: Run
    config: dict[str, Any]
    result: dict[str, Any]
    datamodule: FERDataModule

    def groups(self, part: str) -> NDArray[np.str_] | None:
        """Name of each image's group, e.g. the person, [N]; None if there are no groups."""
        return self.datamodule.groups_of(self.datamodule.positions(part))

    @cached_property
    def network(self) -> Network:
        """By the soft vote's best epoch; of a refit that has none, its own."""
        return load_network(self.run.dir)

    def recognizer(self, split: str) -> Recognizer:
        """The network under a split, in bfloat16 if the run was trained so, else in float32."""
        data, precision = self.datamodule, "bf16" if self.result["precision"] == "bf16-mixed" else "float32"
        network, _ = match_classes(self.network, data.class_names, data.name, split)
        return Recognizer(TorchRuntime(network.net, network.info, precision=precision), batch_size=128)

    def images(self, part: str) -> NDArray[np.uint8]:
        """[N, S, S, 3]."""
        return np.asarray(self.datamodule.pack.images[self.datamodule.positions(part)])


def open_run(output_dir: Path, name: str, part: str, root: Path | None) -> LoadedRun:
    """A finished run and its data, as its configuration says.

    Args:
        part: "val" or "test".
        root: where the data set lies now, if it has moved.

    Raises FileNotFoundError if the run is not finished, ValueError if the data set has no such part here, or is not
    the one that the run was trained on.
    """
    run = Run(output_dir, name)
    if (status := run.status()) != "finished":
        raise FileNotFoundError(f"the run {name} is {status} in {run.dir}, not finished")
    result = run.result()
    assert result is not None
    config = run.config()
    cache_dir = Path(config["dataset"]["cache_dir"])
    moved: dict[str, Any] = {} if cache_dir.is_dir() else {"cache_dir": output_dir / "packs"}
    if root is not None:
        moved["root"] = root
    datamodule = remake(config["dataset"], "dataset", run.dir / "config.yaml", refit=config["refit"], **moved)
    datamodule.setup()
    if datamodule.fingerprint != result["data_fingerprint"]:
        raise ValueError(
            f"{name} was trained on other data (fingerprint {result['data_fingerprint'][:12]}) than "
            f"{datamodule.name} is here ({datamodule.fingerprint[:12]})"
        )
    if part not in datamodule.counts():
        raise ValueError(f"{name} has no {part} images that it was not trained on")
    return LoadedRun(run, config, result, datamodule)


def name_networks(runs: Sequence[LoadedRun]) -> list[str]:
    """The network of each run: runs of one recipe and split that differ in their seed share the name of their first,
    without its seed. A second run of the same seed, or another network of the same name, keeps its full name.
    """
    networks: dict[str, list[LoadedRun]] = {}
    names = []
    for run in runs:
        own = run.run.name.removesuffix(f"-seed{run.config['seed']}")
        others = (name for name, seeds in networks.items() if is_another_seed(run, seeds))
        name = next(others, run.run.name if own in networks else own)
        networks.setdefault(name, []).append(run)
        names.append(name)
    return names


def is_another_seed(run: LoadedRun, seeds: Sequence[LoadedRun]) -> bool:
    """Whether a run is of these runs' recipe and split, and of another seed than each."""
    one, other = (recipe(each.config) | {"split": each.config["split"]} for each in (run, seeds[0]))
    return one == other and run.config["seed"] not in [each.config["seed"] for each in seeds]


def measure(
    trained: LoadedRun, network: str, splits: Sequence[str], resolutions: Sequence[int], part: str
) -> list[Row]:
    """Accuracy of a run's network by split, vote and resolution. Resolutions above its image size are left out."""
    data = trained.datamodule
    labels = data.class_ids(data.pack)[data.positions(part)]
    images, groups = trained.images(part), trained.groups(part)
    about = {"dataset": data.name, "part": part, "image_size": data.size, "network": network}
    about |= {
        "checksum": trained.network.checksum,
        "run": trained.run.name,
        "seed": trained.config["seed"],
        "trained_split": trained.config["split"]["name"],
    }
    rows: list[Row] = []
    sides = sorted({*(side for side in resolutions if side < data.size), data.size})
    with progress_bar(total=len(splits) * len(sides), desc=trained.run.name, unit="pass") as progress:
        for split in splits:
            recognizer = trained.recognizer(split)
            for side in sides:
                progress.set_postfix_str(f"{split} at {side} px")
                logits = torch.from_numpy(recognizer.classify(corrupt(images, "resolution", side)).crop_logits)
                for vote in VOTES:
                    decisions = VOTES[vote](logits).argmax(dim=1).numpy()
                    row = about | {"split": split, "vote": vote, "resolution": side, "right": decisions == labels}
                    made = labels, decisions, len(data.class_names)
                    rows.append(row | figures(confusion_counts(*made), counts_of_groups(*made, groups)))
                progress.update()
    return rows


def figures(counts: NDArray[np.int64], of_groups: NDArray[np.int64] | None = None) -> Row:
    """`images`, `groups`, `majority`, `accuracy`, `low`, `high` and `mean_recall` of a row, by its `confusion_counts`
    [K, K] and `counts_of_groups` [G, K, K]."""
    metrics, (low, high) = metrics_of_counts(counts), metric_intervals(counts, of_groups)["accuracy"]
    return {
        "images": int(counts.sum()),
        "groups": None if of_groups is None else len(of_groups),
        "majority": counts.sum(axis=1).max() / counts.sum(),
        "accuracy": float(metrics["accuracy"]),
        "low": low,
        "high": high,
        "mean_recall": float(metrics["mean_recall"]),
    }


def group(rows: Sequence[Row]) -> dict[tuple[str, str, str], dict[int, list[float]]]:
    """(network, split, vote) -> resolution -> accuracy of each of its runs; of the baseline one vote, all agree."""
    groups: dict[tuple[str, str, str], dict[int, list[float]]] = {}
    for row in rows:
        if row["split"] == "baseline" and row["vote"] != "soft":
            continue
        by_resolution = groups.setdefault((row["network"], row["split"], row["vote"]), {})
        by_resolution.setdefault(row["resolution"], []).append(row["accuracy"])
    return groups


def table(rows: Sequence[Row]) -> Table:
    """Accuracy in percent, a row a network, split and vote, a column a resolution."""
    sides = sorted({row["resolution"] for row in rows})
    by_side = [f"{side} px" for side in sides]
    lines = []
    for key, by_resolution in group(rows).items():
        cells = [mean_text(by_resolution.get(side, [])) for side in sides]
        lines.append([*key, str(max(map(len, by_resolution.values()))), *cells])
    return Table(["network", "split", "vote", "runs", *by_side], lines, left=3, best={*by_side})


def difference_text(first: Correct, second: Correct, groups: NDArray[np.str_] | None = None) -> tuple[str, int]:
    """`+0.45 (-0.10 to +1.02)` of the seeds that both have, and their number."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        return NOTHING, 0
    one = compare_correct(*({seed: correct[seed] for seed in seeds} for correct in (first, second)), groups=groups)
    mean, low, high = (100 * one[key] for key in ("difference", "low", "high"))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})", len(seeds)


def differences(rows: Sequence[Row], groups: NDArray[np.str_] | None = None) -> Table:
    """Differences in points between any two networks, both by the soft vote on the same images and seeds."""
    right: dict[tuple[str, str], dict[int, dict[int, NDArray[np.bool_]]]] = {}  # network, split -> side -> `Correct`
    for row in rows:
        if row["vote"] == "soft":
            of_side = right.setdefault((row["network"], row["split"]), {}).setdefault(row["resolution"], {})
            of_side[row["seed"]] = row["right"]
    sides = sorted({row["resolution"] for row in rows})
    lines = []
    for second, first in combinations(right, 2):
        cells, seeds = zip(
            *(difference_text(right[first][side], right[second][side], groups) for side in sides), strict=True
        )
        if seeds[0]:
            lines.append([" ".join(first), " ".join(second), str(seeds[0]), *cells])
    return Table(["network", "minus", "seeds", *(f"{side} px" for side in sides)], lines, left=2)


def draw(path: Path, rows: Sequence[Row], title: str) -> None:
    """Accuracy by resolution: a panel a vote, a colour a split, a line a network (the mean of its runs)."""
    groups = group(rows)
    looks = line_looks(rows)
    sides = sorted({row["resolution"] for row in rows})
    majority = 100 * rows[0]["majority"]
    figure = Figure(figsize=(3.6 * len(VOTES), 4.2))
    panels = figure.subplots(1, len(VOTES), sharey=True)
    for axes, vote in zip(panels, VOTES, strict=True):
        for (network, split, voted), by_resolution in groups.items():
            if voted == vote or split == "baseline":
                means = [100 * float(np.mean(accuracies)) for accuracies in by_resolution.values()]
                axes.plot(list(by_resolution), means, marker="o", ms=3.5, lw=1.4, **looks[network, split])
        axes.axhline(majority, color=INK, lw=0.8, ls=":", alpha=0.7)
        axes.set_title(f"{vote} vote", fontsize=10)
        axes.set_xlabel("resolution (pixels a side)")
        axes.set_xticks(sides)
        axes.grid(alpha=0.3)
    text = {"xytext": (0, 3), "textcoords": "offset points", "ha": "right", "fontsize": 7}
    panels[0].annotate("most frequent class", (sides[-1], majority), **text)
    panels[0].set_ylabel("accuracy (%)")
    lines, labels = panels[-1].get_legend_handles_labels()
    figure.legend(lines, labels, frameon=False, fontsize=8, loc="lower center", ncols=2)
    figure.suptitle(title, fontsize=10)
    figure.tight_layout(rect=(0, 0.03 + 0.04 * -(-len(lines) // 2), 1, 1))
    save(figure, path)


def line_looks(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, Any]]:
    """(network, split) -> colour, line style and label of its line."""
    trained = {(row["network"], row["split"]): row["trained_split"] for row in rows}
    by_network = len({split for _, split in trained}) == 1 < len(trained)  # the split tells no line from another
    looks = {}
    for (network, split), trained_split in trained.items():
        rivals = [n for n, s in trained if s == split]
        label = split if split == trained_split else f"{split}, trained with {trained_split}"
        looks[network, split] = {
            "color": f"C{rivals.index(network)}" if by_network else SPLIT_COLOURS.get(split, INK),
            "ls": ("-", "--", "-.", ":")[rivals.index(network) % 4],
            "label": label if len(rivals) == 1 else f"{label} ({network})",
        }
    return looks


def report(runs: Sequence[LoadedRun], rows: Sequence[Row]) -> Report:
    """The table, plot and JSON of runs on the same images."""
    data, groups = runs[0].datamodule, runs[0].groups(rows[0]["part"])
    kept = [{key: value for key, value in row.items() if key != "right"} for row in rows]
    written = Report("resolution", "Accuracy against input resolution", rows=kept)
    note = " (synthetic faces)" if data.synthetic else ""
    title = f"{data.name}{note}, {rows[0]['part']}, {rows[0]['images']:,} images of {data.size} px"
    written.add(f"## {title}")
    written.add_plot("resolution", partial(draw, rows=rows, title=title), f"accuracy by resolution, {title}")
    written.add_table(table(rows))
    written.add(
        f"Accuracy in percent of images brought down to as many pixels a side and back to {data.size}; several runs as "
        f"mean ± standard deviation. Always the most frequent class: {100 * rows[0]['majority']:.2f}. "
        f"resolution.json has each run's {intervals_over(rows[0])}."
    )
    compared = differences(rows, groups)
    if compared.rows:
        written.add_table(compared)
        written.add(f"Difference in percentage points by the soft vote, on the same images and seeds. {INTERVAL_NOTE}")
    if data.synthetic:
        written.add(SYNTHETIC)
    written.add(origin([run.result for run in runs]))
    return written


def main(arguments: list[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("runs", nargs="+", metavar="NAME", help="finished runs, by name")
    parser.add_argument("--part", choices=["val", "test"], default="test")
    parser.add_argument("--root", type=Path, help="the data set's folder, if it has moved since the training")
    parser.add_argument("--splits", help=f"of {','.join(SPLITS)}, or all (default: the split of each run)")
    sides = ",".join(map(str, RESOLUTIONS))
    parser.add_argument("--resolutions", type=whole_numbers, default=sides, help="pixels a side (default: %(default)s)")
    add_folders(parser)
    options = parser.parse_args(arguments)
    splits = list(SPLITS) if options.splits == "all" else options.splits and options.splits.split(",")
    if splits and (unknown := sorted(set(splits) - set(SPLITS))):
        parser.error(f"--splits: {', '.join(unknown)} must be of {', '.join(SPLITS)}")
    if min(options.resolutions) < 1:
        parser.error("--resolutions must be above 0, e.g. 8,16,48")
    set_up_messages()
    use_float32_precision(tf32=False)  # as a training's default
    rows: list[Row] = []
    try:
        names = dict.fromkeys(options.runs)
        runs = [open_run(options.output_dir, name, options.part, options.root) for name in names]
        images = [(run.result["data"]["digests"][options.part], run.datamodule.size) for run in runs]
        if other := next((run for run, of_run in zip(runs, images, strict=True) if of_run != images[0]), None):
            raise ValueError(f"{other.run.name} has other images than {runs[0].run.name}: give one command each")
        for trained, network in zip(runs, name_networks(runs), strict=True):
            own = trained.config["split"]["name"]
            rows += measure(trained, network, splits or [own], options.resolutions, options.part)
    except (OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    publish(report(runs, rows), options.out or options.output_dir / "tables")


if __name__ == "__main__":
    main()
