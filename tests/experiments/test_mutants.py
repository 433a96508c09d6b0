"""The summary of a mutation run, of lines as mutmut 3.8 prints them; the run itself takes an hour."""

import pytest

from experiments.mutants import by_module, read_results

PRINTED = """\
    fer_voting.votes.x_soft_vote__mutmut_1: killed
    fer_voting.votes.x_soft_vote__mutmut_2: survived
    fer_voting.votes.x_soft_vote__mutmut_3: timeout
    fer_voting.votes.x_hard_vote__mutmut_1: no tests
    fer_voting.runs.run.xǁRunǁstatus__mutmut_1: killed
"""


def test_a_row_a_module_and_one_of_all() -> None:
    rows = [line.strip("|").replace(" ", "").split("|") for line in by_module(read_results(PRINTED)).splitlines()]
    assert rows[2:] == [
        ["fer_voting.runs.run", "1", "1", "100.0"],
        ["fer_voting.votes", "4", "2", "50.0"],
        ["all", "5", "3", "60.0"],
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [(PRINTED + "    fer_voting.votes.x_soft_vote__mutmut_4: not checked\n", "1 of 6 mutants"), ("", "no results")],
)
def test_a_run_that_is_not_whole_is_no_result(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        by_module(read_results(text))
