"""Where a result was measured."""

import subprocess

from helpers.train import REPO

from fer_voting.system.environment import git_commit


def test_the_commit_is_that_of_the_checkout() -> None:
    head = subprocess.run(["git", "-C", str(REPO), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    commit = git_commit()
    assert commit is not None
    assert head.stdout.startswith(commit.removesuffix("+changes"))
