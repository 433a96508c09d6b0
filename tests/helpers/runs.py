"""Run folders with decisions that a test chose, written by the code that a training uses."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from helpers.composed import composed

from fer_voting.models import VotingResNet18
from fer_voting.models.cost import count_gmacs, count_parameters
from fer_voting.runs.identity import resolve
from fer_voting.runs.naming import settle
from fer_voting.runs.run import Run
from fer_voting.system.arrays import write_npz
from fer_voting.system.atomic import write_atomically
from fer_voting.system.environment import package_versions
from fer_voting.targets import Classes
from fer_voting.training.predictions import PartPredictions
from fer_voting.votes import VOTES

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
MIB = {"baseline": 1.3, "input": 9.0, "m1": 5.1, "m2": 3.0, "m3": 1.9}
COMMIT = "0123456789ab"


def make_run(
    output_dir: Path,
    words: Sequence[str],
    decided: Mapping[str, Sequence[int]],
    labels: Sequence[int],
    hard: Mapping[str, Sequence[int]] | None = None,
    names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    **result: Any,
) -> Run:
    """A finished run.

    Args:
        words: of the command line, e.g. `["dataset=faces", "split=m1", "seed=0"]`.
        decided: part ("val", "test") -> class id that every vote decides for, of each image.
        labels: class id of each image, the same in every part.
        hard: the same of the weights of the hard vote's best epoch, where they differ.
        names: of the images; made up if not given.
        groups: of the images, e.g. people, if they have any.
        result: entries of result.json to write instead of made-up ones.
    """
    config = plan([*words, f"output_dir={output_dir}"])
    run = Run(output_dir, config["name"])
    names = [f"image {i}" for i in range(len(labels))] if names is None else list(names)
    votes: dict[str, Any] = {}
    with run.open(config):
        for vote in [config["voting"]["name"]] if config["refit"] else VOTES:
            votes[vote] = {"best_epoch": 1, "checkpoint": f"checkpoints/best-{vote}.ckpt"}
            for part, soft in decided.items():
                decisions = hard[part] if hard is not None and vote == "hard" else soft
                predictions = _predictions(decisions, labels)
                scores = VOTES[vote](predictions.crops)
                votes[vote][part] = Classes().judge(scores, predictions.labels, CLASSES)
                arrays = Classes().to_arrays(predictions.outputs, scores, predictions.labels, CLASSES)
                arrays |= {} if groups is None else {"groups": np.array(groups)}
                write_npz(run.predictions_file(vote, part), **arrays, names=np.array(names))
        counts = dict(zip(CLASSES, np.bincount(labels, minlength=len(CLASSES)).tolist(), strict=True))
        made_up = {
            "format": 3,
            "name": run.name,
            "variant": config["composition"]["variant"],
            "status": "finished",
            "error": None,
            "dataset": config["dataset"]["name"],
            "split": config["split"]["name"],
            "seed": config["seed"],
            "refit": config["refit"],
            "sweep": config["sweep"],
            "started": "2026-01-02T03:04:05+00:00",
            "seconds": 100.0,
            "versions": package_versions(),
            "git_commit": COMMIT,
            "synthetic": config["dataset"]["name"] == "faces",
            "class_names": list(CLASSES),
            "number_names": [],
            "best_metric": "accuracy",
            "counts": {"train": {name: 2 * count for name, count in counts.items()}, "val": counts, "test": counts},
            "data_fingerprint": "00",
            "data": {"fingerprint": "00", "classes": list(CLASSES), "counts": {}, "selection": "00"},
            "epochs": 2,
            "votes": votes,
            "forward_mib_per_image": MIB[config["split"]["name"]],
            **_costs(config["split"]["name"], config["model"]["width"], config["dataset"]["size"]),
            "images_per_second": 50.0,
            "precision": "32-true",
            "tf32": False,
            "ranks": 1,
            "device": "a made-up device",
        }
        made_up |= result
        run.write_result(made_up)
    write_history(run, next(votes[vote] for vote in votes))
    return run


def plan(words: Sequence[str]) -> dict[str, Any]:
    """The planned job of these words."""
    return resolve(settle(composed(words)))


@functools.cache
def _costs(split: str, width: int, size: int) -> dict[str, Any]:
    net = VotingResNet18(split, len(CLASSES), width)
    gmacs = count_gmacs(net, size)
    return {"parameters": count_parameters(net), "gmacs": gmacs, "torch_gmacs": gmacs}


def _predictions(decided: Sequence[int], labels: Sequence[int]) -> PartPredictions:
    """Logits [N, 3, K] of three crops that agree on the decision by a margin."""
    logits = 4 * torch.nn.functional.one_hot(torch.as_tensor(decided), len(CLASSES)).float()
    return PartPredictions(logits[:, None].repeat(1, 3, 1), None, torch.as_tensor(labels), torch.arange(len(labels)))


def write_history(run: Run, metrics: Mapping[str, Any]) -> None:
    """metrics.csv of two epochs that end at the run's accuracy."""
    header = ["epoch", "train/loss", *(f"val/{vote}/accuracy" for vote in VOTES)]
    end = metrics["val"]["accuracy"] if "val" in metrics else 0.5
    with write_atomically(run.metrics_file) as file:
        file.write(",".join(header) + "\r\n")
        for epoch in (0, 1):
            values = [epoch, 1.9 - 0.4 * epoch, *(end * (1 + epoch) / 2 for _ in VOTES)]
            file.write(",".join(map(str, values)) + "\r\n")
