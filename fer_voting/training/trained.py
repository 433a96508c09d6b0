"""Trained networks: loaded for evaluation under any split, and what their runs recorded of them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fer_voting.data.manifest import manifest_hashes
from fer_voting.data.module import FERDataModule
from fer_voting.data.sampling import Positions
from fer_voting.models.checkpoint import load_weights
from fer_voting.models.registry import rebuild_network
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.training.initialise import initialise
from fer_voting.training.module import VotingModule
from fer_voting.votes import Fitted, fit_vote, vote_of_epoch

__all__ = ["count_trained_on", "load_module", "stored_fits"]

LEARNING = ("soft", "weighted")
"""The votes that take something from validation images."""


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


def stored_fits(run: Run, checkpoint: Path) -> dict[str, Fitted]:
    """What the votes take from validation images, by a run's checkpoint: as recorded, or fitted on the stored logits.

    A vote of which neither is there is left out. Raises ValueError if the stored logits cannot be read.
    """
    epoch_of = checkpoint.stem.removeprefix("best-")
    recorded = (run.result() or {}).get("votes", {})
    found = {
        vote: Fitted.from_values(recorded[vote])
        for vote in LEARNING
        if vote_of_epoch(vote) == epoch_of and "temperature" in recorded.get(vote, {})
    }
    file = run.predictions_file(epoch_of, "val")
    if len(found) == len(LEARNING) or not file.exists():
        return found
    try:
        arrays = read_npz(file, "logits", "labels")
        return {vote: fit_vote(arrays["logits"], arrays["labels"], vote) for vote in LEARNING} | found
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read ({error}); temperature=val fits again") from error


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
