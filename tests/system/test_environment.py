"""Where a result was measured."""

import subprocess

import pytest
import torch
from helpers.train import REPO

from fer_voting.system import machine
from fer_voting.system.environment import git_commit, keep_to_usable_cores


def test_the_commit_is_that_of_the_checkout() -> None:
    head = subprocess.run(["git", "-C", str(REPO), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    commit = git_commit()
    assert commit is not None
    assert head.stdout.startswith(commit.removesuffix("+changes"))


def test_a_quota_limits_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    monkeypatch.setattr(machine, "usable_cores", lambda: 1)
    keep_to_usable_cores()
    assert torch.get_num_threads() == 1
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    keep_to_usable_cores()
    assert torch.get_num_threads() == 1  # what was chosen before stays
