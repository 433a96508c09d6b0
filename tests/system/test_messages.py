"""Messages that a user of a command reads."""

import subprocess
import sys
import time

import pytest
from helpers.train import REPO

from fer_voting.system.messages import duration, progress_bar

WARNING_OF_A_LIBRARY = """
import logging, warnings
from fer_voting.system.messages import set_up_messages
set_up_messages()
set_up_messages()
warnings.warn_explicit("precision is\\n  not supported", UserWarning, "/somewhere/library.py", 42)
logging.getLogger("fer_voting.train").info("a message")
"""


def test_a_warning_is_one_plain_line_on_stderr():
    command = [sys.executable, "-c", WARNING_OF_A_LIBRARY]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stderr == "warning: precision is not supported\na message\n"
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(40.4, "40 s"), (89.4, "89 s"), (90, "2 min"), (720, "12 min"), (11_100, "3 h 05 min")]
)
def test_duration(seconds: float, text: str):
    assert duration(seconds) == text


def test_progress_in_a_log_file_is_a_first_and_a_last_line(capsys: pytest.CaptureFixture[str]):
    for _ in progress_bar(range(50)):
        time.sleep(0.01)
    drawn = capsys.readouterr().err.split("\r")[1:]
    assert ["0/50" in drawn[0], "50/50" in drawn[-1], len(drawn)] == [True, True, 2]
