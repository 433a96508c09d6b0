"""Figures as tables of text, for Markdown and for HTML: percent with two digits, differences in percentage points."""

from collections.abc import Iterable, Mapping, Sequence

from fer_voting.results.compare import Comparison, Figure, Judge
from fer_voting.results.load import NOT_RUN, Section
from fer_voting.results.markdown import Table
from fer_voting.results.paper import PAPER_DATASETS, paper_test_accuracy, paper_validation_accuracy

__all__ = [
    "NO_CORRECTION",
    "NO_TEST",
    "accuracy_table",
    "comparison_table",
    "cost_table",
    "describe",
    "figure_text",
    "hole_lines",
    "p_text",
    "percent",
    "title",
    "two_digits",
]

NOTHING = "–"
VOTE_TITLES = {"soft": "soft vote", "hard": "hard vote", "softprob": "softmax vote"}
SPLIT_TITLES = {
    "baseline": "baseline",
    "input": "crops before the network",
    "m1": "crops after module 1",
    "m2": "crops after module 2",
    "m3": "crops after module 3",
}
NO_CORRECTION = (
    "Difference in percentage points with its 95 % bootstrap interval over images and seeds; McNemar's exact p of each "
    "seed, two-sided, not corrected for the number of comparisons."
)
NO_TEST = "There are no test images in these runs' data, so there is nothing to judge a refit on."


# --- pieces of text ---------------------------------------------------------------------------------------------


def title(what: str, measure: str, section: Section) -> str:
    """`Table 3: validation accuracy on AffectNet`; of another data set or setting than the paper's, it says so."""
    if section.dataset not in PAPER_DATASETS:
        what += " for a data set that is not the paper's"
    elif section.setting:
        what += " under a setting that is not the paper's"
    return f"{what}: {measure} on {section.title}"


def describe(judge: Judge) -> str:
    split = SPLIT_TITLES.get(judge.split, judge.split)
    return split if judge.split == "baseline" else f"{split}, {VOTE_TITLES.get(judge.vote, judge.vote)}"


def percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.2f}"


def figure_text(figure: Figure) -> str:
    """`63.50 ± 0.21`; with nothing to say, why: `not run`, `failed`."""
    if figure.mean is None:
        return _why(figure.holes)
    return percent(figure.mean) if figure.std is None else f"{percent(figure.mean)} ± {percent(figure.std)}"


def _why(holes: Mapping[str, str]) -> str:
    reasons = [reason.split(":")[0] for reason in holes.values() if reason != NOT_RUN]
    return reasons[0] if reasons else NOT_RUN


def p_text(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.0e}".replace("e-0", "e-")


def hole_lines(holes: Iterable[Mapping[str, str]]) -> list[str]:
    """A line a reason: `not run (3): faces-m1-seed{0,2}, faces-m2-seed0`."""
    reasons: dict[str, list[str]] = {}
    together = {name: reason for some in holes for name, reason in some.items()}
    for name, reason in sorted(together.items(), key=lambda item: (item[1] != NOT_RUN, item[1])):
        reasons.setdefault(reason, []).append(name)
    return [f"{reason} ({len(names)}): {', '.join(_by_seed(names))}" for reason, names in reasons.items()]


def _by_seed(names: Iterable[str]) -> list[str]:
    seeds: dict[str, list[str]] = {}
    for name in names:
        start, _, seed = name.rpartition("-seed")
        seeds.setdefault(start, []).append(seed)
    return [
        f"{start}-seed{{{','.join(of_start)}}}"
        if len(of_start) > 1
        else f"{start}-seed{of_start[0]}".removeprefix("-seed")
        for start, of_start in seeds.items()
    ]


# --- tables -----------------------------------------------------------------------------------------------------


def accuracy_table(section: Section, figures: Sequence[Figure]) -> Table:
    """A row a split, a column a vote, the paper's value beside ours where it has one."""
    of = {(figure.judge.split, figure.judge.vote): figure for figure in figures}
    splits = list(dict.fromkeys(split for split, _ in of))
    votes = list(dict.fromkeys(vote for _, vote in of))
    header, columns = ["architecture", "runs"], []
    for vote in votes:
        papers = {
            split: _paper_accuracy(section, of[split, vote].judge, of[split, vote].stage)
            for split in splits
            if (split, vote) in of
        }
        header.append(VOTE_TITLES.get(vote, vote))
        columns.append([figure_text(of[split, vote]) if (split, vote) in of else "" for split in splits])
        if any(value is not None for value in papers.values()):
            header.append("paper")
            columns.append([two_digits(papers[split]) if split in papers else "" for split in splits])
    rows = []
    for i, split in enumerate(splits):
        runs = max(len(figure.seeds) for (of_split, _), figure in of.items() if of_split == split)
        rows.append([SPLIT_TITLES.get(split, split), f"{runs} of {len(section.seeds)}", *(c[i] for c in columns)])
    return Table(header, rows)


def _paper_accuracy(section: Section, judge: Judge, stage: str) -> float | None:
    """The paper judged on test after refit only, so that nothing else stands beside its figures."""
    if section.setting or (stage == "test" and not judge.refit):
        return None
    return (paper_validation_accuracy if stage == "val" else paper_test_accuracy)(section.dataset, judge)


def two_digits(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def comparison_table(section: Section, comparisons: Sequence[Comparison]) -> Table:
    """A row a comparison: who against whom, difference, interval, p of each seed, and the paper's difference."""
    rows, papers = [], []
    for c in comparisons:
        names = [describe(c.first), _against(c)]
        if c.difference is None or c.low is None or c.high is None:
            rows.append([*names, "0", NOTHING, _why(c.holes), NOTHING, NOTHING])
        else:
            rows.append(
                [
                    *names,
                    str(len(c.p_values)),
                    f"{c.images:,}",
                    f"{100 * c.difference:+.2f}",
                    f"{100 * c.low:+.2f} to {100 * c.high:+.2f}",
                    ", ".join(p_text(p) for p in c.p_values.values()),
                ]
            )
        papers.append(_paper_difference(section, c))
    header = ["", "against", "runs", "images", "difference", "95 % interval", "McNemar's p"]
    if any(value is not None for value in papers):
        header.insert(5, "paper")
        for row, value in zip(rows, papers, strict=True):
            row.insert(5, NOTHING if value is None else f"{value:+.2f}")
    return Table(header, rows, left=2)


def _against(c: Comparison) -> str:
    return VOTE_TITLES[c.second.vote] if c.second.split == c.first.split else describe(c.second)


def _paper_difference(section: Section, c: Comparison) -> float | None:
    first, second = (_paper_accuracy(section, judge, c.stage) for judge in (c.first, c.second))
    return None if first is None or second is None else first - second


def cost_table(section: Section) -> Table:
    """What each split costs, as its finished runs measured it: the mean over them."""
    rows = []
    for split in section.splits():
        results = [record.result for record in section.finished(split)]
        cells = [SPLIT_TITLES.get(split, split)]
        for key, digits in (("forward_mib_per_image", 2), ("gmacs", 3), ("images_per_second", 0), ("seconds", 0)):
            values = [result[key] for result in results if result[key] is not None]
            cells.append(f"{sum(values) / len(values):,.{digits}f}" if values else NOTHING)
        rows.append(cells)
    return Table(["architecture", "MiB an image", "GMACs an image", "images a second", "seconds a run"], rows)
