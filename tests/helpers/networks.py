"""Networks that were not trained, but whose weights and BatchNorms all do something; faces and checkpoints for them."""

import copy
import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fer_voting.data.labels import CLASSES
from fer_voting.inference.faces import FOUND
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo

SEVEN = CLASSES[:7]


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


def without_blocks(net: VotingResNet18) -> VotingResNet18:
    """A copy that classifies the stem's map: with the same crops and votes, and a fifth of the nodes for exporters and
    compilers."""
    net = copy.deepcopy(net)
    for stage in (net.backbone.layer1, net.backbone.layer2, net.backbone.layer3, net.backbone.layer4):
        stage[0], stage[1] = nn.Identity(), nn.Identity()
    last = net.backbone.fc
    net.backbone.fc = type(last)(net.width, last.out_features)
    net.backbone.fc.load_state_dict({"weight": last.weight[:, : net.width], "bias": last.bias})
    return net


def info(split: str = "m1", width: int = 4, size: int = 24) -> NetworkInfo:
    return NetworkInfo(split, {"width": width}, SEVEN, size, "faces")


def noise(count: int, size: int = 24, seed: int = 0) -> NDArray[np.uint8]:
    """Faces uint8 [count, size, size, 3] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def small_network(split: str = "m3", seed: int = 0, classes: tuple[str, ...] = SEVEN) -> VotingResNet18:
    """Width 8, initialised by `seed`, with normalisation statistics as if it had been trained; evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = VotingResNet18(split, len(classes), width=8)
        with torch.no_grad():
            for _ in range(3):
                net(torch.randn(8, 3, 24, 24))
    return net.eval()


def small_info(split: str = "m3", classes: tuple[str, ...] = SEVEN) -> NetworkInfo:
    return NetworkInfo(split, {"width": 8}, classes, 24, "faces")


def write_checkpoint(path: Path, split: str = "m3", seed: int = 0, classes: tuple[str, ...] = SEVEN) -> Path:
    """A checkpoint of `small_network`."""
    net = small_network(split, seed, classes)
    checkpoint = {"state_dict": {f"net.{key}": value for key, value in net.state_dict().items()}}
    small_info(split, classes).write(checkpoint)
    torch.save(checkpoint, path)
    return path


def found_faces(boxes: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Faces as `find_faces` gives them, `[N, FOUND]`: N boxes (left, top, width, height), falling scores."""
    faces = np.full((len(boxes), FOUND), np.nan)
    faces[:, :4] = np.reshape(boxes, (-1, 4))
    faces[:, 4], faces[:, 5] = 0.9 - 0.1 * np.arange(len(boxes)), 0
    return faces


class WithDropout(nn.Module):
    """A small network that draws random numbers in training."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(self.conv(images).relu().mean(dim=(2, 3))))
