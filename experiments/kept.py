"""Predictions of trained networks without the faces: written once, read by `experiments.fer2013_analysis`.

A folder of kept predictions holds

    faces.npz                 of each test image its csv row, label, FER+ votes, and whether Training has it too
    runs/<name>/              a run's folder without weights: config.yaml, metrics.csv, result.json, and
      predictions/            soft-val.npz, soft-test.npz: crop logits, half precision (experiments.record);
                              studies.npz: the test images under every other split and at lower resolutions,
                              the full map's logits of the validation images

so that everything that reads runs reads it: `python -m experiments.tables table3 --output-dir FOLDER`.
Shapes: N test images, M validation images, K classes, S splits, R resolutions, W votes.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf

from experiments.common import SPLITS
from experiments.record import record_predictions
from experiments.resolution import RESOLUTIONS, LoadedRun
from fer_voting.data.corruptions import corrupt
from fer_voting.data.index import PARTS
from fer_voting.data.module import FERDataModule
from fer_voting.data.sets.fer2013 import USAGES
from fer_voting.data.sets.ferplus import raw_votes, votes_file
from fer_voting.results.load import Predictions, RunRecord, load_run
from fer_voting.runs.run import Run
from fer_voting.system.arrays import read_npz
from fer_voting.system.atomic import write_atomically, write_json
from fer_voting.system.messages import progress_bar
from fer_voting.votes import VOTES, soft_vote

STUDIES_FILE = "studies.npz"


@dataclass(frozen=True)
class Faces:
    """The test images of the kept runs.

    Attributes:
        rows: of FER2013's csv, int32 [N].
        labels: class ids int64 [N].
        in_training: bool [N], whether the official training part has an image with the same content.
        votes: FER+'s (`ferplus.raw_votes`), uint8 [N, 10]; None without fer2013new.csv.
    """

    rows: NDArray[np.int32]
    labels: NDArray[np.int64]
    in_training: NDArray[np.bool_]
    votes: NDArray[np.uint8] | None


@dataclass(frozen=True)
class KeptRun:
    """The predictions of one run.

    Attributes:
        test, val: crop logits under the run's own split.
        scores: split -> the soft vote's scores float32 [N, K] on test, the own split among them.
        full_map_val: logits float32 [M, K] of the full map on validation.
        decisions: resolution in pixels -> vote -> decisions int64 [N] on test under the own split, the own size among
            them.
    """

    run: RunRecord
    test: Predictions
    val: Predictions
    scores: dict[str, NDArray[np.float32]]
    full_map_val: NDArray[np.float32]
    decisions: dict[int, dict[str, NDArray[np.int64]]]


def find_faces(data: FERDataModule, positions: NDArray[np.int64]) -> Faces:
    """The known facts about images of FER2013's csv.

    Args:
        positions: in the pack.

    Raises ValueError if the data set does not come from the csv, or fer2013new.csv does not belong to it.
    """
    pack = data.pack
    if pack.key.get("layout") != "csv":
        raise ValueError(f"{data.name} must be FER2013's csv, whose rows are numbered, not {pack.key.get('layout')}")
    rows = np.array([int(name) for name in pack.names(positions)], np.int32)
    training = pack.hashes[pack.part_ids == PARTS.index("train")]
    votes = None
    assert data.base is not None
    if (path := votes_file(data.base)) is not None:
        usages, all_votes = raw_votes(path)
        expected = [PARTS[part] for part in pack.part_ids[positions]]
        if len(usages) <= rows.max() or [USAGES.get(usages[row]) for row in rows] != expected:
            raise ValueError(f"{path} does not belong to the csv beside it: the parts of their rows differ")
        votes = all_votes[rows]
    return Faces(rows, data.class_ids(pack)[positions], np.isin(pack.hashes[positions], training), votes)


def keep(trained: LoadedRun, folder: Path) -> bool:
    """Evaluate a finished run and keep what it predicts; False if that has been done.

    Raises ValueError if the folder has another training under the run's name, or of other test images.
    """
    run, data = trained.run, trained.datamodule
    kept = Run(folder, run.name)
    if (result := kept.result()) is not None:
        if result == trained.result:
            return False
        raise ValueError(f"{kept.dir} holds another training of the same name: remove it to keep this one")
    positions = data.positions("test")
    _keep_faces(find_faces(data, positions), folder / "faces.npz")
    loaded = load_run(run)
    for part in ("val", "test"):
        record_predictions(loaded, part, kept.dir / "predictions")
    np.savez_compressed(kept.dir / "predictions" / STUDIES_FILE, **_evaluate(trained))
    shutil.copyfile(run.metrics_file, kept.metrics_file)
    # No path of this machine: neither in values nor in the overrides and commands that gave them.
    dataset = {**trained.config["dataset"], "root": "DIR", "cache_dir": "outputs/packs"}
    composition = {**trained.config["composition"], "overrides": []}
    composition["needs"] = {purpose: {**need, "overrides": []} for purpose, need in composition["needs"].items()}
    config = {**trained.config, "dataset": dataset, "output_dir": "outputs", "composition": composition}
    with write_atomically(kept.dir / "config.yaml") as text:
        text.write(OmegaConf.to_yaml(OmegaConf.create(config)))
    write_json(kept.dir / "result.json", trained.result)  # last: the run then counts as finished
    return True


def _keep_faces(faces: Faces, path: Path) -> None:
    if path.exists():
        known = read_faces(path.parent)
        if not (np.array_equal(known.rows, faces.rows) and np.array_equal(known.labels, faces.labels)):
            raise ValueError(f"{path} is of other test images: keep these runs in another folder")
        if known.votes is not None or faces.votes is None:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = faces.labels.astype(np.uint8)
    votes: dict[str, Any] = {} if faces.votes is None else {"votes": faces.votes}
    np.savez_compressed(path, rows=faces.rows, labels=labels, in_training=faces.in_training, **votes)


def _evaluate(trained: LoadedRun) -> dict[str, Any]:
    """The arrays of studies.npz: `splits` [S], `scores` [S, N, K], `whole_val` [M, K], `resolutions` [R], `votes` [W],
    `decisions` [R, W, N]."""
    own = trained.config["split"]["name"]
    others = [split for split in SPLITS if split != own]
    sides = [side for side in RESOLUTIONS if side < trained.datamodule.size]
    images = trained.images("test")
    with progress_bar(total=len(others) + 1 + len(sides), desc=trained.run.name, unit="pass") as progress:

        def predict(split: str, *inputs: NDArray[np.uint8]) -> list[torch.Tensor]:
            recognizer, outputs = trained.recognizer(split), []
            for faces in inputs:
                outputs.append(torch.from_numpy(recognizer.classify(faces).crop_logits))
                progress.update()
            return outputs

        (full_map_val,) = predict("baseline", trained.images("val"))
        scores = [soft_vote(*predict(split, images)).numpy() for split in others]
        at_sides = predict(own, *(corrupt(images, "resolution", side) for side in sides))
    decisions = [[vote(logits).argmax(dim=1).numpy() for vote in VOTES.values()] for logits in at_sides]
    return {
        "splits": np.array(others),
        "scores": np.array(scores, np.float16),
        "whole_val": soft_vote(full_map_val).numpy().astype(np.float16),
        "resolutions": np.array(sides, np.int32),
        "votes": np.array(list(VOTES)),
        "decisions": np.array(decisions, np.uint8).reshape(len(sides), len(VOTES), len(images)),
    }


def read_faces(folder: Path) -> Faces:
    """Raises FileNotFoundError if no run was kept there, ValueError if the file is damaged."""
    arrays = read_npz(folder / "faces.npz", "rows", "labels", "in_training")
    return Faces(arrays["rows"], arrays["labels"].astype(np.int64), arrays["in_training"], arrays.get("votes"))


def read_kept(run: RunRecord, size: int) -> KeptRun:
    """The predictions of a run in a folder that `keep` wrote.

    Args:
        size: pixels a side of the run's images.

    Raises FileNotFoundError or ValueError if a file is missing or damaged.
    """
    keys = ("splits", "scores", "whole_val", "resolutions", "votes", "decisions")
    arrays = read_npz(run.run.dir / "predictions" / STUDIES_FILE, *keys)
    test, val = run.predictions("test"), run.predictions("val")
    scores = dict(zip(arrays["splits"].tolist(), arrays["scores"].astype(np.float32), strict=True))
    by_side = zip(arrays["resolutions"].tolist(), arrays["decisions"].astype(np.int64), strict=True)
    decisions = {side: dict(zip(arrays["votes"].tolist(), of_side, strict=True)) for side, of_side in by_side}
    logits = torch.from_numpy(test.logits)
    scores[run.split] = soft_vote(logits).numpy()
    decisions[size] = {vote: function(logits).argmax(dim=1).numpy() for vote, function in VOTES.items()}
    return KeptRun(run, test, val, scores, arrays["whole_val"].astype(np.float32), decisions)
