"""Metrics of numbers, such as valence and arousal, with intervals: of an evaluation, and of the runs of a group.

    RMSE   root of the mean squared error
    r      Pearson's correlation
    CCC    Lin's concordance correlation, 2 cov / (var + var + difference of the means squared)
    SAGR   share of the images whose prediction has the label's sign

Shapes: N images, n numbers, R resamples.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fer_voting.results.compare import Method, join_groups
from fer_voting.results.load import RunGroup, RunRecord
from fer_voting.results.statistics import COVERAGE, group_ids, group_variance, half_interval, half_interval_without
from fer_voting.results.table import Table
from fer_voting.results.text import NOTHING, describe, interval_over
from fer_voting.system.arrays import read_npz
from fer_voting.votes import ALL_VOTES, PAPER_VOTES

METRICS = {"rmse": "RMSE", "pearson": "r", "ccc": "CCC", "sign_agreement": "SAGR"}
"""Metric in result.json -> its heading."""
RESAMPLES = 1000
"""Draws of a bootstrap over images."""
LIMITS = {"rmse": (0.0, np.inf), "pearson": (-1.0, 1.0), "ccc": (-1.0, 1.0), "sign_agreement": (0.0, 1.0)}
VOTES = tuple(vote for vote in PAPER_VOTES if ALL_VOTES[vote].has_rule_for_numbers)
NUMBERS_NOTE = (
    "± is the standard deviation over seeds. The 95 % interval of the mean is over images by a bootstrap (over groups, "
    "e.g. people, by a jackknife, where it says so) and, from three seeds on, over seeds too (Student's t); without "
    "seeds, it is of these very networks."
)
Values = dict[str, NDArray[np.float64]]
"""Metric -> its value for each number, [..., n]."""


def number_metrics(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> Values:
    """The METRICS of predictions [N, n], as torchmetrics has them; correlations of what does not vary are 0."""
    return _metrics(_moments(scores, labels).mean(axis=0), len(labels))


def number_intervals(
    scores: NDArray[np.floating], labels: NDArray[np.floating], ids: NDArray[np.int64] | None = None
) -> dict[str, NDArray[np.float64]]:
    """Metric -> ends [2, n] of the 95 % interval: over images by a bootstrap (percentiles), or over groups of them by
    the jackknife, as `evaluation.metric_intervals`. Deterministic.

    Args:
        ids: number of each image's group (`statistics.group_ids`), [N].
    """
    moments = _moments(scores, labels)
    if ids is not None:
        without, values = _without_groups(moments, ids), _metrics(moments.mean(axis=0), len(moments))
        half = {metric: np.apply_along_axis(half_interval_without, 0, without[metric]) for metric in METRICS}
        return {m: np.clip([values[m] - half[m], values[m] + half[m]], *LIMITS[m]) for m in METRICS}
    resampled = _resampled(moments)
    ends = [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]
    return {metric: np.quantile(values, ends, axis=0) for metric, values in resampled.items()}


def _moments(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> NDArray[np.float64]:
    """Terms of each image and number whose means give every metric: [N, n, 6]."""
    centre = labels.mean(axis=0, dtype=np.float64)
    x, y = scores - centre, labels - centre
    return np.stack([x, y, x * x, y * y, x * y, np.sign(scores) == np.sign(labels)], axis=2)


def _metrics(means: NDArray[np.float64], images: int | NDArray[np.int64]) -> Values:
    x, y, xx, yy, xy, agreeing = np.moveaxis(means, -1, 0)
    unbiased = images / np.maximum(images - 1, 1)
    var_x, var_y, cov = unbiased * (xx - x * x), unbiased * (yy - y * y), unbiased * (xy - x * y)
    tiny = 1e-12
    varies = (var_x > tiny) & (var_y > tiny)
    return {
        "rmse": np.sqrt(np.maximum(xx - 2 * xy + yy, 0)),
        "pearson": np.where(varies, cov / np.sqrt(np.maximum(var_x * var_y, tiny**2)), 0),
        "ccc": np.where(varies, 2 * cov / np.maximum(var_x + var_y + (x - y) ** 2, tiny), 0),
        "sign_agreement": agreeing,
    }


def _resampled(moments: NDArray[np.float64]) -> Values:
    """The metrics of R samples of N images with replacement: [R, n]."""
    images, numbers, terms = moments.shape
    means = _shares(images) @ moments.reshape(images, -1)
    return _metrics(means.reshape(-1, numbers, terms), images)


def _without_groups(moments: NDArray[np.float64], ids: NDArray[np.int64]) -> Values:
    """The metrics without the images of each group: [G, n]."""
    sums = np.zeros((ids.max() + 1, *moments.shape[1:]))
    np.add.at(sums, ids, moments)
    left = (len(ids) - np.bincount(ids))[:, None]
    return _metrics((moments.sum(axis=0) - sums) / left[..., None], left)


@lru_cache(maxsize=2)
def _shares(images: int) -> NDArray[np.float64]:
    """Each image's share of each resample, the same each time: [R, N]."""
    rng = np.random.default_rng(0)
    return (
        np.stack([np.bincount(rng.integers(images, size=images), minlength=images) for _ in range(RESAMPLES)]) / images
    )


def evaluate_numbers(
    scores: NDArray[np.floating],
    labels: NDArray[np.floating],
    names: Sequence[str],
    groups: NDArray[np.str_] | None = None,
) -> dict[str, Any]:
    """`number_intervals` as plain values for JSON, metric -> number -> [low, high]; and over how many `groups`.

    Args:
        names: of the numbers.
        groups: name of each image's group, "" for one of its own, [N].
    """
    ids = group_ids(groups)
    ends = number_intervals(scores, labels, ids)
    intervals = {metric: dict(zip(names, values.T.tolist(), strict=True)) for metric, values in ends.items()}
    return {"number_intervals": intervals, "groups": None if ids is None else int(ids.max()) + 1}


def number_columns(arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[np.floating]]:
    """Columns `<number>` and `predicted <number>` [N] of the arrays that `targets.Target.to_arrays` gives."""
    kinds = {"": "number_labels", "predicted ": "number_scores"}
    return {f"{kind}{name}": arrays[key][:, i] for i, name in enumerate(names) for kind, key in kinds.items()}


def evaluation_table(votes: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row a vote and number, with intervals.

    Args:
        votes: vote -> the values of `targets.ValenceArousal`, and of `evaluate_numbers`.
    """
    table = Table(["vote", "number", *METRICS.values()], [], left=2)
    for vote, values in votes.items():
        for name in values["ccc"]:
            ends = {metric: values["number_intervals"][metric][name] for metric in METRICS}
            cells = [f"{values[metric][name]:.3f} ({low:.3f} to {high:.3f})" for metric, (low, high) in ends.items()]
            table.rows.append([vote, name, *cells])
    return table


# --- runs -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class NumberFigure:
    """A metric of one number by a method, or its difference to another method's: first - second.

    Attributes:
        seeds: seed -> value; of a cross-validation over the images of all its folds.
        low, high: ends of the 95 % interval of the mean over seeds (NUMBERS_NOTE).
        missing: name of a run without it -> reason.
        groups: their number (e.g. of people), if the images have groups: the interval is then over groups.
    """

    first: Method
    second: Method | None
    part: str
    number: str
    metric: str
    images: int | None = None
    seeds: dict[int, float] = field(default_factory=dict)
    mean: float | None = None
    low: float | None = None
    high: float | None = None
    missing: dict[str, str] = field(default_factory=dict)
    groups: int | None = None


def number_figures(group: RunGroup, part: str, refit: str = "") -> list[NumberFigure]:
    """Every metric of every split by both votes of numbers, each at its own best epoch; of the baseline by one."""
    methods = [
        Method(split, vote, refit)
        for split in group.splits(refit)
        for vote in (VOTES[:1] if split == "baseline" else VOTES)
    ]
    return [figure for method in methods for figure in _figures(group, method, None, part)]


def number_differences(group: RunGroup, part: str, refit: str = "") -> list[NumberFigure]:
    """Every metric of the splits with crops against the baseline's, and of their soft vote against their hard: on the
    same images and the weights of the soft vote's best epoch."""
    splits = [split for split in group.splits(refit) if split != "baseline"]
    pairs = [(Method(split, vote, refit), Method("baseline", "soft", refit)) for split in splits for vote in VOTES]
    pairs += [(Method(split, "soft", refit), Method(split, "hard", refit)) for split in splits]
    return [figure for pair in pairs for figure in _figures(group, *pair, part)]


Stored = dict[int, tuple[NDArray[np.str_], NDArray[np.float64], NDArray[np.str_] | None]]
"""Seed -> names of the images [N], `_moments` of its predictions, names of the images' groups [N]."""


def _figures(group: RunGroup, first: Method, second: Method | None, part: str) -> list[NumberFigure]:
    own_epoch = second is None
    methods = [first] if second is None else [first, second]
    read = [_read(group, method, part, own_epoch) for method in methods]
    missing = dict(itertools.chain.from_iterable(reasons.items() for _, reasons in read))
    common = sorted(set.intersection(*({*stored} for stored, _ in read)))
    images = [stored[seed][0] for seed in common for stored, _ in reversed(read)]
    seeds = [seed for seed in common if all(np.array_equal(stored[seed][0], images[0]) for stored, _ in read)]
    missing |= {
        run.name: "other images"
        for method in methods
        for run in group.finished(method.split, method.refit)
        if run.seed in common and run.seed not in seeds
    }
    of_seeds = [[stored[seed][1] for stored, _ in read] for seed in seeds]
    numbers = group.number_names

    def difference(metrics: Sequence[Values], metric: str) -> NDArray[np.float64]:
        return metrics[0][metric] if len(metrics) == 1 else metrics[0][metric] - metrics[1][metric]

    values = [[_metrics(moments.mean(axis=0), len(moments)) for moments in pair] for pair in of_seeds]
    ids = group_ids(read[0][0][seeds[0]][2]) if seeds else None
    groups = None if ids is None else int(ids.max()) + 1
    varied = [
        [_resampled(moments) if ids is None else _without_groups(moments, ids) for moments in pair] for pair in of_seeds
    ]
    figures = []
    for (place, number), metric in itertools.product(enumerate(numbers), METRICS):
        if not seeds:
            figures.append(NumberFigure(first, second, part, number, metric, missing=missing))
            continue
        by_seed = [float(difference(pair, metric)[place]) for pair in values]
        spread = np.stack([difference(pair, metric)[:, place] for pair in varied])  # [S, R or G]
        variance = (
            float(spread.mean(axis=0).var(ddof=1))
            if ids is None
            else group_variance(np.array(by_seed)[:, None] - spread)
        )
        mean, half = fmean(by_seed), half_interval(variance, by_seed, groups)
        of_seed = dict(zip(seeds, by_seed, strict=True))
        measured = len(images[0]), of_seed, mean, mean - half, mean + half, missing, groups
        figures.append(NumberFigure(first, second, part, number, metric, *measured))
    return figures


def _read(group: RunGroup, method: Method, part: str, own_epoch: bool) -> tuple[Stored, dict[str, str]]:
    """The predictions of each seed, its folds one after the other; name of a run that has none -> reason.

    Args:
        own_epoch: by the weights of the vote's own best epoch; else of the soft vote's.
    """
    missing = group.missing(method.split, method.refit)
    of_folds: dict[int, list[_Predictions]] = {}
    for run in group.finished(method.split, method.refit):
        try:
            predictions = _predictions(run, method, part, own_epoch)
        except (OSError, ValueError) as error:
            missing[run.name] = f"no {part} images" if isinstance(error, FileNotFoundError) else str(error)
        else:
            of_folds.setdefault(run.seed, []).append(predictions)
    stored: Stored = {}
    for seed, folds in of_folds.items():
        *arrays, groups = zip(*folds, strict=True)
        names, scores, labels = map(np.concatenate, arrays)
        stored[seed] = names, _moments(scores, labels), join_groups(groups)
    return stored, missing


_Predictions = tuple[NDArray[np.str_], NDArray[np.floating], NDArray[np.floating], NDArray[np.str_] | None]


def _predictions(run: RunRecord, method: Method, part: str, own_epoch: bool) -> _Predictions:
    """Names of the images [N], the vote's numbers and labels [N, n] of a run, names of the images' groups [N]."""
    epoch_vote = run.refit or (method.vote if own_epoch else "soft")
    path = run.run.predictions_file(epoch_vote, part)
    arrays = read_npz(path, "names", "number_crops", "number_labels")
    numbers = ALL_VOTES[method.vote].numbers(torch.from_numpy(arrays["number_crops"])).numpy()
    return arrays["names"], numbers, arrays["number_labels"], arrays.get("groups")


def number_table(figures: Sequence[NumberFigure]) -> Table:
    """A row a method and number: every metric, mean ± standard deviation over seeds, and the interval of the CCC."""
    return _table(figures, "architecture", lambda method, _: describe(method), "{:.3f}")


def number_difference_table(figures: Sequence[NumberFigure]) -> Table:
    """A row a pair of methods with runs, and number: the difference of every metric, and the interval of the CCC's."""
    figures = [figure for figure in figures if figure.seeds]
    return _table(figures, "difference", lambda first, second: f"{describe(first)} – {describe(second)}", "{:+.3f}")


def _table(figures: Sequence[NumberFigure], title: str, label: Any, form: str) -> Table:
    table = Table(
        [title, "number", "runs", *METRICS.values(), "CCC, 95 % interval"], [], left=2, best={"CCC", "r", "SAGR"}
    )
    for (first, second, number), group in itertools.groupby(figures, lambda one: (one.first, one.second, one.number)):
        row = {figure.metric: figure for figure in group}
        ccc = row["ccc"]
        ends = NOTHING if ccc.low is None else f"{form.format(ccc.low)} to {form.format(ccc.high)}"
        ends += f" ({interval_over(len(ccc.seeds), ccc.groups)})" if ccc.groups else ""
        cells = [_mean_text(row[metric].seeds, form) for metric in METRICS]
        table.rows.append([label(first, second), number, str(len(ccc.seeds)), *cells, ends])
    return table


def _mean_text(seeds: Mapping[int, float], form: str) -> str:
    values = list(seeds.values())
    if not values:
        return NOTHING
    return form.format(fmean(values)) + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")
