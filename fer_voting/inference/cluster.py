"""The same rows from many machines, by Ray Data: files are handed to workers, each with the network loaded once."""

import json
import logging
import os
from collections.abc import Generator, Iterator, Sequence
from dataclasses import astuple
from typing import Any

import cv2
import numpy as np

from fer_voting.inference.frames import Input
from fer_voting.inference.predictor import Options, Predictor
from fer_voting.inference.rows import Row


class _Worker:
    """Lives in a process of Ray's; in the folder in which the command was given, for its paths may be relative."""

    def __init__(self, options: Options, folder: str) -> None:
        os.chdir(folder)
        cv2.setNumThreads(1)  # a worker has one processor; Ray tells torch so, and OpenCV would take all
        self.predictor = Predictor(options)

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for name, kind, output in zip(batch["name"], batch["kind"], batch["output"], strict=True):
            for rows in self.predictor.files([Input(str(name), str(kind), str(output))]):  # type: ignore[arg-type]
                yield {"row": np.array([json.dumps(row) for row in rows], dtype=object)}


def predict_on_ray(inputs: Sequence[Input], options: Options, address: str) -> Generator[list[Row]]:
    """The rows of files, in their order, as `Predictor.files` gives them, from the machines of a Ray cluster.

    Every machine must have this package and see the files under the same paths. A worker takes a processor, or a GPU
    where the cluster has some and `options.device` is not `cpu`; a file is one worker's.

    Args:
        inputs: what to read.
        options: as for `Predictor`; drawings and explanations are written by the workers.
        address: a cluster's, `auto` for the one of this machine, `local` to start one here for the time being.

    Raises ValueError if Ray is not installed, ConnectionError if there is no cluster.
    """
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ValueError(f"--ray needs Ray Data ({error}): pip install 'fer_voting[ray]'") from error
    if not inputs:
        return
    ray.init(
        address=None if address == "local" else address,
        include_dashboard=False if address == "local" else None,
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        resources = ray.cluster_resources()
        gpus = int(resources.get("GPU", 0)) if options.device != "cpu" else 0
        workers = min(gpus or int(resources.get("CPU", 1)), len(inputs))
        dataset = ray.data.from_items(
            [dict(zip(("name", "kind", "output"), astuple(one), strict=True)) for one in inputs],
            override_num_blocks=min(len(inputs), 8 * workers),
        ).map_batches(
            _Worker,
            fn_constructor_args=(options, os.getcwd()),
            batch_size=None,
            concurrency=workers,
            num_gpus=1 if gpus else None,
            num_cpus=None if gpus else 1,
        )
        for batch in dataset.iter_batches(batch_size=None):
            yield [json.loads(row) for row in batch["row"]]
    finally:
        ray.shutdown()
