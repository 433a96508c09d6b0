"""Train a network, or a sweep of them: `python -m fer_voting.train [-m] [group=option] [key=value] ...`.

`fer_voting.experiment.train` does it, once the configuration is composed.
"""

import os
import sys
from types import ModuleType
from typing import Any

from fer_voting.config import command


def main() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray reports each sweep to its makers otherwise
    command("fer_voting.runs.processes:job")


class _Callable(ModuleType):
    """This module, called as the function of its name: once it is imported, `from fer_voting import train` gives it."""

    def __call__(self, config: Any) -> dict[str, Any]:
        from fer_voting.experiment import train

        return train(config)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    main()
