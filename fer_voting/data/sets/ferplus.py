"""FER+ (Barsoum et al. 2016, arXiv:1608.01041): FER2013's images with the votes of ten raters each."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fer_voting.data.files import Layout
from fer_voting.data.index import Index, LeftOut, Problem, Sample
from fer_voting.data.labels import CLASSES, canonical
from fer_voting.data.sets.fer2013 import FILES, FER2013DataModule, csv_file, csv_files, parse_row, proper_usage, rows
from fer_voting.data.tables import Row, file_in, open_table, whole_number
from fer_voting.targets import RaterVotes, Target

VOTES_FILE = "fer2013new.csv"
VOTE_COLUMNS = (*CLASSES, "unknown", "NF")
_OTHER_COLUMNS = ("Usage", "Image name")
_COLUMNS = (*_OTHER_COLUMNS, *VOTE_COLUMNS)
_REJECTED = {"unknown": "most raters saw no emotion", "NF": "most raters saw no face"}


def votes_file(base: Path) -> Path | None:
    """The csv of votes in a folder."""
    return file_in(base, VOTES_FILE)


def raw_votes(path: Path) -> tuple[list[str], NDArray[np.uint8]]:
    """`Usage` and the votes of each row of fer2013new.csv, which are those of FER2013's csv: uint8 [N, 10].

    Columns are the eight classes, unknown, and not a face. Nothing is left out as an outlier. A row without an image
    name is not a face, and has no votes here.

    Raises ValueError if the file is not FER+'s.
    """
    usages, votes = [], []
    with open_table(path, _COLUMNS) as table:
        for number, row in enumerate(table.by_column()):
            try:
                counts = _counts(row)
                usages.append(proper_usage(row["Usage"]) or "")
            except (KeyError, ValueError) as error:
                raise ValueError(f"{path}, row {number}: votes: {error}") from error
            votes.append(counts if row.get("Image name") else [0] * len(counts))
    return usages, np.array(votes, np.uint8).reshape(-1, len(VOTE_COLUMNS))


def strict_majority(votes: NDArray[np.uint8], classes: int = 7) -> NDArray[np.int64]:
    """The class that got more than half of all votes for a face, as its position in CLASSES; -1 where none did: [N].

    Args:
        votes: of `raw_votes`, [N, 10].
        classes: the first so many of CLASSES; a majority for another column is -1.
    """
    winners = votes.argmax(axis=1)
    strict = 2 * votes.max(axis=1).astype(np.int64) > votes.sum(axis=1, dtype=np.int64)
    return np.where(strict & (winners < classes), winners, -1)


def _counts(row: Row) -> list[int]:
    """The votes for VOTE_COLUMNS. Raises KeyError or ValueError for a missing or unknown column or a wrong number."""
    if None in row:
        raise ValueError("more cells than columns")
    votes = {
        name if name in _REJECTED else canonical(name): whole_number(cell or "0")
        for name, cell in row.items()
        if name is not None and name not in _OTHER_COLUMNS
    }
    if wrong := [count for count in votes.values() if not 0 <= count <= 255]:
        raise ValueError(f"{wrong[0]} raters")
    return [votes[name] for name in VOTE_COLUMNS]


def read_votes(base: Path) -> Index:
    """Every face of FER2013's csv in `base`, labelled by its most frequent vote.

    Row i of one file belongs to row i of the other; FER+'s image names are not used.

    Raises ValueError if the files have different numbers of rows, or if 100 faces in a row agree by chance only.
    """
    path, votes_path = csv_file(base), votes_file(base)
    assert path is not None
    assert votes_path is not None
    index, agreement = Index(), _Agreement(path, votes_path)
    index.use(path, votes_path)
    with open_table(votes_path, _COLUMNS) as table:
        for numbered, votes in itertools.zip_longest(rows(path), table.by_column()):
            if numbered is None or votes is None:
                raise ValueError(f"{path} and {votes_path} have different numbers of rows: they belong together")
            face = parse_row(path, *numbered)
            result = _label(face, numbered[1], votes, f"{votes_path}, row {numbered[0]}")
            if isinstance(face, Sample) and isinstance(result, Sample):
                agreement.add(numbered[0], face.label == result.label)
            index.add(result)
    agreement.judge()
    return index


class _Agreement:
    """Compares the two labels of each face by blocks of consecutive rows: rows that have moved agree by chance.

    In blocks of 100 faces, 52 % to 75 % of FER2013's labels are FER+'s; 31 % at most if one file is a row behind.
    The last block overlaps the one before it.
    """

    BLOCK, LEAST = 100, 0.4

    def __init__(self, path: Path, votes_path: Path) -> None:
        self.path, self.votes_path = path, votes_path
        self.agree: list[bool] = []
        self.row = 0

    def add(self, row: int, agrees: bool) -> None:
        self.agree.append(agrees)
        self.row = row
        if len(self.agree) % self.BLOCK == 0:
            self.judge()

    def judge(self) -> None:
        """Raises ValueError if the labels of the last BLOCK faces do not agree; fewer faces say nothing."""
        share = sum(self.agree[-self.BLOCK :]) / self.BLOCK
        if len(self.agree) >= self.BLOCK and share < self.LEAST:
            raise ValueError(
                f"{self.path} and {self.votes_path} do not belong together: up to row {self.row}, only {share:.0%} of "
                f"{self.BLOCK} labels agree, which is chance; rows were removed or moved in one of them"
            )


def _label(face: Sample | Problem, row: Row, votes: Row, where: str) -> Sample | Problem | LeftOut:
    if isinstance(face, Problem):
        return face
    if proper_usage(votes.get("Usage")) != proper_usage(row["Usage"]):
        return Problem("row", where, f"Usage {votes.get('Usage')!r} where FER2013 has {row['Usage']!r}")
    if not votes.get("Image name"):
        return LeftOut("not a face")
    try:
        # A single vote is an outlier (Barsoum et al., section 3).
        counts = tuple(count if count > 1 else 0 for count in _counts(votes))
    except (KeyError, ValueError) as error:
        return Problem("row", where, f"votes: {error}")
    winner = VOTE_COLUMNS[int(np.argmax(counts))]
    if winner in _REJECTED:
        return LeftOut(_REJECTED[winner])
    return replace(face, label=winner, columns={"votes": counts, "fer2013_class": CLASSES.index(face.label)})


class FERPlusDataModule(FER2013DataModule):
    """FER2013's parts with FER+ labels.

    Args:
        targets: `majority` uses images on which more than half of the votes agree, for training and evaluation;
            `votes` uses all images whose most frequent vote is a class, and trains with the classes' shares of the
            votes.
        label_share: share of FER2013's own label in each training target, 0 to 1; FER+'s has the rest.
        files: see FilesDataModule.
    """

    layouts: tuple[Layout, ...] = (
        Layout(
            "csv",
            f"{' or '.join(FILES)}, together with {VOTES_FILE}",
            find=lambda root: root if csv_file(root) and votes_file(root) else None,
            read=lambda base, _: read_votes(base),
            sources=lambda base: [*csv_files(base), *filter(None, [votes_file(base)])],
            columns=("votes", "fer2013_class"),
        ),
    )
    class_choices: ClassVar = (7, 8)

    def __init__(self, *, targets: str = "majority", label_share: float = 0.0, **files: Any) -> None:
        super().__init__(**files)
        if targets not in ("majority", "votes"):
            raise ValueError(f"dataset.targets={targets} must be majority or votes")
        if not 0 <= label_share <= 1:
            raise ValueError(f"dataset.label_share={label_share} must be from 0 to 1")
        if any(label is not None for label in self.class_map.values()):
            raise ValueError("dataset.class_map can only leave out classes of FER+ (null): its votes have fixed names")
        self.targets, self.label_share = targets, label_share

    def own_target(self) -> Target:
        return RaterVotes(majority=self.targets == "majority", label_share=self.label_share, order=VOTE_COLUMNS)
