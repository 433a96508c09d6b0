import time

import pytest
import torch

from fer_voting.training.estimate import use_fastest


def step_of(milliseconds: dict[int, float]):
    """A step that takes a time of its own with each number of threads, and returns it."""

    def step() -> float:
        start = time.perf_counter()
        time.sleep(milliseconds[torch.get_num_threads()] / 1000)
        return time.perf_counter() - start

    return step


@pytest.fixture(autouse=True)
def as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_fewer_threads_are_taken_where_they_gain_much(messages: pytest.LogCaptureFixture):
    use_fastest("x", (4, 2, 1), step_of({4: 40, 2: 8, 1: 2}))
    assert torch.get_num_threads() == 1
    assert "x: trains with 1 of 4 threads" in messages.text


def test_all_threads_are_taken_where_fewer_gain_little(messages: pytest.LogCaptureFixture):
    use_fastest("x", (4, 2, 1), step_of({4: 20, 2: 18, 1: 30}))
    assert torch.get_num_threads() == 4
    assert not messages.text


def test_a_single_choice_costs_no_step():
    use_fastest("x", (1,), lambda: pytest.fail("timed"))
