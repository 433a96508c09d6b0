"""The learning rate over a training: the options of `conf/scheduler/`.

Each function returns Lightning's configuration of one of torch's schedulers. The optimizer's learning rate is the
first step's (`exponential`, `cosine`), or the highest (`one_cycle`).

`steps` are the optimizer's steps in the whole training, as Lightning estimates them. A refit, which stops earlier,
passes those of as many epochs as its selection run was configured for, so that both have the same rate after each
epoch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

PROBE_STEPS = 100
"""Steps by which `depends_on_length` compares schedules."""


def exponential(optimizer: Optimizer, steps: int, *, lr_gamma_per_epoch: float) -> Any:
    """Times `lr_gamma_per_epoch` after each epoch: the paper's schedule (section 3.3).

    It says "after each iteration"; that this means an epoch is an interpretation."""
    return _every("epoch", ExponentialLR(optimizer, lr_gamma_per_epoch))


def cosine(optimizer: Optimizer, steps: int) -> Any:
    """Falls to zero along half a cosine, at every step (Loshchilov and Hutter 2017, arXiv:1608.03983, equation 5)."""
    return _every("step", CosineAnnealingLR(optimizer, steps))


def one_cycle(optimizer: Optimizer, steps: int, *, warm_up_share: float) -> Any:
    """Rises to the optimizer's rate in the first `warm_up_share` of the steps, then falls to nearly zero.

    Momentum (Adam's first beta) moves the opposite way, from 0.95 to 0.85 and back, whatever it was (Smith and Topin
    2019, arXiv:1708.07120).

    Raises ValueError if `warm_up_share` is not between 0 and 1.
    """
    if not 0 < warm_up_share < 1:
        raise ValueError(f"scheduler.warm_up_share={warm_up_share} must be between 0 and 1")
    if warm_up_share * steps == 1:
        warm_up_share *= 1 - 1e-9  # torch divides by the steps of the rise after the first one
    highest = [group["lr"] for group in optimizer.param_groups]
    return _every("step", OneCycleLR(optimizer, highest, steps, pct_start=warm_up_share))


def depends_on_length(make: Callable[..., Any]) -> bool:
    """Whether the rates of a schedule, one of these or a user's own, depend on the number of steps of the training.

    Args:
        make: the function, as a module is given it: only `optimizer` and `steps` are missing.
    """
    rates = [_rates(make, steps) for steps in (PROBE_STEPS, 10 * PROBE_STEPS)]
    return rates[0] != rates[1]


def _rates(make: Callable[..., Any], steps: int) -> list[float]:
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.9)
    scheduler, rates = make(optimizer, steps=steps)["scheduler"], []
    for _ in range(PROBE_STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
    return rates


def _every(interval: str, scheduler: LRScheduler) -> dict[str, Any]:
    return {"scheduler": scheduler, "interval": interval}
