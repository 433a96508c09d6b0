"""Groups of images that a division keeps in one part: the images of a person, or of a sequence."""

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import OmegaConf

from fer_voting.data.index import NamedImages
from fer_voting.data.sampling import Positions
from fer_voting.data.tables import open_table
from fer_voting.system.conf_folders import CONF_DIR

AUTO = "auto"
NAMED = {"ckplus": "CK+", "kdef": "KDEF", "jaffe": "JAFFE"}
"""Option of `dataset` whose `pattern` reads the person from a file's name, whatever its folder -> the data set."""


@functools.cache
def _pattern(option: str) -> re.Pattern[str]:
    values = OmegaConf.load(CONF_DIR / "dataset" / f"{option}.yaml")
    return re.compile(OmegaConf.select(values, "pattern"), re.IGNORECASE)


def named_like(names: Sequence[str]) -> str | None:
    """The option of `dataset` whose data set names most of these images, which may be paths, as it does."""
    for option in NAMED:
        if sum(bool(_pattern(option).fullmatch(Path(name).name)) for name in names) > 0.5 * len(names):
            return option
    return None


def check_group(group: str | None) -> None:
    """Raises ValueError if `dataset.group` is none of the forms that `group_words` reads."""
    kind, _, rest = (group or "").partition(":")
    if kind == "folder" and not re.fullmatch(r"-?[1-9]\d*", rest):
        raise ValueError(
            f"dataset.group={group}: a folder's level is folder:1 for the first below dataset.root, folder:2, …, or "
            "folder:-1 for the folder that holds the image, folder:-2, …"
        )
    if kind == "column" and not rest:
        raise ValueError(f"dataset.group={group} names no column, e.g. column:person")
    try:
        re.compile(group or "")
    except re.error as error:
        raise ValueError(f"dataset.group={group} is no regular expression: {error}") from error


def check_folds(folds: Any, fold: Any, group: str | None, manifest: Any) -> None:
    """Raises ValueError for values of dataset.folds and dataset.fold that no data set can have."""
    if folds is None:
        if fold is not None:
            raise ValueError(f"dataset.fold={fold} needs the number of folds, e.g. dataset.folds=10")
        return
    if folds != "groups" and not (type(folds) is int and folds >= 3):
        raise ValueError(f"dataset.folds={folds} must be null, groups or at least 3: one tests, one validates")
    if folds == "groups" and group is None:
        raise ValueError("dataset.folds=groups needs the groups: dataset.group=… says of which each image is")
    if fold is not None and not (type(fold) is int and fold >= 0):
        raise ValueError(f"dataset.fold={fold} must be 0 or more")
    if fold is None and folds != "groups":
        raise ValueError(
            f"dataset.folds={folds} needs dataset.fold=0 to {folds - 1}, all of them with -m: range({folds})"
        )
    if manifest is not None:
        raise ValueError("dataset.folds and dataset.manifest both divide the data: leave one out")


def group_words(group: str, names: Sequence[str], base: Path | None) -> list[str] | None:
    """The group of each image; "" for an image that is a group of its own. None if `auto` knows no group.

    Args:
        group: `folder:N`: the N-th folder of the name, from the end if negative. `column:NAME`: a column of the CSV
            files in `base` and in its folders, which list images. `auto`: the person, if the images are named as in
            CK+, KDEF or JAFFE. Else a regular expression that is searched for in the name: the group is the first of
            its groups that takes part in the match, without any the whole match; a group called `person` goes before.
        names: the images' paths below `base`.

    Raises ValueError that names the first image without a group and their number.
    """
    kind, _, rest = group.partition(":")
    words: list[str | None]
    advice = ""
    if group == AUTO:
        if (known := named_like(names)) is None:
            return None
        matches = (_pattern(known).fullmatch(Path(name).name) for name in names)
        return [match["person"].lower() if match else "" for match in matches]
    if kind == "folder":
        level = int(rest)
        place = level - 1 if level > 0 else level
        folders = [name.split("/")[:-1] for name in names]
        words = [parts[place] if -len(parts) <= place < len(parts) else None for parts in folders]
    elif kind == "column":
        words = _words_of_column(rest, names, base)
        advice = "; an empty cell makes an image a group of its own"
    else:
        words = [_word(match) if (match := re.search(group, name)) else None for name in names]
        advice = f"; with {group}|$, which then matches nothing, each is a group of its own"
    if without := [name for name, word in zip(names, words, strict=True) if word is None]:
        raise ValueError(
            f"dataset.group={group} gives no group for {len(without):,} of {len(names):,} images, e.g. {without[0]}"
            + advice
        )
    return [word or "" for word in words]


def _word(match: re.Match[str]) -> str | None:
    if "person" in match.re.groupindex:
        return match["person"]
    return next((group for group in match.groups() if group is not None), match[0])


def _words_of_column(column: str, names: Sequence[str], base: Path | None) -> list[str | None]:
    """The cell of each image in a column; None for an image that no row names.

    The first cell of a row that is an image's path below `base`, or the end of exactly one, with or without its
    suffix, names the image.
    """
    tables = [] if base is None else sorted({*base.glob("*.csv"), *base.glob("*/*.csv")})
    known: dict[str, None] = {}
    whole, stems = NamedImages(names), NamedImages([os.path.splitext(name)[0] for name in names])
    words: list[str | None] = [None] * len(names)
    for path in tables:
        with open_table(path, (column,)) as table:
            known |= dict.fromkeys(table.columns)
            if column not in table.columns:
                continue
            place = table.columns.index(column)
            for row in table:
                cells = row[:place] + row[place + 1 :]
                # Whole names first, so that the number of a row is not taken for the image of that name.
                named = ((cell, whole.find(cell)) for cell in cells)
                cut = ((cell, stems.find(cell) or stems.find(os.path.splitext(cell)[0])) for cell in cells)
                cell, images = next((found for found in (*named, *cut) if found[1]), ("", []))
                if len(images) > 1:
                    raise ValueError(
                        f"{path.name}: {cell.strip()} names both {names[images[0]]} and {names[images[1]]}: "
                        "give their paths below dataset.root"
                    )
                if not images or place >= len(row):
                    continue
                image, word = images[0], row[place].strip()
                if words[image] not in (None, word):
                    raise ValueError(f"{path.name} gives {names[image]} the {column} {words[image]} and {word}")
                words[image] = word
    if column not in known:
        there = f"their columns are {', '.join(known)}" if known else f"there is none in {base}"
        raise ValueError(f"dataset.group=column:{column}: no CSV file has this column; {there}")
    return words


def groups_between(division: Mapping[str, Positions], words: Sequence[str]) -> dict[str, list[str]]:
    """Pair of parts, e.g. "train-test" -> the groups with images in both, sorted; without pairs of none.

    Args:
        words: group of each row of the pack.
    """
    of_part = {part: {words[row] for row in rows.tolist()} - {""} for part, rows in division.items()}
    pairs: Iterator[tuple[str, str]] = combinations(of_part, 2)
    shared = {f"{one}-{other}": sorted(of_part[one] & of_part[other]) for one, other in pairs}
    return {pair: groups for pair, groups in shared.items() if groups}


def number_groups(words: Sequence[str], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place of each image's group among the groups sorted by name: int64 [n].

    Args:
        words: group of each image.
        groups: int64 [n], numbers of the groups that stay together (`sampling.join_groups`): groups with copies of one
            image are one, under the first of their names.

    Raises ValueError if an image is a group of its own.
    """
    if own := words.count(""):
        raise ValueError(f"dataset.folds=groups: {own:,} of {len(words):,} images have no group that can be left out")
    first: dict[int, str] = {}
    for group, word in zip(groups.tolist(), words, strict=True):
        first[group] = min(word, first.get(group, word))
    places = {group: place for place, group in enumerate(sorted(first, key=first.__getitem__))}
    return np.array([places[group] for group in groups.tolist()])
