"""The voting residual network: a ResNet-18 for small images that crops its own feature map (paper, section 3.1).

Shapes: B batch, V crops an image (10, or 1 for the baseline), K classes; images `[B, 3, H, W]`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from fer_voting.models.crops import ten_crops
from fer_voting.models.lean import Recomputations
from fer_voting.models.voting import VotingNetwork, find_cut

STAGES = {"m1": "layer1", "m2": "layer2", "m3": "layer3"}
"""The paper's modules, by torchvision's names."""

MEMORY = ("paper", "lean")

LEAN_AND_SYNC_BATCHNORM = (
    "model.memory=lean cannot be trained with trainer.sync_batchnorm=true: the backward pass would recompute with the "
    "statistics of one process what the forward pass normalised with those of all; choose model.memory=paper or "
    "trainer.sync_batchnorm=false"
)
"""The message of what `VotingResNet18` and the training refuse."""


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

    Raises ValueError if `split` or `memory` is unknown or a number is not positive.
    """

    backbone: "SmallResNet18"

    def __init__(
        self,
        split: str = "m1",
        num_classes: int = 7,
        width: int = 64,
        memory: str = "paper",
        image_size: int | None = None,
    ) -> None:
        if memory not in MEMORY:
            raise ValueError(f"`memory` (={memory!r}) must be one of {', '.join(MEMORY)}")
        for name, value in {"num_classes": num_classes, "width": width}.items():
            if value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1")
        crop_after = find_cut(split, STAGES)
        recomputations = Recomputations() if memory == "lean" else None
        super().__init__(SmallResNet18(num_classes, width, recomputations), crop_after, image_size, STAGES)
        self.split = split
        self.num_classes = num_classes
        self.width = width
        self.recomputations = recomputations

    def forward(self, images: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` (float) -> crop logits `[B, V, K]`.

        Raises ValueError if the map to be cropped is too small, or if `memory` is lean and BatchNorm is synchronised.
        """
        if self.recomputations is None:
            return super().forward(images)
        bn1 = self.backbone.bn1
        if isinstance(bn1, nn.SyncBatchNorm) and bn1.training:
            raise ValueError(LEAN_AND_SYNC_BATCHNORM)
        with self.recomputations:
            return super().forward(images)

    def crop(self, maps: Tensor) -> Tensor:
        crops = super().crop(maps)
        if self.recomputations is not None:
            get_maps = self.recomputations.getter(maps)
            self.recomputations.discard(crops, lambda: ten_crops(get_maps()).flatten(0, 1))
        return crops


class SmallResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem of stride 1 and no max-pool: images `[B, 3, H, W]` -> logits `[B, K]`.

    Args:
        num_classes: K.
        width: channels of module 1, doubled at each further module.
        recomputations: recompute the activations that are not outputs of convolutions, within their context.
    """

    def __init__(self, num_classes: int, width: int, recomputations: Recomputations | None = None) -> None:
        super().__init__()
        self.recomputations = recomputations
        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _module(width, width, 1, recomputations)
        self.layer2 = _module(width, 2 * width, 2, recomputations)
        self.layer3 = _module(2 * width, 4 * width, 2, recomputations)
        self.layer4 = _module(4 * width, 8 * width, 2, recomputations)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width, num_classes)

        for module in self.modules():  # as torchvision initialises its resnet18
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = _activate(self.bn1, self.conv1(x), None, self.recomputations)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class ResidualBlock(BasicBlock):
    """torchvision's block of two convolutions, whose other activations are recomputed if `recomputations` is given."""

    def __init__(self, channels_in: int, channels: int, stride: int, recomputations: Recomputations | None) -> None:
        shortcut = None
        if stride != 1 or channels_in != channels:
            shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )
        super().__init__(channels_in, channels, stride, shortcut)
        self.recomputations = recomputations

    def forward(self, x: Tensor) -> Tensor:
        y = _activate(self.bn1, self.conv1(x), None, self.recomputations)
        return _activate(self.bn2, self.conv2(y), self._shortcut(x), self.recomputations)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.downsample is None:
            return x
        convolution, batch_norm = self.downsample
        y = convolution(x)
        if self.recomputations is None:
            return batch_norm(y)
        # 1x1 on every fourth pixel: 1.5 % of the network's arithmetic, but a fifth of the outputs' memory.
        get_x, dtype = self.recomputations.getter(x), y.dtype
        self.recomputations.discard(
            y, lambda: F.conv2d(get_x(), convolution.weight.to(dtype), stride=convolution.stride)
        )
        get_y = self.recomputations.getter(y)
        shortcut = batch_norm(y)
        self.recomputations.discard(shortcut, lambda: _normalise(batch_norm, get_y()))
        return shortcut


def _module(channels_in: int, channels: int, stride: int, recomputations: Recomputations | None) -> nn.Sequential:
    """Two residual blocks. torchvision's own constructor has 64 channels fixed."""
    return nn.Sequential(
        ResidualBlock(channels_in, channels, stride, recomputations),
        ResidualBlock(channels, channels, 1, recomputations),
    )


def _activate(
    batch_norm: nn.BatchNorm2d, y: Tensor, shortcut: Tensor | None, recomputations: Recomputations | None
) -> Tensor:
    """ReLU of the normalised `y` plus the shortcut, in place as in torchvision."""
    z = batch_norm(y)
    if shortcut is not None:
        z += shortcut
    if recomputations is not None:
        get_y = recomputations.getter(y)
        get_shortcut = None if shortcut is None else recomputations.getter(shortcut)

        def compute() -> Tensor:
            z = _normalise(batch_norm, get_y())
            return F.relu_(z if get_shortcut is None else z.add_(get_shortcut()))

        recomputations.discard(z, compute)
    return F.relu_(z)


def _normalise(batch_norm: nn.BatchNorm2d, y: Tensor) -> Tensor:
    """`batch_norm(y)`, without an update of the running statistics."""
    training = batch_norm.training
    mean, variance = (None, None) if training else (batch_norm.running_mean, batch_norm.running_var)
    return F.batch_norm(y, mean, variance, batch_norm.weight, batch_norm.bias, training, eps=batch_norm.eps)
