"""The flow that all data sets share: find the layout, pack, divide, deal out batches."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fer_voting.data.augment import Augment
from fer_voting.data.division import Positions
from fer_voting.data.index import Index, Problem
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
    stamp,
)
from fer_voting.data.sampling import EpochSampler, EvalSampler, Key, target_count

__all__ = ["FERDataModule", "FilesDataModule", "Layout", "Source", "normalise"]

log = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor, Tensor]
Counts = dict[str, dict[str, int]]


def normalise(images: Tensor) -> Tensor:
    """uint8 0 to 255 -> float32 (x / 255 - 0.5) / 0.25, i.e. -2 to 2; shape and memory format stay."""
    return images.to(torch.float32).div_(255 * 0.25).sub_(2.0)


@dataclass(frozen=True)
class Source:
    """What a pack is made of: `read` lists the samples, `decoder` makes their pictures."""

    identity: Identity
    read: Callable[[], Index]
    decoder: Decoder = decode_all


class PackedImages(Dataset[Batch]):
    """A pack's pictures by whole batches: `dataset[[(epoch, position), ...]]`, one read and one copy a batch."""

    def __init__(self, pack: Pack, targets: NDArray[Any], augment: Augment | None, seed: int) -> None:
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
        classes: 7, or 8 where the data set has contempt.
        size: side of the images in pixels.
        batch_size: images a batch and process.
        seed: of the run: order and augmentation.
        data_seed: of the data set: drawn divisions. Apart from `seed`, so that runs that differ in their seed only
            train and are judged on the same images.
        balance: `target`: images a class and epoch (see `sampling.target_count`).
        augment: changes of training images.
        cache_dir: where packs and manifests lie.
        num_workers: processes that load batches; `auto`: none where the CPU trains, else up to 8.
        drop_leaks: train without the images that also occur in validation or test.
        manifest: a CSV file as `manifest_file` writes it, whose division is used instead of `divide`.
        refit: train on training + validation; there is then no validation.
    """

    expected: ClassVar[Mapping[str, Mapping[str, int]]] = {}  # official split -> class -> images
    class_choices: ClassVar[tuple[int, ...]] = (7,)
    synthetic: ClassVar[bool] = False

    def __init__(
        self,
        *,
        name: str,
        cache_dir: str | Path,
        classes: int = 7,
        size: int = 48,
        batch_size: int = 135,
        seed: int = 0,
        data_seed: int = 0,
        balance: Mapping[str, Any] | None = None,
        augment: Augment | None = None,
        num_workers: int | str = "auto",
        drop_leaks: bool = False,
        manifest: str | Path | None = None,
        refit: bool = False,
    ) -> None:
        super().__init__()
        if classes not in self.class_choices:
            choices = " or ".join(map(str, self.class_choices))
            raise ValueError(f"dataset.classes={classes}: {name} has {choices} classes")
        for argument, value, least in (("size", size, 8), ("batch_size", batch_size, 2)):
            if value < least:
                raise ValueError(f"dataset.{argument}={value} must be at least {least}")
        if num_workers != "auto" and not (isinstance(num_workers, int) and num_workers >= 0):
            raise ValueError(f"dataset.num_workers={num_workers} must be auto or a number from 0")
        self.name = name
        self.class_names: tuple[str, ...] = CLASSES[:classes]
        self.size, self.batch_size, self.seed, self.data_seed = size, batch_size, seed, data_seed
        self.balance_target = (balance or {"target": "none"})["target"]
        self.augment, self.num_workers = augment, num_workers
        self.cache_dir = Path(cache_dir)
        self.drop_leaks, self.refit = drop_leaks, refit
        self.manifest = Path(manifest) if manifest is not None else None
        self._pack: Pack | None = None
        self._division: dict[str, Positions] = {}

    # What a data set says of itself ---------------------------------------------------------------------------

    @abstractmethod
    def source(self) -> Source:
        """What the pack is made of. Its identity must change with everything that could change the pack."""

    @abstractmethod
    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> dict[str, Positions]:
        """Positions of the usable images that train, validate and test; "test" is missing where there are none.

        Args:
            usable: bool [N]: can be decoded, and is of one of `class_names`.
        """

    def check(self, pack: Pack) -> None:
        """Stop, or warn, if too much of the pack is amiss."""

    # The flow -------------------------------------------------------------------------------------------------

    def pack(self) -> Pack:
        """The opened pack, made if need be."""
        if self._pack is None:
            source = self.source()
            # The folder's name tells packs apart that may live side by side; the identity tells fresh from stale.
            place = {key: value for key, value in source.identity.items() if key not in ("source", "preparation")}
            key = content_hash(repr(sorted(place.items())).encode()).hex()[:8]
            folder = self.cache_dir / f"{self.name}-{self.size}px-{key}"
            self._pack = build_pack(folder, source.identity, source.read, source.decoder, **self._build_options())
        return self._pack

    def _build_options(self) -> dict[str, Any]:
        return {}

    def setup(self, stage: str | None = None) -> None:
        """Open the pack (make it if need be) and divide it. Doing it twice does it once."""
        if self._division:
            return
        pack = self.pack()
        self.check(pack)
        self.class_names = self._class_names(pack)
        self._labels = self._class_ids(pack)
        usable = pack.good & (self._labels >= 0)
        division = self._usual_division(pack, usable)
        if self.refit:
            division["train"] = np.sort(np.concatenate([division["train"], division.pop("val")]))
        if self.drop_leaks:
            division["train"] = self._without_leaks(pack, division)
        for name, positions in division.items():
            if not len(positions):
                raise ValueError(f"{self.name}: there are no {name} images (class names: {self.class_names})")
        self._division = division
        if "test" not in division:
            log.warning("%s has no test images here: the test stage is left out", self.name)
        self._report_counts()
        self.manifest_file = self.cache_dir / "manifests" / f"{self.name}-{self.fingerprint[:12]}.csv"
        if not self.manifest_file.exists():
            write_manifest(self.manifest_file, pack, division)
        log.info("division written to %s (dataset.manifest=FILE uses it again)", self.manifest_file)

    def _class_names(self, pack: Pack) -> tuple[str, ...]:
        return self.class_names

    def _class_ids(self, pack: Pack) -> NDArray[np.int64]:
        """Class of every row as a position in `class_names`, -1 for a label that is not among them: int64 [N]."""
        ids = [self.class_names.index(label) if label in self.class_names else -1 for label in pack.labels]
        return np.array(ids, np.int64)[pack.label_ids]

    def _usual_division(self, pack: Pack, usable: NDArray[np.bool_]) -> dict[str, Positions]:
        if self.manifest is None:
            return self.divide(pack, usable)
        return read_manifest(self.manifest, pack, usable)

    def _without_leaks(self, pack: Pack, division: Mapping[str, Positions]) -> Positions:
        judged = np.concatenate([positions for name, positions in division.items() if name != "train"])
        leaks = np.isin(pack.hashes[division["train"]], pack.hashes[judged])
        log.info("%s: %d training images also occur in validation or test: left out", self.name, leaks.sum())
        return division["train"][~leaks]

    def _report_counts(self) -> None:
        counts = self.counts()
        for name, classes in counts.items():
            log.info("%s %s: %d images (%s)", self.name, name, sum(classes.values()), _listed(classes))
        for label in (label for label, count in counts["train"].items() if not count):
            log.warning("%s: no training image is of class %s", self.name, label)
        target = target_count([count for count in counts["train"].values() if count], self.balance_target)
        if target is not None:
            balanced = {label: target for label, count in counts["train"].items() if count}
            log.info(
                "%s: balanced to %s: %d images an epoch (%s)",
                self.name,
                self.balance_target,
                sum(balanced.values()),
                _listed(balanced),
            )
        self._sampler = EpochSampler(
            self._division["train"],
            self._labels[self._division["train"]],
            batch_size=self.batch_size,
            seed=self.seed,
            target=target,
        )

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
        return self.pack().names(self._division[stage])

    def counts(self) -> Counts:
        """Stage -> class -> images, before balancing."""
        return {
            stage: dict(
                zip(
                    self.class_names,
                    np.bincount(self._labels[positions], minlength=len(self.class_names)).tolist(),
                    strict=True,
                )
            )
            for stage, positions in self._division.items()
        }

    @property
    def fingerprint(self) -> str:
        """Hex digest of the division: stages, names, labels, content, and how the pictures are prepared."""
        parts = [repr((PREPARATION, self.size, self.class_names)).encode()]
        for stage, positions in sorted(self._division.items()):
            parts.append(stage.encode())
            parts += [name.encode() + b"\0" for name in self.names(stage)]
            parts += [self._labels[positions].tobytes(), self.pack().hashes[positions].tobytes()]
        return content_hash(*parts).hex()

    def train_targets(self) -> NDArray[Any]:
        """What training compares with, by row: classes int64 [N]; a data set may offer float32 [N, K]."""
        return self._labels

    def train_dataloader(self) -> DataLoader[Batch]:
        if self.trainer is not None:
            # A resumed training must not show the first epoch again: Lightning sets the epoch too late.
            self._sampler.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)
        return self._loader(PackedImages(self.pack(), self.train_targets(), self.augment, self.seed), self._sampler)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        return [] if self.refit else self._evaluation("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._evaluation("test")

    def _evaluation(self, stage: str) -> DataLoader[Batch]:
        sampler = EvalSampler(self._division[stage], batch_size=self.batch_size)
        return self._loader(PackedImages(self.pack(), self._labels, None, self.seed), sampler)

    def _loader(self, images: PackedImages, sampler: EpochSampler | EvalSampler) -> DataLoader[Batch]:
        on_cpu = self.trainer is None or self.trainer.strategy.root_device.type == "cpu"
        workers = self.num_workers
        if not isinstance(workers, int):
            workers = 0 if on_cpu else min(8, cores() - 1)
        # The sampler deals out whole batches, so the loader has none to make.
        return DataLoader(
            images,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=not on_cpu,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, targets, positions = batch
        return normalise(images), targets, positions


# --------------------------------------------------------------------------------------------------------------
# Data sets that are files under a root
# --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """One way in which a data set lies on disk.

    Attributes:
        looks_for: for the user, what tells this layout, e.g. "fer2013.csv".
        find: the folder that holds it under a root, or None.
        read: everything that the folder `find` gave holds.
    """

    name: str
    looks_for: str
    find: Callable[[Path], Path | None]
    read: Callable[[Path], Index]


class FilesDataModule(FERDataModule):
    """A data set of files under `root`, in one of several layouts.

    Args:
        root: the folder that holds the data set.
        layout: `auto` takes the first layout of `layouts` that is found.
        on_error: `skip` leaves out what can't be used, `raise` stops at the first.
        max_bad_fraction: share of unusable images above which training stops.
        shared: see FERDataModule.
    """

    layouts: ClassVar[tuple[Layout, ...]] = ()

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        layout: str = "auto",
        on_error: str = "skip",
        max_bad_fraction: float = 0.01,
        **shared: Any,
    ) -> None:
        super().__init__(**shared)
        known = [layout.name for layout in self.layouts]
        if layout not in ("auto", *known):
            raise ValueError(f"dataset.layout={layout} is none of auto, {', '.join(known)}")
        if on_error not in ("skip", "raise"):
            raise ValueError(f"dataset.on_error={on_error} must be skip or raise")
        self.root, self.layout = root, layout
        self.on_error, self.max_bad_fraction = on_error, max_bad_fraction

    def find_layout(self) -> tuple[Layout, Path]:
        """The layout under `root`, and the folder in which it lies.

        Raises:
            ValueError: `root` is not set.
            FileNotFoundError: there is no such folder, or no known layout in it.
        """
        if self.root is None:
            raise ValueError(f"dataset.root is not set: give the folder that holds {self.name}, dataset.root=DIR")
        root = Path(self.root).absolute()
        if not root.is_dir():
            raise FileNotFoundError(f"dataset.root={self.root} is not a folder")
        candidates = [layout for layout in self.layouts if self.layout in ("auto", layout.name)]
        for layout in candidates:
            if (base := layout.find(root)) is not None:
                log.info("%s: found the layout %s in %s", self.name, layout.name, base)
                return layout, base
        there = sorted(entry.name for entry in root.iterdir())[:8]
        looked_for = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in candidates)
        raise FileNotFoundError(
            f"dataset.root={self.root} holds no known layout of {self.name}; looked for {looked_for}; "
            f"found {', '.join(there) or 'an empty folder'}"
        )

    def source(self) -> Source:
        layout, base = self.find_layout()
        identity = {
            "dataset": type(self).__name__,
            "layout": layout.name,
            "root": str(base),
            "size": self.size,
            "preparation": PREPARATION,
            "source": stamp(base),
        }
        return Source(identity, lambda: layout.read(base))

    def _build_options(self) -> dict[str, Any]:
        return {"stop_at_first_problem": self.on_error == "raise"}

    def check(self, pack: Pack) -> None:
        """Raises ValueError where more than `max_bad_fraction` of the images, or with on_error=raise any, is bad."""
        bad = pack.problems
        if not bad:
            return
        if self.on_error == "raise":
            raise ValueError(f"{bad[0]} (dataset.on_error=raise)")
        total = int(pack.good.sum()) + len(bad)
        told = f"{self.name}: {len(bad)} of {total} images can't be used ({_listed(_kinds(bad))}; first {bad[0]})"
        if len(bad) > self.max_bad_fraction * total:
            raise ValueError(
                f"{told}; that is more than dataset.max_bad_fraction={self.max_bad_fraction} allows: "
                "python -m fer_voting.audit with the same dataset options lists them"
            )
        log.warning("%s: left out", told)

    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> dict[str, Positions]:
        """The official parts as they are."""
        parts = {split: np.flatnonzero(usable & (pack.split_ids == i)) for i, split in enumerate(SPLITS)}
        return {split: positions for split, positions in parts.items() if len(positions) or split != "test"}


def _kinds(problems: Sequence[Problem]) -> dict[str, int]:
    return dict(Counter(problem.kind for problem in problems))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())
