"""The training as a user of Lightning would write it from the paper: `python -m experiments.bench.plain PACK ...`.

What `make bench` compares the whole command with (part `plain`): torchvision's ResNet-18 with a stem for small images,
Algorithm 1 in a loop, albumentations on one image at a time in two workers, a loss and a vote over the crops. The
images come decoded, from a pack.
"""

import argparse
from pathlib import Path
from typing import Any

import albumentations as A
import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.models import resnet18

CROP = 5 / 6
"""Side of a crop as a share of the map's."""


def algorithm_1(maps: Tensor) -> Tensor:
    """The paper's Algorithm 1, as it is written: `[B, C, H, W]` -> `[B * 10, C, h, w]`."""
    height, width = maps.shape[-2:]
    h, w = round(height * CROP), round(width * CROP)
    middle = round((height - h) / 2), round((width - w) / 2)
    corners = [(0, 0), (0, width - w), (height - h, 0), (height - h, width - w), middle]
    crops = []
    for image in maps:
        for view in (image, image.flip(-1)):
            for top, left in corners:
                crops.append(view[:, top : top + h, left : left + w])
    return torch.stack(crops)


class Network(nn.Module):
    """torchvision's ResNet-18 for small images, which crops the map behind `layer<split>`; None: no crops."""

    def __init__(self, split: int | None, classes: int) -> None:
        super().__init__()
        net = resnet18(num_classes=classes)
        net.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        net.maxpool = nn.Identity()
        self.net, self.split = net, split

    def forward(self, x: Tensor) -> Tensor:
        """Images `[B, 3, H, W]` -> logits `[B, V, classes]`, with 10 crops or one view an image."""
        images = len(x)
        x = self.net.relu(self.net.bn1(self.net.conv1(x)))
        for number in range(1, 5):
            x = getattr(self.net, f"layer{number}")(x)
            if number == self.split:
                x = algorithm_1(x)
        return self.net.fc(self.net.avgpool(x).flatten(1)).view(images, -1, self.net.fc.out_features)


class Faces(Dataset[tuple[Tensor, int]]):
    """Images of a pack (uint8 `[N, S, S, 3]`) and their labels, normalised."""

    def __init__(self, images: Any, labels: Any, transform: A.Compose | None) -> None:
        self.images, self.labels, self.transform = images, labels, transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images[index]
        if self.transform is not None:
            image = self.transform(image=image)["image"]
        return (torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 - 0.5) / 0.25, int(self.labels[index])


class Module(L.LightningModule):
    """The paper's loss, optimizer, schedule and soft vote."""

    def __init__(self, split: int | None, classes: int) -> None:
        super().__init__()
        self.net = Network(split, classes)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        logits = self.net(images)
        loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(logits.shape[1]))
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        images, labels = batch
        self.log("val_accuracy", (self.net(images).mean(1).argmax(1) == labels).float().mean())

    test_step = validation_step

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=2e-4)
        return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.85)]


def augmentation(size: int) -> A.Compose:
    """The paper's five steps, with the values of `conf/augment/paper.yaml`."""
    return A.Compose(
        [
            A.RandomResizedCrop((size, size), scale=(0.8, 1.0), ratio=(0.9, 1.1), p=0.5),
            A.ColorJitter(0.2, 0.2, 0.2, hue=0, p=0.5),
            A.Affine(translate_percent={"x": (-0.1, 0.1), "y": (-0.1, 0.1)}, p=0.5),
            A.Affine(rotate=(-10, 10), p=0.5),
            A.Erasing(scale=(0.02, 0.15), ratio=(0.3, 3.3), fill=0, p=0.5),
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pack", type=Path, help="folder with images.npy and index.npz")
    parser.add_argument("--split", choices=["baseline", "m1", "m2", "m3"], default="m1")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=135)
    parser.add_argument("--precision", default="32-true")
    parser.add_argument("--out", type=Path, default=Path("outputs/plain"))
    options = parser.parse_args(arguments)
    images = np.load(options.pack / "images.npy", mmap_mode="r")
    with np.load(options.pack / "index.npz") as index:
        labels, parts = index["labels"], index["parts"]
    train, val, test = (
        Faces(images[parts == part], labels[parts == part], augmentation(images.shape[1]) if part == 0 else None)
        for part in range(3)
    )
    L.seed_everything(0, verbose=False)
    module = Module(None if options.split == "baseline" else int(options.split[1]), int(labels.max()) + 1)
    trainer = L.Trainer(
        accelerator="cpu", max_epochs=options.epochs, precision=options.precision, num_sanity_val_steps=0,
        logger=CSVLogger(options.out), callbacks=[ModelCheckpoint(monitor="val_accuracy", mode="max", save_last=True)],
        log_every_n_steps=1, deterministic=True, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    loaders = [
        DataLoader(part, options.batch, shuffle=part is train, num_workers=2, persistent_workers=True)
        for part in (train, val, test)
    ]
    trainer.fit(module, loaders[0], loaders[1])
    trainer.test(module, loaders[2], ckpt_path="best", verbose=False, weights_only=True)


if __name__ == "__main__":
    main()
