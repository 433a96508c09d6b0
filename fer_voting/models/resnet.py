"""The voting residual network: a ResNet-18 for small images that crops its own feature map (paper, section 3.1).

Shapes: B batch, V crops an image (10, or 1 for the baseline), K classes; images `[B, 3, H, W]`.
"""

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from fer_voting.models.last_layer import Float32Linear
from fer_voting.models.lean import LEAN_AND_SYNC_BATCHNORM, Recomputations
from fer_voting.models.voting import VotingNetwork, find_cut

STAGES = {"m1": "layer1", "m2": "layer2", "m3": "layer3"}
"""The paper's modules, by torchvision's names."""

MEMORY = ("paper", "lean")


class VotingResNet18(VotingNetwork):
    """The paper's backbone (`SmallResNet18`), whose map is cropped ten times after a module.

    Parameters and their names are torchvision's `resnet18`, the same for every split, so that weights travel
    between splits and to torchvision (all but `conv1`, which is 3x3 here). 11,172,423 parameters with 7 classes.

    Args:
        split: where the crops are taken: `baseline` (nowhere), `input`, or after module `m1`, `m2`, `m3`.
        num_classes: K.
        width: channels of module 1; 64 in the paper, doubled at each further module.
        memory: what training saves for the backward pass: every map as in Table 2 (`paper`), or only the outputs of
            the convolutions, from which the rest is recomputed (`lean`: under half the memory, the same gradients).
        image_size: in pixels; if given, a size that is too small for the crops is an error at once.
        dropout: probability with which training drops an input of the last layer; 0 in the paper.

    Raises ValueError if `split` or `memory` is unknown or a number is out of range.
    """

    backbone: "SmallResNet18"

    def __init__(
        self,
        split: str = "m1",
        num_classes: int = 7,
        width: int = 64,
        memory: str = "paper",
        image_size: int | None = None,
        dropout: float = 0.0,
    ) -> None:
        if memory not in MEMORY:
            raise ValueError(f"`memory` (={memory!r}) must be one of {', '.join(MEMORY)}")
        for name, value in {"num_classes": num_classes, "width": width}.items():
            if value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1")
        if not 0 <= dropout < 1:
            raise ValueError(f"`dropout` (={dropout}) must be at least 0 and less than 1")
        crop_after = find_cut(split, STAGES)
        super().__init__(SmallResNet18(num_classes, width, dropout), crop_after, image_size, STAGES)
        self.split = split
        self.num_classes = num_classes
        self.width = width
        self.recomputations = Recomputations() if memory == "lean" else None

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` (float) -> crop logits `[B, V, K]`.

        Raises ValueError if the map to be cropped is too small, or if `memory` is lean and BatchNorm is synchronised.
        """
        if self.recomputations is None or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return super().forward(images)  # torch.compile itself chooses what to recompute
        if isinstance(self.backbone.bn1, nn.SyncBatchNorm) and self.training:
            raise ValueError(LEAN_AND_SYNC_BATCHNORM)
        with self.recomputations:
            return super().forward(images)

    def crop(self, maps: Tensor) -> Tensor:
        return super().crop(maps) if self.recomputations is None else self.recomputations.run(super().crop, maps)


class SmallResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem of stride 1 and no max-pool: images `[B, 3, H, W]` -> logits `[B, K]`.

    Args:
        num_classes: K.
        width: channels of module 1, doubled at each further module.
        dropout: probability with which training drops an input of the last layer.
    """

    def __init__(self, num_classes: int, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = _module(width, width, stride=1)
        self.layer2 = _module(width, 2 * width, stride=2)
        self.layer3 = _module(2 * width, 4 * width, stride=2)
        self.layer4 = _module(4 * width, 8 * width, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(dropout)
        self.fc = Float32Linear(8 * width, num_classes)

        for module in self.modules():  # as torchvision initialises its resnet18
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))


def _module(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    """Two residual blocks. torchvision's own constructor has 64 channels fixed."""
    shortcut = None
    if stride != 1 or channels_in != channels:
        shortcut = nn.Sequential(
            nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(channels)
        )
    return nn.Sequential(BasicBlock(channels_in, channels, stride, shortcut), BasicBlock(channels, channels))
