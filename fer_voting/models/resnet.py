"""The voting residual network: a ResNet-18 for small images that crops its own feature map (paper, section 3.1).

Shapes: B batch, V crops an image (10, or 1 for the baseline), K classes; images `[B, 3, H, W]`.
"""

import contextlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from fer_voting.models.crops import ten_crops
from fer_voting.models.lean import Recipes

__all__ = ["MEMORY", "SPLITS", "VotingResNet18"]

STAGES = ("layer1", "layer2", "layer3", "layer4")

SPLITS: dict[str, int | None] = {"baseline": None, "input": 0, "m1": 1, "m2": 2, "m3": 3}
"""How many stages ("modules" in the paper) come before the crops are taken; `baseline` takes none."""

MEMORY = ("paper", "lean")


class VotingResNet18(nn.Module):
    """ResNet-18 with a 3x3 stem of stride 1 and no max-pool, cut into ten crops after a stage.

    Parameters and their names are torchvision's `resnet18`, the same for every split, so that weights travel
    between splits and to torchvision (all but `conv1`, which is 3x3 here). 11,172,423 parameters with 7 classes.

    Args:
        split: where the crops are taken: `baseline` (nowhere), `input`, or after module `m1`, `m2`, `m3`.
        num_classes: K.
        width: channels of the first stage; 64 in the paper, doubled at each further stage.
        memory: what training keeps for the backward pass: every map as in Table 2 (`paper`), or only the
            convolutions' outputs, from which the rest is made again (`lean`: under half the memory, same gradients).

    Raises ValueError if `split` or `memory` is unknown or a number is not positive.
    """

    def __init__(self, split: str = "m1", num_classes: int = 7, width: int = 64, memory: str = "paper") -> None:
        super().__init__()
        if split not in SPLITS:
            raise ValueError(f"`split` (={split!r}) must be one of {', '.join(SPLITS)}")
        if memory not in MEMORY:
            raise ValueError(f"`memory` (={memory!r}) must be one of {', '.join(MEMORY)}")
        for name, value in {"num_classes": num_classes, "width": width}.items():
            if value < 1:
                raise ValueError(f"`{name}` (={value}) must be at least 1")
        self.split = split
        self.num_classes = num_classes
        self.width = width
        self.recipes = recipes = Recipes() if memory == "lean" else None

        self.conv1 = nn.Conv2d(3, width, kernel_size=3, stride=1, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, stride=1, recipes=recipes)
        self.layer2 = _stage(width, 2 * width, stride=2, recipes=recipes)
        self.layer3 = _stage(2 * width, 4 * width, stride=2, recipes=recipes)
        self.layer4 = _stage(4 * width, 8 * width, stride=2, recipes=recipes)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(8 * width, num_classes)

        for module in self.modules():  # as torchvision initialises its resnet18
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` (float) -> crop logits `[B, V, K]`.

        Raises ValueError if the map to be cropped is too small for crops of 5/6 of its sides.
        """
        batch = x.shape[0]
        with contextlib.nullcontext() if self.recipes is None else self.recipes:
            features = self._features(x)
        return self.fc(features).unflatten(0, (batch, -1))

    def _features(self, x: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` -> what the last layer sees of each crop, `[B * V, 8 * width]`."""
        crops_after = SPLITS[self.split]
        if crops_after == 0:
            x = self._crop(x)
        x = _activate(self.bn1, self.conv1(x), None, self.recipes)
        for stages_done, stage in enumerate(STAGES, start=1):
            x = getattr(self, stage)(x)
            if stages_done == crops_after:
                x = self._crop(x)
        return torch.flatten(self.avgpool(x), 1)

    def _crop(self, x: Tensor) -> Tensor:
        """Maps `[B, C, H, W]` -> their crops, image by image, `[B * 10, C, h, w]`."""
        crops = ten_crops(x).flatten(0, 1)
        if self.recipes is not None:
            x_again = self.recipes.again(x)
            self.recipes.instead_of(crops, lambda: ten_crops(x_again()).flatten(0, 1))
        return crops


class ResidualBlock(BasicBlock):
    """torchvision's block of two convolutions, which can also leave to `recipes` what it computes cheaply."""

    def __init__(self, channels_in: int, channels: int, stride: int, recipes: Recipes | None) -> None:
        shortcut = None
        if stride != 1 or channels_in != channels:
            shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(channels),
            )
        super().__init__(channels_in, channels, stride, shortcut)
        self.recipes = recipes

    def forward(self, x: Tensor) -> Tensor:
        y = _activate(self.bn1, self.conv1(x), None, self.recipes)
        return _activate(self.bn2, self.conv2(y), self._shortcut(x), self.recipes)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.downsample is None:
            return x
        convolution, batch_norm = self.downsample
        y = convolution(x)
        if self.recipes is None:
            return batch_norm(y)
        # 1x1 of every fourth pixel: 1.5 % of the network's arithmetic, but a fifth of what the outputs take.
        x_again, dtype = self.recipes.again(x), y.dtype
        self.recipes.instead_of(y, lambda: F.conv2d(x_again(), convolution.weight.to(dtype), stride=convolution.stride))
        y_again = self.recipes.again(y)
        shortcut = batch_norm(y)
        self.recipes.instead_of(shortcut, lambda: _normalise(batch_norm, y_again()))
        return shortcut


def _stage(channels_in: int, channels: int, stride: int, recipes: Recipes | None) -> nn.Sequential:
    """Two residual blocks; torchvision's own constructor of it is tied to 64 channels."""
    return nn.Sequential(
        ResidualBlock(channels_in, channels, stride, recipes),
        ResidualBlock(channels, channels, 1, recipes),
    )


def _activate(batch_norm: nn.BatchNorm2d, y: Tensor, shortcut: Tensor | None, recipes: Recipes | None) -> Tensor:
    """ReLU of the normalised `y` plus the shortcut, in place as in torchvision."""
    z = batch_norm(y)
    if shortcut is not None:
        z += shortcut
    if recipes is not None:
        y_again = recipes.again(y)
        shortcut_again = None if shortcut is None else recipes.again(shortcut)

        def make() -> Tensor:
            z = _normalise(batch_norm, y_again())
            return F.relu_(z if shortcut_again is None else z.add_(shortcut_again()))

        recipes.instead_of(z, make)
    return F.relu_(z)


def _normalise(batch_norm: nn.BatchNorm2d, y: Tensor) -> Tensor:
    """`batch_norm(y)` a second time, leaving the running statistics as they are."""
    training = batch_norm.training
    mean, variance = (None, None) if training else (batch_norm.running_mean, batch_norm.running_var)
    return F.batch_norm(y, mean, variance, batch_norm.weight, batch_norm.bias, training, eps=batch_norm.eps)
