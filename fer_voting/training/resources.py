"""The time and memory that the jobs of a sweep need: estimates, before any of them starts."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from fer_voting.models.cost import MIB, count_gmacs, count_parameters, forward_mib_per_image
from fer_voting.models.registry import build_network
from fer_voting.system.atomic import json_digest

PROCESS_MIB = 900
"""Memory of a process that has imported torch and Lightning, with a loaded batch."""
BACKWARD = 1.5
"""Memory of a step, forward and backward, as a multiple of what the forward pass keeps."""
BYTES_PER_PARAMETER = 16
"""Weight, gradient and two moments of Adam, in float32."""


def estimate_jobs(jobs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The resources of a machine's GPUs, and of each job of a sweep.

    Args:
        jobs: of each, `model` (its node), `split`, `size` (pixels), `batch_size`, `epochs`, `precision`.

    Returns:
        gpus: the names by which CUDA_VISIBLE_DEVICES chooses each GPU;
        weights: for each job, billions of multiply-accumulates of an image times epochs, which orders jobs on one
            data set by their length; 1.0 where the network can't be made, which its job will report;
        mib: the largest estimate of a training's memory.
    """
    keys = [json_digest({key: value for key, value in job.items() if key != "epochs"}) for job in jobs]
    distinct = dict(zip(keys, jobs, strict=True))  # seeds and votes of one network need as much
    estimates = {key: _estimate(job) for key, job in distinct.items()}
    return {
        "status": "finished",
        "gpus": gpu_names(),
        "weights": [
            1.0 if (gmacs := estimates[key][0]) is None else gmacs * job["epochs"]
            for key, job in zip(keys, jobs, strict=True)
        ],
        "mib": max(mib for _, mib in estimates.values()),
    }


def gpu_names() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES chooses each GPU that this process may use."""
    visible, count = os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(i) for i in range(count)]


def _estimate(job: Mapping[str, Any]) -> tuple[float | None, float]:
    """Billions of multiply-accumulates of an image, None where the network can't be made; MiB of a training."""
    try:
        net = build_network(job["model"], job["split"], 7, job["size"])
    except (ValueError, TypeError, RuntimeError):
        return None, PROCESS_MIB
    half = "16" in str(job["precision"])
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        per_image = forward_mib_per_image(net, torch.zeros(2, 3, job["size"], job["size"]))
    states = count_parameters(net) * BYTES_PER_PARAMETER / MIB
    mib = PROCESS_MIB + states + BACKWARD * per_image * job["batch_size"]
    return count_gmacs(net, job["size"]), mib
