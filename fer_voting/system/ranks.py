"""Ranks of a training over several devices."""

import os

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "SLURM_PROCID")
"""Environment variables in which torchrun, Slurm and Lightning give a process its rank."""


def is_first_rank() -> bool:
    """Whether this process is rank 0 of its training, which writes the run's files."""
    return all(os.environ.get(variable, "0") == "0" for variable in RANK_VARIABLES)


def rank_name() -> str:
    """This process's rank; `NODE.DEVICE` of another node than the first, where only these are known."""
    if rank := next((os.environ[v] for v in ("RANK", "SLURM_PROCID") if os.environ.get(v, "0") != "0"), None):
        return rank
    node, device = (os.environ.get(variable, "0") for variable in ("NODE_RANK", "LOCAL_RANK"))
    return device if node == "0" else f"{node}.{device}"
