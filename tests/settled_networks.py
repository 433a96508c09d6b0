"""Networks that were not trained, but whose weights and BatchNorms all do something; and faces for them."""

import copy
import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo

CLASSES = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")


def settled(split: str = "m1", width: int = 4, size: int = 24) -> VotingResNet18:
    """A network whose BatchNorms know the mean and variance of their maps: the same each time, and the caller's own."""
    return copy.deepcopy(_settled(split, width, size))


@functools.cache
def _settled(split: str, width: int, size: int) -> VotingResNet18:
    torch.manual_seed(0)
    net = VotingResNet18(split, width=width)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    with torch.no_grad():
        for _ in range(20):
            net(torch.randn(8, 3, size, size))
    return net.eval()


def info(split: str = "m1", width: int = 4, size: int = 24) -> NetworkInfo:
    return NetworkInfo(split, {"width": width}, CLASSES, size, "faces")


def noise(count: int, size: int = 24, seed: int = 0) -> NDArray[np.uint8]:
    """Faces uint8 [count, size, size, 3] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
