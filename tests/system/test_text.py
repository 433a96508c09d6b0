"""Text and file names of a limited length."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fer_voting
from fer_voting.system.text import counted, fitting, shortened


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [("m1", 2, "m1"), ("a" * 40, 40, "a" * 40), ("beginning-middle-end", 9, "begi…-end"), ("abcdef", 4, "a…f")],
)
def test_a_long_text_keeps_its_ends(text: str, most: int, expected: str) -> None:
    assert shortened(text, most) == expected


def test_one_has_no_plural() -> None:
    assert [counted(n, "image") for n in (0, 1, 2000)] == ["0 images", "1 image", "2,000 images"]
    assert [counted(n, "file", "lies/lie") for n in (1, 2)] == ["1 file lies", "2 files lie"]


def test_no_message_counts_by_hand() -> None:
    """A number that is the length of something may be 1; a share of a whole (`of 1 images`) is left out."""
    by_hand = re.compile(
        r"(?<!of )\{(len\([^{}]*\)|[\w.]*(?<![a-z])(count|number))(:,)?\} (\{part\} )?"
        r"(images|jobs|runs|packs|groups|files|faces|epochs|trials|rows)\b"
    )
    folder = Path(fer_voting.__file__).parent
    assert [
        f"{path}: {line.strip()}"
        for path in folder.rglob("*.py")
        for line in path.read_text().splitlines()
        if by_hand.search(line)
    ] == []


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=300))
def test_any_name_fits_into_a_folder(name: str):
    if name in (".", ".."):
        return
    path = fitting(Path("folder") / name)
    assert 0 < len(os.fsencode(path.name)) <= 255
    assert path.parent == Path("folder")
    if len(os.fsencode(name)) <= 255:
        assert path.name == name


def test_long_names_stay_different_and_keep_their_suffix():
    first, second = (fitting(Path("笑" * 100 + f"{number}.png")) for number in (1, 2))
    assert first != second
    assert first.suffix == second.suffix == ".png"
    assert first.name.startswith("笑" * 70)
    assert len(os.fsencode(fitting(Path("a." + "b" * 300)).name)) == 255
