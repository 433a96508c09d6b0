"""The order of the expression classes, and the names that data sets use for them.

Every data set numbers the same seven expressions differently. So a label is a name in every interface (index, pack,
manifest, checkpoint, result); it is a number only between a data set's `class_names` and the loss.
"""

import difflib
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

# AffectNet's ids; the first seven are the classes of the paper and of RAF-DB, FER2013 and the drawn faces.
CLASSES: tuple[str, ...] = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")

_SYNONYMS = {
    "happiness": "happy",
    "joy": "happy",
    "sadness": "sad",
    "surprised": "surprise",
    "fearful": "fear",
    "disgusted": "disgust",
    "angry": "anger",
    "contemptuous": "contempt",
}
_SUGGESTED = {
    **dict.fromkeys(("afraid", "scared", "terrified", "frightened"), "fear"),
    **dict.fromkeys(("mad", "furious", "rage"), "anger"),
    **dict.fromkeys(("joyful", "smile", "smiling", "glad"), "happy"),
    **dict.fromkeys(("unhappy", "crying", "sorrow"), "sad"),
    **dict.fromkeys(("amazed", "astonished", "shocked"), "surprise"),
    **dict.fromkeys(("neutrality", "calm", "normal", "natural"), "neutral"),
    **dict.fromkeys(("disdain", "scorn"), "contempt"),
}
"""Words that may mean an expression; whether they do, the user says."""


def canonical(name: str) -> str:
    """The canonical name of an expression in any case: `canonical("Happiness") == "happy"`.

    Raises ValueError if `name` is no synonym of any class.
    """
    plain = name.strip().lower()
    if plain in CLASSES:
        return plain
    if plain in _SYNONYMS:
        return _SYNONYMS[plain]
    raise ValueError(f"no expression is called {name!r}; the classes are {', '.join(CLASSES)}")


def canonical_or_own(name: str) -> str:
    """The canonical name of an expression; any other name as it is."""
    try:
        return canonical(name)
    except ValueError:
        return name


def suggestions(names: Iterable[str]) -> dict[str, str]:
    """The names that are no expression, but may mean one, e.g. misspelt: name -> class.

    >>> suggestions(["suprise", "0_Angry", "afraid", "tired", "happy"])
    {'suprise': 'surprise', '0_Angry': 'anger', 'afraid': 'fear'}
    """
    words = {**{name: name for name in CLASSES}, **_SYNONYMS, **_SUGGESTED}
    meant = {}
    for name in names:
        plain = re.sub(r"[\W\d_]+", "", name.lower())
        close = difflib.get_close_matches(plain, words, n=1, cutoff=0.8)
        if close and canonical_or_own(name) not in CLASSES:
            meant[name] = words[close[0]]
    return meant


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """These names without repetition: expressions in the order of CLASSES, then the others by name."""
    rest = set(names)
    return (*(name for name in CLASSES if name in rest), *sorted(rest.difference(CLASSES)))


def read_class_map(given: Mapping[Any, str | None] | str | None) -> dict[str, str | None]:
    """`dataset.class_map` as names by name, from a mapping or its text in YAML. Raises ValueError for anything else."""
    names: Any = given or {}
    try:
        names = yaml.load(names, yaml.BaseLoader) if isinstance(names, str) else names
    except yaml.YAMLError:
        names = None
    if not isinstance(names, Mapping) or any(isinstance(label, Mapping | list) for label in names.values()):
        raise ValueError(f"dataset.class_map={given} must be names by name: {{afraid: fear, contempt: null}}")
    return {str(name): None if label in (None, "null", "~", "") else str(label) for name, label in names.items()}


def as_class_map(names: Mapping[str, str | None]) -> str:
    """`'dataset.class_map={afraid: fear, contempt: null}'`, as it is typed into a shell.

    >>> print(as_class_map({"afraid": "fear", "Ahegao (2)": None}))
    'dataset.class_map={afraid: fear, Ahegao (2): null}'
    """
    text = yaml.safe_dump(dict(names), default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf)
    return shlex.quote(f"dataset.class_map={text.strip()}")
