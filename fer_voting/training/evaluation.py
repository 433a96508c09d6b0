"""The metrics of every vote on validation and test, from the checkpoint of each vote's best epoch."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np

from fer_voting.data.batches import Change
from fer_voting.data.module import FERDataModule, PartDataModule
from fer_voting.models.adaptive import adaptive_cost, has_cut
from fer_voting.models.checkpoint import load_weights, read_checkpoint
from fer_voting.runs.run import Run
from fer_voting.system.arrays import write_npz
from fer_voting.system.ranks import is_first_rank
from fer_voting.training.module import VotingModule
from fer_voting.training.predictions import PartPredictions
from fer_voting.votes import Vote

log = logging.getLogger(__name__)


def predict_part(
    evaluator: L.Trainer, module: VotingModule, data: FERDataModule, part: str, change: Change | None = None
) -> PartPredictions:
    """The module's outputs for the images of a part (`val`, `test`) of `data`, changed, in the order of evaluation.

    A network that was trained on grey images sees grey. `trainer.limit_val_batches` and `trainer.limit_test_batches`
    hold.
    """
    limits = {"val": evaluator.limit_val_batches, "test": evaluator.limit_test_batches}
    evaluator.limit_predict_batches = limits.get(part, 1.0)
    colour = "rgb" if data.pack.is_grey else module.info.faces.colour  # grey stays what it is
    batches: Any = evaluator.predict(module, datamodule=PartDataModule(data, part, colour, change))
    return PartPredictions.gather(batches or [], data.positions(part))  # of a limit of 0 Lightning returns None


def evaluate_votes(
    evaluator: L.Trainer, module: VotingModule, data: FERDataModule, run: Run, votes: Mapping[str, Vote], refit: bool
) -> dict[str, dict[str, Any]]:
    """Vote -> `best_epoch`, `checkpoint`, its parameters and the metrics of each part.

    The votes are fitted on validation (`votes.Vote.fit`), which a refit has not. Votes with the same best epoch share
    one pass. Writes the predictions into the run's folder. A network without a cut has no vote that needs the full map.
    """
    tested = data.has_test and evaluator.limit_test_batches != 0
    if data.has_test and not tested:
        log.info(f"{run.name}: nothing is tested (trainer.limit_test_batches=0)")
    parts = [*([] if refit else ["val"]), *(["test"] if tested else [])]
    cost = adaptive_cost(module.net, module.info.image_size) if has_cut(module.net) else None
    best_epochs: dict[Path, int] = {}  # of the checkpoints, which several votes share
    predicted: dict[int, dict[str, PartPredictions]] = {}  # epoch -> part -> predictions
    evaluated: dict[str, dict[str, Any]] = {}
    for name, vote in votes.items():
        if (vote.needs_full_map and cost is None) or not data.target.takes(vote):
            continue
        path = run.best_checkpoint(vote.epoch_vote)
        if not path.exists():
            raise ValueError(
                "the training ended before its first validation, so that there is no best epoch: give it more by "
                "trainer.max_steps, max_time or max_epochs"
            )
        if path not in best_epochs:
            best_epochs[path] = read_checkpoint(path)["epoch"]
        epoch = best_epochs[path]
        if epoch not in predicted:
            module.net.load_state_dict(load_weights(path)[0])
            predicted[epoch] = {part: predict_part(evaluator, module, data, part) for part in parts}
        evaluated[name] = {"best_epoch": epoch, "checkpoint": str(path.relative_to(run.dir))}
        for part, predictions in predicted[epoch].items():  # validation first
            if part == "val":
                vote = data.target.fit(vote, predictions.outputs, predictions.labels, cost)
                evaluated[name] |= vote.to_values() if data.target.has_classes else {}
            scores = data.target.scores(vote, predictions.outputs, data.class_names)
            evaluated[name][part] = data.target.judge(scores, predictions.labels, data.class_names)
            if is_first_rank():
                arrays = data.target.to_arrays(predictions.outputs, scores, predictions.labels, data.class_names)
                positions = predictions.positions.numpy()
                if (groups := data.groups_of(positions)) is not None:
                    arrays |= {"groups": groups}
                names = np.array(data.pack.names(positions))
                write_npz(run.predictions_file(name, part), **arrays, names=names)
    return evaluated
