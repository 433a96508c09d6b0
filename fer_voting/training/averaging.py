"""Averages of the weights of a training's steps, for Lightning's callback `WeightAveraging`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

Tensors = tuple[Tensor, ...] | list[Tensor]


def ema(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """An exponential moving average of the weights, as `WeightAveraging(multi_avg_fn=...)` takes it.

    After step t the average is d times the one before plus 1 - d times the weights, d = min(decay, (1 + t) / (10 + t)),
    as TensorFlow's `ExponentialMovingAverage(num_updates=t)`. The smaller d of the first steps forgets the random
    initial weights: a constant 0.999 would keep three quarters of them after the 285 steps of the demo.

    Raises ValueError if `decay` is not at least 0 and below 1.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"`decay` (={decay}) must be at least 0 and below 1")

    def update(averages: Tensors, current: Tensors, updates: Tensor | int) -> None:
        step = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + step) / (10 + step)))(averages, current, updates)

    return update


@contextmanager
def averaged_weights(trainer: L.Trainer, module: L.LightningModule) -> Iterator[None]:
    """Give `module` the averaged weights for the time of the context, where a callback of `trainer` averages them.

    A checkpoint of the weights alone holds those that the module has: Lightning asks the callback only for whole ones.
    """
    averaging = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]
    for callback in averaging:
        callback.on_validation_epoch_start(trainer, module)
    try:
        yield
    finally:
        for callback in averaging:
            callback.on_validation_epoch_end(trainer, module)
