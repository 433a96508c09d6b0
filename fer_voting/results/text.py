"""Accuracies, comparisons and costs as tables of text, for Markdown and for HTML.

Accuracies are in percent with two digits, differences in percentage points.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from fer_voting.results.compare import Accuracy, Comparison, Method, normalise_confusion
from fer_voting.results.cost import mean_cost
from fer_voting.results.load import NOT_RUN, RunGroup
from fer_voting.results.paper import PAPER_DATASETS, paper_test_accuracy, paper_validation_accuracy
from fer_voting.results.statistics import ENOUGH_SEEDS
from fer_voting.results.table import Table

NOTHING = "–"
SPLIT_TITLES = {
    "baseline": "baseline",
    "input": "crops before the network",
    "m1": "crops after module 1",
    "m2": "crops after module 2",
    "m3": "crops after module 3",
}
INTERVAL_NOTE = (
    "The 95 % interval is over images and, from three seeds on, over seeds too (Student's t: of three seeds 4.3 "
    "standard errors); over images only, it is of these very networks and says nothing about other seeds."
)
P_NOTE = "McNemar's exact p of each seed, two-sided, and the same corrected by Holm for all p-values of the table."
COMPARISON_NOTE = (
    "Difference in percentage points, both votes on the same images and on the same weights: those of the soft vote's "
    f"best epoch, while an accuracy is of each vote's own. {INTERVAL_NOTE} {P_NOTE}"
)
UNCERTAIN = (
    "The paper's 83.26 for RAF-DB's baseline, and its differences to it, are uncertain: its digits are printed over "
    "two columns."
)
FOLDS_NOTE = (
    "Cross-validation: every image is tested once, by the run of its fold. An accuracy is over all images, ± over "
    "seeds; below `folds` is mean and standard deviation of the folds' accuracies. Comparisons are over all images of "
    "the folds that both have, with intervals and p-values over groups (people) where the images have groups; without, "
    "they take images for independent."
)
NO_TEST = "There are no test images in these runs' data, so a refit can't be tested."


# --- pieces of text ---------------------------------------------------------------------------------------------


def title(table: str, measure: str, group: RunGroup) -> str:
    """`Table 3: validation accuracy on AffectNet`, and whether data set and variant are the paper's."""
    if group.dataset not in PAPER_DATASETS:
        table += " for a data set that is not the paper's"
    elif group.variant:
        table += " under a variant that is not the paper's"
    return f"{table}: {measure} on {group.title}"


def describe(method: Method | str) -> str:
    """`crops after module 1, soft vote`; a name stays as it is."""
    if isinstance(method, str):
        return method
    split = SPLIT_TITLES.get(method.split, method.split)
    return split if method.split == "baseline" else f"{split}, {vote_title(method.vote)}"


def vote_title(vote: str) -> str:
    return f"{'softmax' if vote == 'softprob' else vote} vote"


def percent(share: float | None) -> str:
    return two_digits(None if share is None else 100 * share)


def two_digits(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def accuracy_text(accuracy: Accuracy) -> str:
    """`63.50 ± 0.21`; without an accuracy, the reason: `not run`, `failed`."""
    return mean_text(accuracy.seeds.values()) if accuracy.seeds else _reason(accuracy.missing)


def runs_text(group: RunGroup, *accuracies: Accuracy) -> str:
    """`2 of 3`: how many of the runs that are asked for gave an accuracy."""
    return f"{max(one.runs for one in accuracies)} of {len(group.seeds) * len(group.folds)}"


def mean_text(shares: Iterable[float]) -> str:
    """Mean and standard deviation (divisor n - 1) in percent: `63.50 ± 0.21`; one has no deviation, none is `–`."""
    values = [100 * share for share in shares]
    if not values:
        return NOTHING
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def _reason(missing: Mapping[str, str]) -> str:
    return next((reason.split(":")[0] for reason in missing.values() if reason != NOT_RUN), NOT_RUN)


def interval_text(comparison: Comparison) -> str:
    """`-0.10 to +2.50`, and what the interval does not cover."""
    if comparison.low is None or comparison.high is None:
        return NOTHING
    text = f"{100 * comparison.low:+.2f} to {100 * comparison.high:+.2f}"
    seeds = len(comparison.p_values)
    if seeds >= ENOUGH_SEEDS and not comparison.groups:
        return text
    return f"{text} ({interval_over(seeds, comparison.groups)})"


def interval_over(seeds: int, groups: int | None = None) -> str:
    """Whether the interval of a paired difference covers seeds besides images, or groups of images."""
    units = f"{groups:,} groups" if groups else "images"
    return f"{units} and seeds" if seeds >= ENOUGH_SEEDS else f"{units} only, {('one seed', 'two seeds')[seeds - 1]}"


def p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}".replace("e-0", "e-")


def missing_lines(missing: Iterable[Mapping[str, str]]) -> list[str]:
    """A line per reason: `not run (3): faces-m1-seed{0,2}, faces-m2-seed0`."""
    reasons = {name: reason for some in missing for name, reason in some.items()}
    by_reason: dict[str, dict[str, list[str]]] = {}  # reason -> name up to its seed -> seeds
    for name, reason in sorted(reasons.items(), key=lambda item: (item[1] != NOT_RUN, item[1])):
        start, marker, seed = name.rpartition("-seed")
        start, seed = (start + marker, seed) if marker else (name, "")
        by_reason.setdefault(reason, {}).setdefault(start, []).append(seed)

    def joined(start: str, seeds: Sequence[str]) -> str:
        return start + (seeds[0] if len(seeds) == 1 else f"{{{','.join(seeds)}}}")

    return [
        f"{reason} ({sum(map(len, starts.values()))}): {', '.join(joined(*item) for item in starts.items())}"
        for reason, starts in by_reason.items()
    ]


# --- tables -----------------------------------------------------------------------------------------------------


def accuracy_table(group: RunGroup, accuracies: Sequence[Accuracy]) -> Table:
    """A row per split, a column per vote, and the paper's value next to each where there is one."""
    by_method = {(one.method.split, one.method.vote): one for one in accuracies}
    splits, votes = (list(dict.fromkeys(key[i] for key in by_method)) for i in (0, 1))
    by_split = {split: [one for one in accuracies if one.method.split == split] for split in splits}
    rows = [[SPLIT_TITLES.get(split, split), runs_text(group, *of_split)] for split, of_split in by_split.items()]
    table = Table(["architecture", "runs"], rows)
    for vote in votes:
        column = [by_method.get((split, vote)) for split in splits]
        papers = [None if one is None else _paper_accuracy(group, one.method, one.part) for one in column]
        cells = ["" if one is None else accuracy_text(one) for one in column]
        table.add_column(vote_title(vote), cells, best=True)
        if any(one is not None and one.folds for one in column):
            cells = ["" if one is None else mean_text(one.folds.values()) for one in column]
            table.add_column(f"{vote_title(vote)}, folds", cells)
        if any(value is not None for value in papers):
            cells = ["" if one is None else two_digits(value) for one, value in zip(column, papers, strict=True)]
            table.add_column("paper", cells, best=True)
    return table


def _paper_accuracy(group: RunGroup, method: Method, part: str) -> float | None:
    """The paper's value; it tested only after refit, so other test accuracies have none."""
    if group.variant or (part == "test" and not method.refit):
        return None
    return (paper_validation_accuracy if part == "val" else paper_test_accuracy)(group.dataset, method)


def paper_note(group: RunGroup) -> str:
    """A warning about the paper's values in the tables of validation; "" if none is needed."""
    return UNCERTAIN if (group.dataset, group.variant) == ("rafdb", "") else ""


def comparison_table(group: RunGroup | None, comparisons: Sequence[Comparison]) -> Table:
    """A row per comparison: both methods, difference, interval, each seed's p; of a group the paper's difference."""
    table = Table(["", "against", "runs", "images", "difference"], [], left=2)
    for c in comparisons:
        against = describe(c.second)
        if isinstance(c.first, Method) and isinstance(c.second, Method) and c.second.split == c.first.split:
            against = vote_title(c.second.vote)
        images = NOTHING if c.images is None else f"{c.images:,}"
        difference = _reason(c.missing) if c.difference is None else f"{100 * c.difference:+.2f}"
        table.rows.append([describe(c.first), against, str(len(c.p_values)), images, difference])
    papers = [_paper_difference(group, c) if group else None for c in comparisons]
    if any(value is not None for value in papers):
        table.add_column("paper", [NOTHING if value is None else f"{value:+.2f}" for value in papers])
    table.add_column("95 % interval", [interval_text(c) for c in comparisons])
    for header, values in (("McNemar's p", "p_values"), ("Holm's p", "holm")):
        table.add_column(header, [", ".join(map(p_text, getattr(c, values).values())) or NOTHING for c in comparisons])
    return table


def _paper_difference(group: RunGroup, c: Comparison) -> float | None:
    methods = (method for method in (c.first, c.second) if isinstance(method, Method))
    first, second = (_paper_accuracy(group, method, c.part) for method in methods)
    return None if first is None or second is None else first - second


def confusion_table(counts: NDArray[np.integer], class_names: Sequence[str]) -> Table:
    """Percent of each decision among the images of an actual class: a column per actual class, as the paper's figures.

    Args:
        counts: int [K, K] (true class, decision).
        class_names: K.
    """
    percents = (100 * normalise_confusion(counts)).T
    rows = [[name, *(f"{value:.1f}" for value in row)] for name, row in zip(class_names, percents, strict=True)]
    return Table(["decision \\ actual", *class_names], rows)


def cost_table(group: RunGroup) -> Table:
    """The cost of each split, as the mean over its finished runs."""
    columns = {
        "MiB an image": ("forward_mib_per_image", 2),
        "GMACs an image": ("gmacs", 3),
        "images a second": ("images_per_second", 0),
        "seconds a run": ("seconds", 0),
        "GMACs by torch's counter": ("torch_gmacs", 3),
    }
    table = Table(["architecture"], [[SPLIT_TITLES.get(split, split)] for split in group.splits()])
    for header, (key, digits) in columns.items():
        means = [mean_cost(group.finished(split), key) for split in group.splits()]
        table.add_column(header, [NOTHING if mean is None else f"{mean:,.{digits}f}" for mean in means])
    return table
