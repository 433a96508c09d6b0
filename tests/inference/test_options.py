"""Options of prediction that exclude or need each other."""

from pathlib import Path

import PIL.Image
import pytest

from fer_voting.inference.options import PredictOptions
from fer_voting.predict import main, parser


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"every": 0}, r"`every` \(=0\) must be at least 1"),
        ({"smooth": 0.5}, "--smooth needs --track"),
        ({"summary": "out"}, "--summary needs --track"),
        ({"track": True, "smooth_centred": True}, "--smooth-centred needs --smooth SECONDS"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, reason: str):
    with pytest.raises(ValueError, match=reason):
        PredictOptions(**options)


def test_the_commands_defaults_are_these(tmp_path: Path):
    parsed = vars(parser().parse_args(["a.jpg"]))
    assert {name: parsed[name] for name in vars(PredictOptions())} == vars(PredictOptions())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["a.jpg", "--show"], "error: --show is for --camera"),
        (["https://example.org/a.jpg"], "error: https:/example.org/a.jpg is an address, and only files are read"),
        (
            ["a.png", "--aligned", "--model", "https://huggingface.co/o/m"],
            "error: https://huggingface.co/o/m is an address",
        ),
    ],
)
def test_mistakes_end_the_command_with_a_line(
    words: list[str], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    PIL.Image.new("RGB", (9, 9)).save("a.png")
    with pytest.raises(SystemExit) as end:
        main(words)
    assert str(end.value.code).startswith(reason)
