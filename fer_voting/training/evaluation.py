"""The metrics of every vote on validation and test, from the checkpoint of each vote's best epoch."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from hydra.utils import instantiate

from fer_voting.data.module import FERDataModule
from fer_voting.models.adaptive import adaptive_cost, has_cut
from fer_voting.models.checkpoint import load_weights, read_checkpoint
from fer_voting.runs.processes import is_first_rank
from fer_voting.runs.run import Run
from fer_voting.training.module import Predictions, VotingModule, score_metrics
from fer_voting.votes import ALL_VOTES, Vote


def make_evaluator(trainer_node: dict[str, Any]) -> L.Trainer:
    """A trainer that validates and tests, as a resolved configuration's `trainer` node says."""
    return instantiate(
        {**trainer_node, "max_epochs": 1},
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,  # the data module deals out each rank's share itself
    )


def evaluate_votes(
    run: Run, config: dict[str, Any], module: VotingModule, data: FERDataModule
) -> dict[str, dict[str, Any]]:
    """Vote -> `best_epoch`, `checkpoint`, its parameters and the metrics of each part.

    The votes are the built-in ones and the configured one, fitted on validation (`votes.Vote.fit`). Votes with the same
    best epoch share one pass. Writes the predictions into the run's folder. A refit is evaluated only with the vote
    that chose its number of epochs. A network without a cut has no vote that needs the full map.
    """
    evaluator = make_evaluator(config["trainer"])
    parts = [*([] if config["refit"] else ["val"]), *(["test"] if data.has_test else [])]
    evaluated: dict[int, dict[str, tuple[dict[str, Any], Predictions]]] = {}  # epoch -> part -> metrics, predictions
    votes: dict[str, dict[str, Any]] = {}
    configured: Vote = instantiate(config["voting"])
    with_full_map = has_cut(module.net) and not config["refit"]
    module.with_whole_map = with_full_map
    cost = adaptive_cost(module.net, module.info.image_size) if with_full_map else None
    wanted = {configured.name: configured} if config["refit"] else {**ALL_VOTES, configured.name: configured}
    for name, vote in wanted.items():
        if vote.needs_full_map and not with_full_map:
            continue
        path = run.best_checkpoint(vote.epoch_vote)
        epoch = read_checkpoint(path)["epoch"]
        if epoch not in evaluated:
            module.net.load_state_dict(load_weights(path)[0])
            evaluated[epoch] = {}
            for part in parts:
                run_part = evaluator.validate if part == "val" else evaluator.test
                run_part(module, datamodule=data, verbose=False)
                evaluated[epoch][part] = (module.evaluation, module.predictions.gather(data.positions(part)))
        votes[name] = {"best_epoch": epoch, "checkpoint": str(path.relative_to(run.dir))}
        for part, (metrics, predictions) in evaluated[epoch].items():  # validation first
            outputs, labels = predictions.outputs(), torch.cat(predictions.labels)
            if part == "val":
                vote = vote.fit(outputs, labels, cost)
                votes[name] |= vote.to_values()
            scores = vote.scores(outputs)
            votes[name][part] = metrics[name] if name in metrics else score_metrics(scores, labels, data.class_names)
            if is_first_rank():
                names = data.pack.names(predictions.index[0].numpy())
                _save_predictions(run.predictions_file(name, part), predictions, scores, names)
    module.with_whole_map = False
    return votes


def _save_predictions(path: Path, predictions: Predictions, scores: torch.Tensor, names: list[str]) -> None:
    """Write crop `logits` [N, V, K], the vote's `scores` [N, K], `labels` and `names` [N].

    Also `whole` [N, K], the logits of the whole map, if they are there.
    """
    path.parent.mkdir(exist_ok=True)
    arrays: dict[str, Any] = {"logits": torch.cat(predictions.logits).numpy(), "scores": scores.numpy()}
    arrays |= {"labels": torch.cat(predictions.labels).numpy(), "names": np.array(names)}
    if predictions.whole:
        arrays["whole"] = torch.cat(predictions.whole).numpy()
    draft = path.with_name(f".{path.name}")
    with draft.open("wb") as file:
        np.savez_compressed(file, **arrays)
    draft.replace(path)
