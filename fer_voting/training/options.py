"""Arguments of Lightning's Trainer that a run can't follow; docs/training.md says what the others mean here."""

import re
from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BatchSizeFinder, Callback, LearningRateFinder, ModelCheckpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "barebones": ((False,), "a run records its metrics; leave it out"),
    "callbacks": ((), "a callback has a key of its own: '+callbacks.NAME={_target_: MODULE.CLASS}'"),
    "enable_checkpointing": ((None, True), "the best epochs' checkpoints are what a run is evaluated by; leave it out"),
    "limit_predict_batches": (
        (None,),
        "a run evaluates validation and test: +trainer.limit_val_batches=N, limit_test_batches=N",
    ),
    "logger": ((), "loggers have a group: logger=wandb, logger=[wandb,tensorboard], logger=none"),
    "model_registry": ((None,), "a run uploads nothing: python -m fer_voting.export makes files to upload"),
    "overfit_batches": (
        (0, 0.0),
        "the order of images is drawn from seed and epoch: give +trainer.limit_train_batches=N in its place",
    ),
    "use_distributed_sampler": ((False,), "the data module deals out each rank's images itself; leave it out"),
    "val_check_interval": (
        (None, 1.0),
        "an epoch is validated at its end, with the weights that are kept: "
        "+trainer.check_val_every_n_epoch=N validates every N epochs",
    ),
}
"""Argument -> the values that mean what they say here, and what to type instead of another."""

TUNERS = {
    LearningRateFinder: "-m optimizer.lr=1e-4,1e-3",
    BatchSizeFinder: "-m dataset.batch_size=64,128",
}
"""Callback that changes a value which the run's configuration records -> words that try values of it."""


def refuse_trainer_options(node: Mapping[str, Any]) -> None:
    """Raises ValueError for a value of a configuration's `trainer` node that Lightning takes and a run can't follow."""
    for name, value in node.items():
        allowed, instead = REFUSED.get(name, ((value,), ""))
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise ValueError(f"trainer.{name}={value} is not for runs: {instead}")
    every, steps = node.get("accumulate_grad_batches", 1), node.get("max_steps", -1)
    if every < 1:
        raise ValueError(f"trainer.accumulate_grad_batches={every} must be at least 1")
    if steps != -1 and steps < 1:
        raise ValueError(f"trainer.max_steps={steps} must be at least 1, or -1 for no limit")
    if node.get("limit_train_batches") == 0:
        raise ValueError("trainer.limit_train_batches=0 trains nothing: give it 1 or more batches, or a share as 0.1")
    if re.search("spawn|fork|notebook", str(node.get("strategy"))):
        raise ValueError(
            f"trainer.strategy={node['strategy']} would train in processes that return only weights: "
            "trainer=ddp starts the command again for each device"
        )
    time = node.get("max_time")
    if time is not None and not isinstance(time, str | Mapping):
        raise ValueError(f"trainer.max_time={time} must be DD:HH:MM:SS (in a file in quotes), or {{hours: N}}")


def refuse_callbacks(callbacks: Mapping[str, Any]) -> None:
    """Raises ValueError for a callback, by its key in the configuration, that a run can't have."""
    for key, callback in callbacks.items():
        if not isinstance(callback, Callback):
            raise ValueError(f"callbacks.{key} is a {type(callback).__name__}, and no callback of Lightning")
        for tuner, words in TUNERS.items():
            if isinstance(callback, tuner):
                raise ValueError(
                    f"callbacks.{key}: {tuner.__name__} would train with another value than the run records: "
                    f"a sweep tries values, e.g. {words}, and so does python -m fer_voting.search"
                )
        if isinstance(callback, ModelCheckpoint) and callback.save_last and callback.dirpath is None:
            raise ValueError(
                "ModelCheckpoint(save_last=true) would write over the run's own last.ckpt: set its dirpath"
            )


def refuse_trainer(trainer: L.Trainer) -> None:
    """Raises ValueError for a strategy or plugin of a made trainer with which a run's files would be other ones, and
    for a precision in which its callbacks fail."""
    strategy, io = trainer.strategy, trainer.strategy.checkpoint_io
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy):
        raise ValueError(
            f"trainer.strategy: {type(strategy).__name__} divides the network, which a run's files hold whole: "
            "trainer=ddp divides the images"
        )
    if type(io) is not TorchCheckpointIO:
        raise ValueError(
            f"trainer.plugins: {type(io).__name__} is not for runs, which write their checkpoints themselves"
        )
    if str(trainer.precision).endswith("-true") and trainer.precision != "32-true":
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, WeightAveraging):  # it copies the weights before Lightning converts them
                raise ValueError(
                    f"trainer.precision={trainer.precision} with averages of weights, which stay in float32: take "
                    "32-true or bf16-mixed"
                )
