"""The order of the expression classes, and the names that data sets use for them.

Every data set numbers the same seven expressions differently. So a label is a name in every interface (index, pack,
manifest, checkpoint, result); it is a number only between a data set's `class_names` and the loss.
"""

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
