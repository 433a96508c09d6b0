"""Records of trained networks: validation outputs and fitted votes."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.votes import AdaptiveCost, CropOutputs, Vote, known_votes


@dataclass(frozen=True)
class Validation:
    """Outputs of N validation images and their labels [N]."""

    outputs: CropOutputs
    labels: Tensor


def stored_validation(run: Run, checkpoint: Path) -> Validation | None:
    """The stored validation outputs of one of a run's checkpoints, or None.

    Raises ValueError if the file cannot be read.
    """
    try:
        arrays = read_npz(run.predictions_file(checkpoint.stem.removeprefix("best-"), "val"), "logits", "labels")
    except FileNotFoundError:
        return None
    full_map = torch.from_numpy(arrays["whole"]) if "whole" in arrays else None
    return Validation(CropOutputs(torch.from_numpy(arrays["logits"]), full_map), torch.from_numpy(arrays["labels"]))


def fit_votes(validation: Validation, cost: AdaptiveCost | None) -> dict[str, Vote]:
    """The votes that need parameters or have a temperature, fitted on validation images.

    Args:
        cost: of the network's parts, if it has a cut.
    """
    outputs = validation.outputs
    return {
        name: vote.fit(outputs, validation.labels, cost)
        for name, vote in known_votes().items()
        if (vote.needs or not vote.is_probability)
        and not (vote.needs_full_map and (not outputs.has_full_map or cost is None))
    }


def recorded_fits(run: Run, checkpoint: Path) -> dict[str, Vote]:
    """The fitted votes of a run's result.json that use one of its checkpoints."""
    epoch_vote = checkpoint.stem.removeprefix("best-")
    recorded = (run.result() or {}).get("votes", {})
    return {
        name: vote.from_values(recorded[name])
        for name, vote in known_votes().items()
        if "temperature" in recorded.get(name, {}) and not vote.is_probability and vote.epoch_vote == epoch_vote
    }
