"""Small networks with the weights that a test wants, and checkpoints of them."""

from pathlib import Path

import torch

from fer_voting.data.labels import CLASSES
from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo

SEVEN = CLASSES[:7]


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
