"""Ranks of a training over several devices."""

import os

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Environment variables in which torchrun, Slurm and Lightning give a process its rank."""


def is_first_rank() -> bool:
    """Whether this process is rank 0 of its training, which writes the run's files."""
    return all(os.environ.get(variable, "0") == "0" for variable in RANK_VARIABLES)
