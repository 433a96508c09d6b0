"""The one order of the expression classes, and the names that data sets use for them.

The same seven names have a different order in every data set, and ids that are passed on without their names cost
accuracy silently. So a label is a name wherever it crosses a border (index, pack, manifest, checkpoint, result),
and a number only between a data set's `class_names` and the loss.
"""

__all__ = ["CLASSES", "canonical"]

# AffectNet's ids; the first seven are the classes of the paper and of RAF-DB, FER2013 and the drawn faces.
CLASSES: tuple[str, ...] = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")

_SYNONYMS = {
    "neutral": (),
    "happy": ("happiness", "joy"),
    "sad": ("sadness",),
    "surprise": ("surprised",),
    "fear": ("fearful",),
    "disgust": ("disgusted",),
    "anger": ("angry",),
    "contempt": ("contemptuous",),
}
_CANONICAL = {synonym: name for name in CLASSES for synonym in (name, *_SYNONYMS[name])}


def canonical(name: str) -> str:
    """The canonical name of an expression, whatever its case: `canonical("Happiness") == "happy"`.

    Raises:
        ValueError: `name` is no synonym of any class.
    """
    try:
        return _CANONICAL[name.strip().lower()]
    except KeyError:
        raise ValueError(f"no expression is called {name!r}; the classes are {', '.join(CLASSES)}") from None
