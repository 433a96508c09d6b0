"""Train a network, or a sweep of them: `python -m fer_voting.train [-m] [group=option] [key=value] ...`.

`fer_voting.experiment.train` does it, once the configuration is composed.
"""

import os

from fer_voting.config import command


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports each sweep to its makers otherwise
    command("fer_voting.runs.processes:job")


if __name__ == "__main__":
    main()
