"""The flow that all data sets share: find the layout, pack, divide, deal out batches."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import lightning as L
import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fer_voting.data.augment.batched import BatchedAugment
from fer_voting.data.index import Index
from fer_voting.data.labels import CLASSES
from fer_voting.data.manifest import read_manifest, write_manifest
from fer_voting.data.pack import (
    PREPARATION,
    SPLITS,
    Decoder,
    Identity,
    Pack,
    build_pack,
    content_hash,
    cores,
    decode_all,
)
from fer_voting.data.resident import ResidentImages, fits, load
from fer_voting.data.sampling import EpochSampler, EvalSampler, Key, Positions, target_count

if TYPE_CHECKING:
    from fer_voting.data.augment.by_albumentations import AlbumentationsAugment

__all__ = ["Counts", "Division", "FERDataModule", "Source", "listed", "make_datamodule", "normalise"]

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor, Tensor]
"""images, targets, positions in the pack"""
Counts = Mapping[str, Mapping[str, int]]
"""split or stage -> class -> images"""
Division = dict[str, Positions]
"""stage ("train", "val", "test") -> positions in the pack"""


def make_datamodule(node: Mapping[str, Any], **arguments: Any) -> FERDataModule:
    """The data module of a resolved configuration's `dataset` node.

    What the node says about training is left out; `arguments` overrule the node.
    """
    return instantiate({k: v for k, v in node.items() if k not in ("schedule", "init_from")}, **arguments)


def normalise(images: Tensor) -> Tensor:
    """uint8 0 to 255 -> float32 (x / 255 - 0.5) / 0.25, i.e. -2 to 2; shape and memory format stay."""
    return images.to(torch.float32).div_(255 * 0.25).sub_(2.0)


@dataclass(frozen=True)
class Source:
    """What a pack is made of: `read` lists the samples, `decoder` makes their pictures."""

    identity: Identity
    read: Callable[[], Index]
    decoder: Decoder = decode_all
    expected: Counts = field(default_factory=dict)  # published numbers of images by official split


class PackedImages(Dataset[Batch]):
    """A pack's pictures by whole batches: `dataset[[(epoch, position), ...]]`, one read and one copy a batch."""

    def __init__(
        self, pack: Pack, targets: NDArray[Any], augment: AlbumentationsAugment | None = None, seed: int = 0
    ) -> None:
        self.pack, self.targets, self.augment, self.seed = pack, targets, augment, seed

    def __getitem__(self, keys: Sequence[Key]) -> Batch:
        """images uint8 [B, 3, S, S] in channels_last order, targets [B] or [B, K], positions int64 [B]."""
        positions = np.array([position for _, position in keys], np.int64)
        images_BHWC = self.pack.images[positions]
        if self.augment is not None:
            images_BHWC = self.augment(images_BHWC, keys, self.seed)
        images = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2)
        return images, torch.from_numpy(self.targets[positions]), torch.from_numpy(positions)


class FERDataModule(L.LightningDataModule):
    """A data set. Subclasses say what it is made of (`source`) and how it is divided (`divide`).

    Args:
        name: of the data set, in run and folder names.
        cache_dir: where packs and manifests lie.
        classes: 7, or 8 where the data set has contempt.
        size: side of the images in pixels.
        batch_size: images a batch and process.
        seed: of the run: order and augmentation.
        data_seed: of the data set: drawn divisions. Apart from `seed`, so that runs that differ in their seed only
            train and are judged on the same images.
        balance: `target`: images a class and epoch (see `sampling.target_count`).
        augment: changes of training images.
        num_workers: processes that load batches; `auto`: none where the CPU trains, else up to 8.
        resident: keep all pictures on the device that trains; `auto`: where it is a GPU with room for them.
        drop_leaks: train without the images that also occur in validation or test.
        manifest: a CSV file such as `manifest_file`, whose division is used instead of `divide`.
        refit: train on training + validation; there is then no validation.
    """

    class_choices: ClassVar[tuple[int | None, ...]] = (7,)
    synthetic: ClassVar[bool] = False
    on_error: str = "skip"

    def __init__(
        self,
        *,
        name: str,
        cache_dir: str | Path,
        classes: int | None = 7,
        size: int = 48,
        batch_size: int = 135,
        seed: int = 0,
        data_seed: int = 0,
        balance: Mapping[str, Any] | None = None,
        augment: AlbumentationsAugment | BatchedAugment | None = None,
        num_workers: int | str = "auto",
        resident: bool | str = "auto",
        drop_leaks: bool = False,
        manifest: str | Path | None = None,
        refit: bool = False,
    ) -> None:
        super().__init__()
        if classes not in self.class_choices:
            choices = " or ".join(map(str, self.class_choices))
            raise ValueError(f"dataset.classes={classes} must be {choices} for {name}")
        for argument, value, least in (("size", size, 8), ("batch_size", batch_size, 2)):
            if value < least:
                raise ValueError(f"dataset.{argument}={value} must be at least {least}")
        if num_workers != "auto" and not (isinstance(num_workers, int) and num_workers >= 0):
            raise ValueError(f"dataset.num_workers={num_workers} must be auto, 0 or more")
        if resident != "auto" and not isinstance(resident, bool):
            raise ValueError(f"dataset.resident={resident} must be auto, true or false")
        on_device = augment is None or isinstance(augment, BatchedAugment)
        if resident is True and not on_device:
            raise ValueError("dataset.resident=true is for augment.backend=batched, which works where the pictures are")
        self.name: str = name
        self.cache_dir = Path(cache_dir)
        self.class_names: tuple[str, ...] = CLASSES[:classes]
        self.size, self.batch_size, self.seed, self.data_seed = size, batch_size, seed, data_seed
        self.balance_target = (balance or {"target": "none"})["target"]
        self.augment, self.num_workers = augment, num_workers
        self.resident = resident if on_device else False
        self.drop_leaks, self.refit = drop_leaks, refit
        self.manifest = None if manifest is None else Path(manifest)
        self._division: Division = {}
        self._on_device: Tensor | None = None

    # What a data set says of itself ---------------------------------------------------------------------------

    @abstractmethod
    def source(self) -> Source:
        """What the pack is made of. Its identity must change with everything that could change the pack."""

    @abstractmethod
    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        """Positions of the usable images (bool [N]) that train, validate and test; no "test" where none can."""

    def names_of_classes(self, pack: Pack) -> tuple[str, ...]:
        """The classes, in the order in which the network's outputs stand for them."""
        return self.class_names

    def usable(self, pack: Pack) -> NDArray[np.bool_]:
        """bool [N]: can be decoded and is of one of the classes."""
        return pack.good & (self.class_ids(pack) >= 0)

    def train_targets(self, pack: Pack) -> NDArray[Any]:
        """What training compares with, by row: classes int64 [N]; a data set may offer shares float32 [N, K]."""
        return self.class_ids(pack)

    def check(self, pack: Pack) -> None:
        """Stop, or warn, if too much of the pack is amiss."""

    # The flow -------------------------------------------------------------------------------------------------

    def make_pack(self) -> Pack:
        """Open the pack, made anew if it is not there or not fresh."""
        source = self.source()
        # The folder's name tells apart what may lie side by side; the whole identity tells fresh from stale.
        place = {key: value for key, value in source.identity.items() if key not in ("source", "preparation")}
        key = content_hash(repr(sorted(place.items())).encode()).hex()[:8]
        folder = self.cache_dir / f"{self.name}-{self.size}px-{key}"
        self.expected = source.expected
        stop = self.on_error == "raise"
        self.pack = build_pack(folder, source.identity, source.read, source.decoder, stop_at_first_problem=stop)
        self.class_names = self.names_of_classes(self.pack)
        return self.pack

    def setup(self, stage: str | None = None) -> None:
        """Open the pack (make it if need be) and divide it. Doing it twice does it once."""
        if self._division:
            return
        pack = self.make_pack()
        self.check(pack)
        self._labels = self.class_ids(pack)
        self._targets = self.train_targets(pack)
        usable = self.usable(pack)
        self._compare_with_expected(pack, usable)
        division = read_manifest(self.manifest, pack, usable) if self.manifest else self.divide(pack, usable)
        for name in {"train", "val", *division}:
            if not len(division.get(name, ())):
                raise ValueError(f"{self.name}: there are no {name} images of the classes {self.class_names}")
        if self.refit:
            division["train"] = np.sort(np.concatenate([division["train"], division.pop("val")]))
        if self.drop_leaks:
            division["train"] = self._without_leaks(pack, division)
        self._division = division
        self._make_sampler()
        self._write_manifest()
        if not self.has_test:
            log.info(f"{self.name}: there are no test images here, so the test stage is left out")

    def class_ids(self, pack: Pack) -> NDArray[np.int64]:
        """Class of every row as a position in `class_names`, -1 for a label that is not among them: int64 [N]."""
        ids = [self.class_names.index(label) if label in self.class_names else -1 for label in pack.labels]
        return np.array(ids, np.int64)[pack.label_ids]

    def official_counts(self, pack: Pack, usable: NDArray[np.bool_]) -> dict[str, dict[str, int]]:
        """Images of each class in each official split that has any; a row counts where `usable` (bool [N])."""
        counts: dict[str, dict[str, int]] = {}
        for split_id, split in enumerate(SPLITS):
            if (rows := usable & (pack.split_ids == split_id)).any():
                counts[split] = self._count(self.class_ids(pack)[rows])
        return counts

    def _count(self, class_ids: NDArray[np.int64]) -> dict[str, int]:
        counts = np.bincount(class_ids, minlength=len(self.class_names)).tolist()
        return dict(zip(self.class_names, counts, strict=True))

    def _compare_with_expected(self, pack: Pack, usable: NDArray[np.bool_]) -> None:
        for split, found in self.official_counts(pack, usable).items():
            published = {label: self.expected.get(split, {}).get(label, count) for label, count in found.items()}
            if found != published:
                different = ", ".join(
                    f"{label} {count:,} instead of {published[label]:,}"
                    for label, count in found.items()
                    if count != published[label]
                )
                log.warning(
                    f"{self.name}: the official {split} part has {sum(found.values()):,} images here "
                    f"instead of {sum(published.values()):,} ({different})"
                )

    def _without_leaks(self, pack: Pack, division: Division) -> Positions:
        judged = np.concatenate([np.empty(0, np.int64), *(p for stage, p in division.items() if stage != "train")])
        leaks = np.isin(pack.hashes[division["train"]], pack.hashes[judged])
        log.info(f"{self.name}: left out {leaks.sum()} training images that also occur in validation or test")
        return division["train"][~leaks]

    def _make_sampler(self) -> None:
        train = self._division["train"]
        for stage, classes in self.counts().items():
            log.info(f"{self.name}: {stage}: {sum(classes.values()):,} images ({listed(classes)})")
        counts = [count for count in self.counts()["train"].values() if count]
        target = target_count(counts, self.balance_target)
        self._sampler = EpochSampler(
            train, self._labels[train], batch_size=self.batch_size, seed=self.seed, target=target
        )
        if target is not None:
            log.info(
                f"{self.name}: balanced ({self.balance_target}): {self.train_size:,} images an epoch, "
                f"{target:,} of each class"
            )

    def _write_manifest(self) -> None:
        self.manifest_file = self.cache_dir / "manifests" / f"{self.name}-{self.fingerprint[:12]}.csv"
        if not self.manifest_file.exists():
            write_manifest(self.manifest_file, self.pack, self._division)
            log.info(f"{self.name}: division written to {self.manifest_file}; dataset.manifest=FILE uses it again")

    # What training relies on ----------------------------------------------------------------------------------

    @property
    def has_test(self) -> bool:
        return "test" in self._division

    @property
    def train_size(self) -> int:
        """Images an epoch, after balancing."""
        return self._sampler.epoch_size

    def positions(self, stage: str) -> Positions:
        """Positions in the pack of a stage's images, in the order of evaluation."""
        return self._division[stage]

    def names(self, stage: str) -> list[str]:
        """Sample names of a stage, in the order of evaluation."""
        return self.pack.names(self._division[stage])

    def counts(self) -> dict[str, dict[str, int]]:
        """Stage -> class -> images, before balancing."""
        return {stage: self._count(self._labels[positions]) for stage, positions in self._division.items()}

    @cached_property
    def fingerprint(self) -> str:
        """Hex digest of the division: stages, names, labels, content, and how the pictures are prepared."""
        parts = [repr((PREPARATION, self.size, self.class_names)).encode()]
        for stage, positions in sorted(self._division.items()):
            parts.append(stage.encode())
            parts += [name.encode() + b"\0" for name in self.names(stage)]
            parts += [self._labels[positions].tobytes(), self.pack.hashes[positions].tobytes()]
        return content_hash(*parts).hex()

    def data_summary(self) -> dict[str, Any]:
        """The fingerprint and what explains a difference, as plain values."""
        return {"fingerprint": self.fingerprint, "classes": list(self.class_names), "counts": self.counts()}

    def train_dataloader(self) -> DataLoader[Batch]:
        if self.trainer is not None:
            # A resumed training must not show the first epoch again: Lightning sets the epoch only after the
            # loader's workers have begun.
            progress = self.trainer.fit_loop.epoch_progress.current
            self._sampler.set_epoch(progress.processed)  # type: ignore[attr-defined]
        return self._loader(self._targets, self.augment, self._sampler)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        return [] if self.refit else self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation("test")

    def _evaluation(self, stage: str) -> DataLoader[Batch]:
        return self._loader(self._labels, None, EvalSampler(self._division[stage], batch_size=self.batch_size))

    def _loader(
        self,
        targets: NDArray[Any],
        augment: AlbumentationsAugment | BatchedAugment | None,
        sampler: EpochSampler | EvalSampler,
    ) -> DataLoader[Batch]:
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        # The sampler deals out whole batches, so the loader has none to make.
        if fits(self.pack, device) if self.resident == "auto" else self.resident:
            if self._on_device is None:
                self._on_device = load(self.pack, device)
            return DataLoader(ResidentImages(self._on_device, targets), batch_size=None, sampler=sampler)
        by_image = None if isinstance(augment, BatchedAugment) else augment
        workers = self.num_workers
        if not isinstance(workers, int):
            workers = 0 if device.type == "cpu" else min(8, cores() - 1)
        return DataLoader(
            PackedImages(self.pack, targets, by_image, self.seed),
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=device.type != "cpu",
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, targets, positions = batch
        if isinstance(self.augment, BatchedAugment) and self.trainer is not None and self.trainer.training:
            keys = torch.stack([torch.full_like(positions, self.trainer.current_epoch), positions], dim=1)
            images = self.augment(images, keys, self.seed)
        return normalise(images), targets, positions


def listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
