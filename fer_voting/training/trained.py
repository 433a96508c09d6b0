"""Trained networks: loaded for evaluation under any split, and what their runs recorded of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fer_voting.data.manifest import manifest_hashes
from fer_voting.data.module import FERDataModule
from fer_voting.data.sampling import Positions
from fer_voting.models.adaptive import AdaptiveCost, fit_adaptive
from fer_voting.models.checkpoint import load_weights
from fer_voting.models.registry import rebuild_network
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.training.initialise import initialise
from fer_voting.training.module import VotingModule
from fer_voting.votes import ALL_VOTES, SHARES, Fitted, fit_vote, vote_of_epoch


def load_module(
    path: Path, class_names: Sequence[str], dataset: str, split: str | None = None
) -> tuple[VotingModule, list[str]]:
    """The network of a checkpoint, with outputs for these classes, and the names of its other classes.

    Its classes are matched with `class_names` by name. For the others it has no output, so that it cannot decide for
    them.

    Args:
        class_names: of the data set `dataset`, in order.
        split: crop position, the checkpoint's if None. The parameters are the same for every split.

    Raises ValueError if the network lacks one of the classes.
    """
    _, info = load_weights(path)
    names_before = info.class_names
    info = replace(info, split=split or info.split, class_names=tuple(class_names), dataset=dataset)
    net = rebuild_network(info)
    try:
        matched = initialise(net, class_names, path)
    except ValueError as error:
        reason = str(error).partition("; init_missing_classes")[0]
        raise ValueError(f"{reason}: it cannot be evaluated on {dataset}") from error
    left_out = [name for name in names_before if name not in matched.values()]
    return VotingModule(net, torch.optim.Adam, info), left_out  # the optimizer is not used


@dataclass(frozen=True)
class Validation:
    """Logits of validation images: crops [N, V, K], labels [N], and whole maps [N, K] if the network has a cut."""

    logits: Tensor
    labels: Tensor
    whole: Tensor | None


def stored_validation(run: Run, checkpoint: Path) -> Validation | None:
    """What a run's folder keeps of its validation images by one of its checkpoints, None if that is nothing.

    Raises ValueError if the file cannot be read.
    """
    try:
        arrays = read_npz(run.predictions_file(checkpoint.stem.removeprefix("best-"), "val"), "logits", "labels")
    except FileNotFoundError:
        return None
    logits, labels = torch.from_numpy(arrays["logits"]), torch.from_numpy(arrays["labels"])
    return Validation(logits, labels, torch.from_numpy(arrays["whole"]) if "whole" in arrays else None)


def fit_votes(validation: Validation, cost: AdaptiveCost | None, mean_gmacs: float | None = None) -> dict[str, Fitted]:
    """What each vote takes from validation images; a vote that takes nothing is left out.

    Args:
        cost: of the network's parts, if it has a cut.
        mean_gmacs: wished of the adaptive vote; None: half of the vote's extra arithmetic.
    """
    fits = {vote: fit_vote(validation.logits, validation.labels, vote) for vote in ("soft", "weighted")}
    if validation.whole is not None and cost is not None:
        fits["adaptive"] = fit_adaptive(validation.whole, validation.logits, validation.labels, cost, mean_gmacs)
    return fits


def recorded_fits(run: Run, checkpoint: Path) -> dict[str, Fitted]:
    """What a run's result.json says that the votes took from its validation images, by one of its checkpoints."""
    votes = (run.result() or {}).get("votes", {})
    epoch_of = checkpoint.stem.removeprefix("best-")
    return {
        vote: Fitted.from_values(found)
        for vote, found in votes.items()
        if vote not in SHARES and vote in ALL_VOTES and vote_of_epoch(vote) == epoch_of and "temperature" in found
    }


def count_trained_on(run: Run, data: FERDataModule, positions: Positions) -> int | None:
    """How many images (positions in the pack) have the content of one that the run was trained on.

    None if the manifest of the run's division is not in the data set's cache folder.
    """
    result = run.result() or {}
    manifest = data.cache_dir / "manifests" / f"{result.get('dataset')}-{result.get('data_fingerprint', '')[:12]}.csv"
    if not manifest.exists():
        return None
    trained = manifest_hashes(manifest, "train")
    return sum(content.tobytes().hex() in trained for content in data.pack.hashes[positions])
