import pytest

from fer_voting.data.labels import CLASSES, canonical


def test_the_order_is_affectnets() -> None:
    assert CLASSES == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger", "contempt")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("anger", "anger"),
        ("Angry", "anger"),
        ("HAPPINESS", "happy"),
        ("joy", "happy"),
        ("sadness ", "sad"),
        ("Surprised", "surprise"),
        ("fearful", "fear"),
        ("disgusted", "disgust"),
        ("neutral", "neutral"),
        ("contempt", "contempt"),
        ("contemptuous", "contempt"),
    ],
)
def test_synonyms(name: str, expected: str) -> None:
    assert canonical(name) == expected


@pytest.mark.parametrize("name", ["", "3", "boredom", "not happy"])
def test_an_unknown_name_is_an_error_that_lists_the_classes(name: str) -> None:
    with pytest.raises(ValueError, match=rf"no expression is called '{name}'; the classes are neutral, happy, sad"):
        canonical(name)
