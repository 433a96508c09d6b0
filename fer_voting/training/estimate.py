"""The expected duration of a training, logged before it starts."""

import copy
import logging
import time

import lightning as L
import torch

from fer_voting.data.module import FERDataModule
from fer_voting.system.environment import describe_device
from fer_voting.system.messages import duration
from fer_voting.training.module import VotingModule

log = logging.getLogger(__name__)

PROBE_IMAGES = 8
WORTH_A_HINT_SECONDS = 15 * 60
EVALUATION_SHARE = 1 / 3
"""Time of an image's evaluation (a forward pass) as a share of its training's."""


def announce_duration(module: VotingModule, datamodule: FERDataModule, trainer: L.Trainer) -> None:
    """Time two steps of a copy of the network on random images, and log the expected duration of the whole run."""
    device = trainer.strategy.root_device
    probe = copy.deepcopy(module).to(device).train()
    size = module.info.image_size
    targets = datamodule.first_targets(PROBE_IMAGES).to(device)
    with torch.random.fork_rng():
        images = torch.randn(len(targets), 3, size, size, device=device)
    seconds = []
    for _ in range(2):  # the first warms up
        start = time.perf_counter()
        with trainer.precision_plugin.forward_context():
            loss = probe.training_loss(images, targets)
        loss.backward()
        loss.item()  # waits for the device
        seconds.append(time.perf_counter() - start)
    assert trainer.max_epochs is not None
    evaluated = sum(datamodule.counts().get("val", {}).values())
    per_image = seconds[-1] / len(images) / trainer.world_size
    total = per_image * trainer.max_epochs * (datamodule.train_size + EVALUATION_SHARE * evaluated)
    log.info(
        f"about {duration(total)} for {trainer.max_epochs} epochs of {datamodule.train_size:,} images "
        f"in {trainer.precision} on {describe_device(device)}"
    )
    if total > WORTH_A_HINT_SECONDS:
        log.info(
            "the quick form, minutes on a laptop: python -m fer_voting.train -m experiment=demo split=baseline,m1,m2,m3"
        )
