"""Text of a limited length."""

import pytest

from fer_voting.system.text import shortened


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [("m1", 2, "m1"), ("a" * 40, 40, "a" * 40), ("beginning-middle-end", 9, "begi…-end"), ("abcdef", 4, "a…f")],
)
def test_a_long_text_keeps_its_ends(text: str, most: int, expected: str) -> None:
    assert shortened(text, most) == expected
