"""The expected duration of a training, logged before it starts."""

import copy
import logging
import math
from collections.abc import Callable, Sequence

import lightning as L
import torch

from fer_voting.data.module import FERDataModule
from fer_voting.system.environment import describe_device, now
from fer_voting.system.messages import duration
from fer_voting.system.text import counted
from fer_voting.training.module import VotingModule

log = logging.getLogger(__name__)

PROBE_IMAGES, GPU_STEPS = 16, 10
THREADS_GAIN = 1.3
"""A step must be so many times faster with fewer threads to train with fewer: an idle machine then always decides for
all, so that the same command gives the same weights."""
EVALUATION_SHARE = 1 / 3
"""Time of an image's evaluation (a forward pass) as a share of its training's."""


def announce_duration(
    name: str, module: VotingModule, datamodule: FERDataModule, trainer: L.Trainer, threads: Sequence[int]
) -> None:
    """Time steps of a copy of the network on random images, and log the expected duration of the run `name`.

    A processor trains with the number of `threads` that is fastest, the first unless another gains much. A GPU gets
    whole batches, one behind the other, as a training enqueues them: a few images take as long as a batch.
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

    if not on_gpu and trainer.world_size == 1:
        use_fastest(name, threads, lambda: seconds_of(1))
    seconds_of(1)  # warms up
    seconds = seconds_of(steps) / steps
    assert trainer.max_epochs is not None
    trained = images_of_epoch(datamodule.train_size, datamodule.batch_size, trainer.limit_train_batches)
    validation = sum(datamodule.counts().get("val", {}).values())
    evaluated = images_of_epoch(validation, datamodule.batch_size, trainer.limit_val_batches)
    per_image = seconds / len(images) / trainer.world_size
    total = per_image * trainer.max_epochs * (trained + EVALUATION_SHARE * evaluated)
    log.info(
        f"{name}: about {duration(total)} for {counted(trainer.max_epochs, 'epoch')} of "
        f"{counted(trained, 'image')} "
        f"in {trainer.precision} on {describe_device(device)}"
    )
    if on_gpu and torch.are_deterministic_algorithms_enabled():
        ratio = cost_of_determinism(lambda: seconds_of(1 + steps) / (1 + steps))
        log.info(f"{name}: deterministic steps take {ratio:.1f} times as long as others; trainer=fast trains by those")


def images_of_epoch(images: int, batch_size: int, limit: int | float | None) -> int:
    """Number of images in the batches that Lightning's `limit` leaves: a number of batches, or a share of all."""
    batches = math.ceil(images / batch_size)
    kept = batches if limit is None else min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    return min(images, kept * batch_size)


def cost_of_determinism(step: Callable[[], float]) -> float:
    """How many times as long as with any algorithms `step`, which returns its seconds, takes with deterministic ones.

    It is called with deterministic algorithms enabled, and leaves them so.
    """
    deterministic, warns = step(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        return deterministic / step()
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warns)


def use_fastest(name: str, threads: Sequence[int], step: Callable[[], float]) -> None:
    """Compute with the number of threads with which `step`, which returns its seconds, is fastest.

    A thread that another process keeps from its core makes the others wait at each barrier: one thread may then be ten
    times as fast as two.
    """
    if len(threads) == 1:
        return
    seconds = dict.fromkeys(threads, 0.0)
    for repeat in range(4):
        for count in threads:
            torch.set_num_threads(count)
            taken = step()
            seconds[count] += taken if repeat else 0.0  # the first warms up
    usual, fastest = threads[0], min(threads, key=lambda count: seconds[count])
    gain = seconds[usual] / seconds[fastest]
    torch.set_num_threads(fastest if gain > THREADS_GAIN else usual)
    if gain > THREADS_GAIN:
        log.info(
            f"{name}: trains with {fastest} of {usual} threads, {gain:.1f} times as fast: "
            "other processes are busy, or the network is small; threads=N decides"
        )
