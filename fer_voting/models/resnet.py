"""The voting residual network: a ResNet-18 for small images that crops its own feature map (paper, section 3.1).

Shapes: B batch, V crops an image (10, or 1 for the baseline), K classes; images `[B, 3, H, W]`.
"""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from fer_voting.models.crops import ten_crops

__all__ = ["SPLITS", "VotingResNet18"]

STAGES = ("layer1", "layer2", "layer3", "layer4")

SPLITS: dict[str, int | None] = {"baseline": None, "input": 0, "m1": 1, "m2": 2, "m3": 3}
"""How many stages ("modules" in the paper) come before the crops are taken; `baseline` takes none."""


class VotingResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem of stride 1 and no max-pool, cut into ten crops after a stage.

    Parameters and their names are torchvision's `resnet18`, the same for every split, so that weights travel
    between splits and to torchvision (all but `conv1`, which is 3x3 here). 11,172,423 parameters with 7 classes.

    Args:
        split: where the crops are taken: `baseline` (nowhere), `input`, or after module `m1`, `m2`, `m3`.
        num_classes: K.
        width: channels of the first stage; 64 in the paper, doubled at each further stage.

    Raises ValueError if `split` is unknown or a number is not positive.
    """

    def __init__(self, split: str = "m1", num_classes: int = 7, width: int = 64) -> None:
        super().__init__()
        if split not in SPLITS:
            raise ValueError(f"`split` (={split!r}) must be one of {', '.join(SPLITS)}")
        for name, value in {"num_classes": num_classes, "width": width}.items():
            if value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1")
        self.split = split
        self.num_classes = num_classes
        self.width = width

        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width, num_classes)

        for module in self.modules():  # as torchvision initialises its resnet18
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` (float) -> crop logits `[B, V, K]`.

        Raises ValueError if a side of the map to be cropped is not divisible by six.
        """
        batch = x.shape[0]
        crops_after = SPLITS[self.split]
        if crops_after == 0:
            x = ten_crops(x).flatten(0, 1)
        x = self.relu(self.bn1(self.conv1(x)))
        for stages_done, stage in enumerate(STAGES, start=1):
            x = getattr(self, stage)(x)
            if stages_done == crops_after:
                x = ten_crops(x).flatten(0, 1)
        features = torch.flatten(self.avgpool(x), 1)
        return self.fc(features).unflatten(0, (batch, -1))


def _stage(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    """Two residual blocks; torchvision's own constructor of it is tied to 64 channels."""
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False),
            nn.BatchNorm2d(channels),
        )
    return nn.Sequential(BasicBlock(channels_in, channels, stride, shortcut), BasicBlock(channels, channels))
