"""The expected duration of a training, logged before it starts."""

import copy
import logging

import lightning as L
import torch

from fer_voting.data.module import FERDataModule
from fer_voting.system.environment import describe_device, now
from fer_voting.system.messages import duration
from fer_voting.training.module import VotingModule

log = logging.getLogger(__name__)

PROBE_IMAGES, GPU_STEPS = 8, 10
WORTH_A_HINT_SECONDS = 15 * 60
EVALUATION_SHARE = 1 / 3
"""Time of an image's evaluation (a forward pass) as a share of its training's."""


def announce_duration(module: VotingModule, datamodule: FERDataModule, trainer: L.Trainer) -> None:
    """Time steps of a copy of the network on random images, and log the expected duration of the whole run.

    A GPU gets whole batches, one behind the other, as a training enqueues them: a few images take as long as a batch.
    """
    device = trainer.strategy.root_device
    probe = copy.deepcopy(module).to(device).train()
    size = module.info.image_size
    on_gpu = device.type == "cuda"
    count, steps = (datamodule.batch_size // trainer.world_size, GPU_STEPS) if on_gpu else (PROBE_IMAGES, 1)
    targets = datamodule.first_targets(count).to(device)
    with torch.random.fork_rng():
        images = torch.randn(len(targets), 3, size, size, device=device)

    def seconds_of(steps: int) -> float:
        start = now(device)
        for _ in range(steps):
            with trainer.precision_plugin.forward_context():
                loss = probe.training_loss(images, targets)
            loss.backward()
        return now(device) - start

    seconds_of(1)  # warms up
    seconds = seconds_of(steps) / steps
    assert trainer.max_epochs is not None
    evaluated = sum(datamodule.counts().get("val", {}).values())
    per_image = seconds / len(images) / trainer.world_size
    total = per_image * trainer.max_epochs * (datamodule.train_size + EVALUATION_SHARE * evaluated)
    log.info(
        f"about {duration(total)} for {trainer.max_epochs} epochs of {datamodule.train_size:,} images "
        f"in {trainer.precision} on {describe_device(device)}"
    )
    if total > WORTH_A_HINT_SECONDS:
        log.info(
            "the quick form, minutes on a laptop: python -m fer_voting.train -m experiment=demo split=baseline,m1,m2,m3"
        )
