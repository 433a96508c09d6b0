"""The data module that all data sets share: open the pack, divide it, produce batches."""

from __future__ import annotations

import logging
import re
import shutil
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from fer_voting.data.augment.batched import BatchedAugment
from fer_voting.data.batches import Batch, BatchDataset, Change, TrainingBatch
from fer_voting.data.division import (
    Division,
    copies_between,
    count_classes,
    differences,
    format_counts,
    official_counts,
    official_parts,
    part_digest,
    renamed_counts,
    without_leaks,
)
from fer_voting.data.groups import check_folds, check_group, group_words, groups_between, number_groups
from fer_voting.data.images import content_hash
from fer_voting.data.index import PARTS, folded
from fer_voting.data.labels import CLASSES, as_class_map, canonical_or_own, in_order, read_class_map
from fer_voting.data.manifest import read_manifest, write_manifest
from fer_voting.data.pack import Pack, Source, build_pack
from fer_voting.data.sampling import (
    AGAIN,
    EpochSampler,
    EvalSampler,
    Positions,
    fold_of_each,
    join_groups,
    sample_share,
    target_count,
)
from fer_voting.models.images import as_grey, normalise
from fer_voting.system.atomic import json_digest
from fer_voting.system.machine import usable_cores
from fer_voting.system.text import check_output_names, counted, escape
from fer_voting.targets import Classes, Target

if TYPE_CHECKING:
    from fer_voting.data.augment.by_albumentations import AlbumentationsAugment

log = logging.getLogger(__name__)

RESIDENT_SHARE = 0.25
"""Share of a GPU's free memory that a pack may take. AffectNet at 48 pixels has 2 GB."""

LOADER_TIMEOUT_SECONDS = 300
"""A batch that workers have not made in this time never comes: a worker that has lost its thread waits for ever."""


def check_shared_memory(batch_bytes: int, workers: int, folder: Path = Path("/dev/shm")) -> None:
    """Raises OSError if the memory through which workers hand over their batches can't hold one batch of each."""
    if not folder.is_dir():
        return  # macOS has no such folder
    free = shutil.disk_usage(folder).free
    if free < workers * batch_bytes:
        raise OSError(
            f"dataset.num_workers={workers}: loader workers hand over their batches through {folder}, which has "
            f"{free / 2**20:.1f} MiB free and needs at least {workers * batch_bytes / 2**20:.1f} MiB: set "
            "dataset.num_workers=0, or give the container more (docker run --shm-size=1g)"
        )


class FERDataModule(L.LightningDataModule):
    """A data set. Subclasses define its source (`source`) and its division (`divide`).

    Args:
        name: of the data set, used in run and folder names.
        cache_dir: folder of packs and manifests.
        classes: 7, or 8 if the data set has contempt.
        size: side of the images in pixels.
        batch_size: images per global batch, shared out over the ranks (see `EpochSampler`).
        seed: of the run: order and augmentation.
        data_seed: of the data set: random divisions. Separate from `seed`, so that runs that differ only in their
            seed use the same training, validation and test images.
        balance: `target`: images per class and epoch (see `sampling.target_count`).
        augment: changes of training images.
        full_resolution_too: a training batch has its images a second time, with all changes but `low_resolution`.
        num_workers: processes that load batches; `auto`: none on a CPU, else up to 8, as a rank's share of the
            cores allows.
        resident: keep all images on the training device; `auto`: on a GPU with enough memory.
        drop_leaks: leave out training images that also occur in validation or test, and validation images that also
            occur in test.
        manifest: a CSV file such as `manifest_file`, whose division replaces `divide`.
        refit: train on training + validation; there is then no validation.
        target: what is trained and evaluated (`fer_voting.targets`); None: the data set's `own_target`.
        group: images of a group stay in one part where parts are sampled (`groups.group_words`).
        folds: number of parts for cross-validation; `groups`: one for each group.
        fold: of these, the part that tests; the next one validates, and the rest trains.
        class_map: class -> its other name, or None to leave its images out; or such a mapping as YAML.
        needs: the parts that must have images; an evaluation needs only its own.
    """

    class_choices: ClassVar[tuple[int | None, ...]] = (7,)
    synthetic: ClassVar[bool] = False
    numbers: ClassVar[tuple[str, ...]] = ()
    """Names of its columns that are numbers (`fer_voting.targets.NUMBERS`)."""
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
        full_resolution_too: bool = False,
        num_workers: int | str = "auto",
        resident: bool | str = "auto",
        drop_leaks: bool = False,
        manifest: str | Path | None = None,
        refit: bool = False,
        target: Target | None = None,
        group: str | None = None,
        folds: int | str | None = None,
        fold: int | None = None,
        class_map: Mapping[Any, str | None] | str | None = None,
        needs: Sequence[str] = ("train", "val"),
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
        by_batch = augment is None or isinstance(augment, BatchedAugment)
        if resident is True and not by_batch:
            raise ValueError("dataset.resident=true needs augment.backend=batched, which runs on the images' device")
        if not isinstance(full_resolution_too, bool):
            raise ValueError(f"distillation.full_resolution={full_resolution_too} must be true or false")
        if full_resolution_too and not (isinstance(augment, BatchedAugment) and augment.low_resolution):
            raise ValueError(
                "distillation.full_resolution=true shows the teacher the images before augment.low_resolution: it "
                "needs that step and augment.backend=batched, e.g. augment=low_resolution"
            )
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"dataset.name={name!r} must consist of letters, digits, '.', '_' and '-'")
        if target is not None and (lacking := [number for number in target.numbers if number not in self.numbers]):
            raise ValueError(
                f"{name} has no {' and '.join(lacking)}: dataset=affectnet and faces have, and dataset=folder by its "
                "labels.csv"
            )
        check_group(group)
        check_folds(folds, fold, group, manifest)
        self.group, self.folds, self.fold = group, folds, fold
        self.name: str = name
        self.cache_dir = Path(cache_dir)
        self.class_names: tuple[str, ...] = CLASSES[:classes]
        self.size, self.batch_size, self.seed, self.data_seed = size, batch_size, seed, data_seed
        self.balance_target = (balance or {"target": "none"})["target"]
        self.augment, self.full_resolution_too, self.num_workers = augment, full_resolution_too, num_workers
        self.resident = resident if by_batch else False
        self.drop_leaks, self.refit, self._target = drop_leaks, refit, target
        self.manifest = None if manifest is None else Path(manifest)
        self.class_map, self.needs = read_class_map(class_map), needs
        self.first_epoch = 0
        """The epoch that the next training begins with: above 0 if it goes on from a checkpoint."""
        self._division: Division = {}
        self._selection: Division = {}
        self._words: list[str] | None = None
        self._fold_ids: NDArray[np.int64] | None = None
        self._resident_images: Tensor | None = None

    # Defined by each data set -----------------------------------------------------------------------------------

    @abstractmethod
    def source(self) -> Source:
        """The source of the pack. Its key must change with everything that could change the pack."""

    def divide(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        """Part -> positions of usable images (bool [N]): the official parts that have any."""
        return official_parts(pack, usable)

    def names_of_classes(self, pack: Pack) -> tuple[str, ...]:
        """The classes in the order of the network's outputs."""
        return self.class_names

    def own_target(self) -> Target:
        """The target where the configuration names none."""
        return Classes()

    def check(self, pack: Pack) -> None:
        """Raise or warn if too much of the pack is unusable."""

    # Setup ------------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Build the pack if it does not exist or is out of date. Other ranks wait, then open it."""
        if not self._division:
            self.make_pack()

    def make_pack(self) -> Pack:
        """The pack, built if it does not exist or is out of date."""
        source = self.source()
        self.expected, self.base = source.expected, source.base
        folder = self.pack_folder(source)
        key = {**source.place, **source.state}
        stop = self.on_error == "raise"
        self.pack = build_pack(folder, key, source.read, source.decoder, stop_at_first_problem=stop)
        for note in self.pack.notes:
            log.warning(f"{self.name}: {note}")
        self.class_names = self.names_of_classes(self.pack)
        if self.class_map:
            names = self._names_by_map(self.pack)
            self.pack = self.pack.renamed(names)
            self.expected = renamed_counts(self.expected, names)
            self.class_names = in_order(
                name for name in (names.get(label, label) for label in self.class_names) if name is not None
            )
        if self.pack.left_out:
            log.info(f"{self.name}: left out: {format_counts(self.pack.left_out)}")
        try:
            self._check_number_of_classes()
            check_output_names(
                self.class_names if self.target.has_classes else (), self.target.numbers
            )  # a checkpoint's
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from error
        return self.pack

    def _check_number_of_classes(self) -> None:
        if len(self.class_names) > self.target.has_classes:
            return
        place = f"in {self.base}" if self.base else "here"
        if self.class_map:
            place += f" by dataset.class_map={self.class_map}"
        if not self.class_names:
            raise ValueError(f"there is no class {place}: two or more are expected")
        rows = np.flatnonzero(self.pack.class_ids(self.class_names) == 0)
        example = escape(self.pack.names(rows[:1])[0])
        raise ValueError(
            f"there is only one class {place}: {self.class_names[0]} ({counted(len(rows), 'image')}, e.g. {example}). "
            "Two or more are expected, each a folder of its own in dataset.root or in its train, val and test folders"
        )

    def pack_folder(self, source: Source) -> Path:
        """The folder of the pack of a source."""
        digest = content_hash(repr(sorted(source.place.items())).encode()).hex()[:8]
        return self.cache_dir / f"{self.pack_prefix}{digest}"

    @property
    def pack_prefix(self) -> str:
        """Beginning of the names of this data set's packs: its name and its images' size."""
        return f"{self.name}-{self.size}px-"

    def _names_by_map(self, pack: Pack) -> dict[str, str | None]:
        """Label of the pack -> its name by `class_map`. Raises ValueError for a class that there is not."""
        labels = {folded(label): label for label in in_order((*self.class_names, *pack.labels))}
        names: dict[str, str | None] = {}
        for name, label in self.class_map.items():
            key = folded(name) if folded(name) in labels else folded(canonical_or_own(name))
            if key not in labels:
                raise ValueError(
                    f"dataset.class_map: {self.name} has no class {name}; its classes are {', '.join(labels.values())}"
                )
            names[labels[key]] = None if label is None else canonical_or_own(label)
        return names

    def setup(self, stage: str | None = None) -> None:
        """Open (or build) the pack and divide it. Idempotent."""
        if self._division:
            return
        pack = self.make_pack()
        self.check(pack)
        self._class_ids = self.class_ids(pack)
        self._labels = self.target.labels(pack, self.class_names)
        self._targets = self.target.training_targets(pack, self.class_names)
        usable = self.usable(pack)
        if unused := self.unused(pack):
            pack.left_out.update(unused)
            log.info(f"{self.name}: not used: {format_counts(unused)}")
        for difference in differences(official_counts(pack, usable, self.class_names), self.expected):
            log.warning(f"{self.name}: {difference}")
        self._words = self.groups(pack, usable)
        if self.manifest:
            division = read_manifest(self.manifest, pack, usable)
        else:
            division = self.divide(pack, usable) if self.folds is None else self._divide_into_folds(pack, usable)
        nothing = np.empty(0, np.int64)
        drawn: Division = {p: division.get(p, nothing) for p in PARTS if p in division or p in self.needs}
        self._selection = division = self._without_leaks(drawn)
        if self.refit:
            train = np.sort(np.concatenate([drawn["train"], drawn["val"]]))
            rest = {part: positions for part, positions in drawn.items() if part not in ("train", "val")}
            division = self._without_leaks({"train": train, **rest})
        for part, positions in division.items():
            if not len(positions):
                raise ValueError(f"{self.name}: there are no {part} images of the classes {self.class_names}")
        self._division = division
        for part, classes in self.counts().items():
            log.info(f"{self.name}: {part}: {counted(sum(classes.values()), 'image')} ({format_counts(classes)})")
        for pair, count in copies_between(division, pack).items():
            part, other = pair.split("-")
            log.warning(
                f"{self.name}: {counted(count, f'{part} image', 'also occurs/also occur')} in {other}: "
                "dataset.drop_leaks=true leaves them out"
            )
        for pair, groups in self._groups_between(division).items():
            log.warning(
                f"{self.name}: {counted(len(groups), 'group')} (dataset.group={self.group}) with images in "
                f"{pair.replace('-', ' and ')}, e.g. {groups[0]}"
            )
        if "train" in division:
            self._make_sampler()
        self._write_manifest()
        if not self.has_test:
            log.info(f"{self.name}: there are no test images, so nothing is tested")

    def groups(self, pack: Pack, usable: NDArray[np.bool_]) -> list[str] | None:
        """The group of each row of the pack, "" for a group of its own and for unusable ones; None: there are none."""
        if self.group is None:
            return None
        rows = np.flatnonzero(usable)
        words = group_words(self.group, pack.names(rows), self.base)
        if words is None:
            return None
        own = words.count("")
        log.info(
            f"{self.name}: dataset.group={self.group}: {counted(len({*words} - {''}), 'group')}, each in one part"
            + (f"; {counted(own, 'image', 'is a group of its own/are groups of their own')}" if own else "")
        )
        of_rows = [""] * len(pack)
        for row, word in zip(rows.tolist(), words, strict=True):
            of_rows[row] = word
        return of_rows

    def _groups_between(self, division: Division) -> dict[str, list[str]]:
        return {} if self._words is None else groups_between(division, self._words)

    def group_ids(self, pack: Pack, rows: Positions) -> NDArray[np.int64] | None:
        """Numbers of the groups of these rows, copies joined; None if only copies are groups."""
        return None if self._words is None else join_groups(pack.hashes[rows], [self._words[row] for row in rows])

    def sample(self, pack: Pack, rows: Positions, share: float) -> Positions:
        """Positions in `rows` of a stratified share of these images; copies, and images of a group, stay together.

        Raises ValueError if every group is too large for the share.
        """
        groups = self.group_ids(pack, rows)
        sampled = sample_share(pack.hashes[rows], self.class_ids(pack)[rows], share, self.data_seed, groups)
        if groups is not None and len(rows) and not len(sampled):
            raise ValueError(
                f"{self.name}: dataset.group={self.group}: each of the {groups.max() + 1:,} groups is too large for a "
                f"part of {share:.0%}: raise dataset.val_fraction or dataset.test_fraction, or use dataset.folds"
            )
        return sampled

    def _divide_into_folds(self, pack: Pack, usable: NDArray[np.bool_]) -> Division:
        """Fold `fold` tests, the next validates, the rest trains. Raises ValueError if the data have no such fold."""
        if len(official := official_parts(pack, usable)) > 1:
            raise ValueError(
                f"dataset.folds={self.folds}: {self.name} has the official parts {', '.join(official)}, which folds "
                "would mix: leave dataset.folds out, or bring the class folders together without parts (dataset=folder)"
            )
        rows, class_ids = np.flatnonzero(usable), self.class_ids(pack)
        groups = self.group_ids(pack, rows)
        if groups is None:
            groups = join_groups(pack.hashes[rows], [""] * len(rows))
        if self.folds == "groups":
            ids = number_groups([self._words[row] if self._words else "" for row in rows], groups)
            number = int(ids.max()) + 1
        else:
            number = int(self.folds or 0)
            ids = fold_of_each(pack.hashes[rows], class_ids[rows], number, self.data_seed, groups)
        if not 3 <= number <= (count := int(groups.max()) + 1):
            raise ValueError(
                f"dataset.folds={self.folds}: {self.name} has {counted(count, 'group')} (dataset.group={self.group}): "
                "there must be at least 3, and one for each fold"
            )
        if self.fold is None or self.fold >= number:
            raise ValueError(
                f"dataset.fold={self.fold}: {self.name} has the folds 0 to {number - 1} (dataset.folds={self.folds}): "
                f"-m 'dataset.fold=range({number})' trains all of them"
            )
        self._fold_ids = np.full(len(pack), -1)
        self._fold_ids[rows] = ids
        for label, name in enumerate(self.class_names):
            if (having := len(np.unique(ids[class_ids[rows] == label]))) < number:
                log.warning(f"{self.name}: only {having} of {number} folds have images of {name}")
        validates = (self.fold + 1) % number
        log.info(f"{self.name}: of the folds 0 to {number - 1}, {self.fold} tests and {validates} validates")
        train = rows[(ids != self.fold) & (ids != validates)]
        return {"train": train, "val": rows[ids == validates], "test": rows[ids == self.fold]}

    def _without_leaks(self, division: Division) -> Division:
        return without_leaks(division, self.pack.hashes, self.name) if self.drop_leaks else division

    @property
    def target(self) -> Target:
        """The kind of label that is trained and evaluated."""
        return self.own_target() if self._target is None else self._target

    def usable(self, pack: Pack) -> NDArray[np.bool_]:
        """Images that can be trained and evaluated on, bool [N]."""
        return self.target.usable(pack, self.class_names)

    def unused(self, pack: Pack) -> dict[str, int]:
        """Other class, e.g. contempt if seven are used, or why the target can't use an image of a class -> images."""
        is_other = self.class_ids(pack) < 0
        counts = np.bincount(pack.label_ids[pack.good & is_other], minlength=len(pack.labels)).tolist()
        counts.append(int((pack.good & ~is_other & ~self.usable(pack)).sum()))
        return {why: count for why, count in zip((*pack.labels, self.target.lacking), counts, strict=True) if count}

    def class_ids(self, pack: Pack) -> NDArray[np.int64]:
        """Class of each row as a position in `class_names`, -1 for other labels: int64 [N]."""
        return pack.class_ids(self.class_names)

    def _make_sampler(self) -> None:
        train = self._division["train"]
        self.refuse_classes_without_images(train)
        counts = [count for count in self.counts()["train"].values() if count]
        target = target_count(counts, self.balance_target)
        self._sampler = EpochSampler(
            train, self._class_ids[train], batch_size=self.batch_size, seed=self.seed, target=target
        )
        if target is not None:
            log.info(
                f"{self.name}: balanced ({self.balance_target}): {counted(self.train_size, 'image')} per epoch, "
                f"{target:,} of each class"
            )

    def refuse_classes_without_images(self, train: Positions) -> None:
        """Raises ValueError if a class has none of the training images at these positions.

        Only a warning for drawn faces, and where nothing is trained. A network without classes needs none.
        """
        if not self.target.has_classes:
            return
        if message := self.lacks_classes(train):
            if "train" in self.needs and not self.synthetic:
                raise ValueError(f"{self.name}: {message}")
            log.warning(f"{self.name}: {message}")

    def lacks_classes(self, train: Positions) -> str | None:
        """Which classes have none of the training images at these positions, and the option that leaves them out."""
        counts = count_classes(self.class_ids(self.pack)[train], self.class_names)
        empty = [name for name, count in counts.items() if not count]
        if not empty:
            return None
        return (
            f"there are no training images of {', '.join(empty)}: {as_class_map(dict.fromkeys(empty))} trains without"
        )

    def _write_manifest(self) -> None:
        self.manifest_file = self.cache_dir / "manifests" / f"{self.name}-{self.fingerprint[:12]}.csv"
        if not self.manifest_file.exists():
            write_manifest(self.manifest_file, self.pack, self._division)
            log.info(f"{self.name}: division written to {self.manifest_file}; dataset.manifest=FILE reuses it")

    # Available after setup --------------------------------------------------------------------------------------

    @property
    def has_test(self) -> bool:
        return "test" in self._division

    @property
    def train_size(self) -> int:
        """Images per epoch, after balancing."""
        return self._sampler.epoch_size

    def first_targets(self, count: int) -> Tensor:
        """Training targets of the first images, as a batch has them."""
        return torch.from_numpy(self._targets[self._division["train"][:count]])

    def positions(self, part: str) -> Positions:
        """Positions in the pack of a part's images, in the order of evaluation."""
        return self._division[part]

    def names(self, part: str) -> list[str]:
        """Sample names of a part, in the order of evaluation."""
        return self.pack.names(self._division[part])

    def groups_of(self, rows: Positions) -> NDArray[np.str_] | None:
        """Names of the groups of these rows of the pack, "" for a group of its own; None if there are no groups."""
        return None if self._words is None else np.array([self._words[row] for row in rows], dtype=np.str_)

    def hashes(self, part: str) -> NDArray[np.void]:
        """Content hashes of a part's images, V16 [n], in the order of evaluation."""
        return self.pack.hashes[self._division[part]]

    def counts(self) -> dict[str, dict[str, int]]:
        """Part -> class -> images, before balancing."""
        return {p: count_classes(self._class_ids[rows], self.class_names) for p, rows in self._division.items()}

    @property
    def fingerprint(self) -> str:
        """Digest of everything in the data that affects results: `data_summary()["fingerprint"]`."""
        return self._summary["fingerprint"]

    def data_summary(self) -> dict[str, Any]:
        """The data set as plain JSON values, to compare two runs.

        `fingerprint` is a hex digest of everything in the data that affects results: `classes` in the order of the
        network's outputs, `size` of the images in pixels, `preparation` (a version) and `decoder` (a digest; null
        for drawn faces), and `digests` (part -> digest of its images, labels and targets). It does not depend on
        `root`. The rest helps to explain a difference: `layout`, `counts` (part -> class -> images, before balancing),
        `left_out` (reason -> files), `copies` (pair of parts -> images of the first that are in the second), `notes`.
        With `group`, `groups` has their number, and pair of parts -> number and first of the groups in both. With
        `folds`, `folds` has their number and a digest of the data and their folds, which is the same in each fold. A
        refit's has `selection`, the fingerprint of the data of its selection run.
        """
        summary = self._explained(self._summary, self._division)
        return summary | {"selection": self.selection_summary()["fingerprint"]} if self.refit else summary

    def selection_summary(self) -> dict[str, Any]:
        """The `data_summary` of a run on this data without refit."""
        return self._explained(self._summarise(self._selection), self._selection)

    def _explained(self, summary: dict[str, Any], division: Division) -> dict[str, Any]:
        counts = {part: count_classes(self._class_ids[rows], self.class_names) for part, rows in division.items()}
        return {
            **summary,
            "layout": self.pack.key.get("layout", "drawn"),
            "counts": counts,
            "left_out": dict(self.pack.left_out),
            "copies": copies_between(division, self.pack),
            "notes": self.pack.notes,
            **self._group_summary(division),
        }

    def _group_summary(self, division: Division) -> dict[str, Any]:
        summary: dict[str, Any] = {}
        if self._words is not None:
            between = self._groups_between(division)
            summary["groups"] = {
                "number": len({*self._words} - {""}),
                "between": {pair: {"number": len(some), "first": some[0]} for pair, some in between.items()},
            }
        if self._fold_ids is not None:
            number = int(self._fold_ids.max()) + 1
            folds = {str(fold): np.flatnonzero(self._fold_ids == fold) for fold in range(number)}
            summary["folds"] = {"number": number, "fingerprint": self._summarise(folds, folds)["fingerprint"]}
        return summary

    @cached_property
    def _summary(self) -> dict[str, Any]:
        return self._summarise(self._division)

    def _summarise(self, division: Division, trained: Collection[str] = ("train",)) -> dict[str, Any]:
        digests = {
            part: part_digest(self.pack, positions, self._labels, self._targets if part in trained else self._labels)
            for part, positions in division.items()
        }
        summary = {
            "classes": list(self.class_names),
            "size": self.size,
            "preparation": self.pack.key["preparation"],
            "decoder": self.pack.key.get("decoder"),
            "digests": digests,
        }
        return {"fingerprint": json_digest(summary), **summary}

    # Batches ----------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> DataLoader[Batch]:
        if self.trainer is not None:
            # Lightning restores the epoch of a resumed training only after the loader's workers have begun.
            progress = self.trainer.fit_loop.epoch_progress.current
            self._sampler.set_epoch(max(self.first_epoch, progress.processed))  # type: ignore[attr-defined]
        return self._loader(self._targets, self.augment, self._sampler, self._device)

    def val_dataloader(self) -> DataLoader[Batch] | list[DataLoader[Batch]]:
        return [] if self.refit else self.evaluation_loader("val", self._device)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self.evaluation_loader("test", self._device)

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device

    def evaluation_loader(self, part: str, device: torch.device, change: Change | None = None) -> DataLoader[Batch]:
        """Batches of a part in the order of evaluation, for a network on `device`, without augmentation.

        Args:
            change: of the images, e.g. `data.corruptions.Corrupted`.
        """
        sampler = EvalSampler(self._division[part], batch_size=self.batch_size)
        return self._loader(self._labels, change, sampler, device)

    def _loader(
        self,
        targets: NDArray[Any],
        augment: Change | BatchedAugment | None,
        sampler: EpochSampler | EvalSampler,
        device: torch.device,
    ) -> DataLoader[Batch]:
        # `batch_size=None`: the sampler already yields whole batches.
        by_image = None if isinstance(augment, BatchedAugment) else augment
        resident = self._fits_on(device) if self.resident == "auto" else self.resident
        if resident and by_image is None:
            if self._resident_images is None:
                self._resident_images = torch.tensor(self.pack.images, device=device)
            return DataLoader(BatchDataset(self._resident_images, targets), batch_size=None, sampler=sampler)
        workers = self.num_workers
        ranks_here = 1 if self.trainer is None else self.trainer.num_devices
        if not isinstance(workers, int):
            workers = 0 if device.type == "cpu" else max(0, min(8, usable_cores() // ranks_here - 1))
        if workers:
            check_shared_memory(self.batch_size * self.pack.images[0].nbytes, workers)
        return DataLoader(
            BatchDataset(self.pack, targets, by_image, self.seed),
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            timeout=LOADER_TIMEOUT_SECONDS if workers else 0,
            persistent_workers=workers > 0,
            pin_memory=device.type != "cpu",
        )

    def _fits_on(self, device: torch.device) -> bool:
        """Whether the images should be kept on `device`: on a GPU with enough memory."""
        if device.type != "cuda":
            return False
        free_bytes, _ = torch.cuda.mem_get_info(device)
        return self.pack.images.nbytes <= RESIDENT_SHARE * free_bytes

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> TrainingBatch:
        images, targets, draws = batch
        versions = [images]
        if isinstance(self.augment, BatchedAugment) and self.trainer is not None and self.trainer.training:
            augments = [self.augment, self.augment.at_full_resolution] if self.full_resolution_too else [self.augment]
            versions = [augment(images, self.trainer.current_epoch, draws, self.seed) for augment in augments]
        images, *others = map(normalise, versions)
        return images, targets, draws % AGAIN, *others


class PartDataModule(L.LightningDataModule):
    """One part of a data set in the order of evaluation, for `trainer.predict`.

    Args:
        data: set up.
        part: `train`, `val` or `test`.
        colour: `grey`: images are turned grey.
        change: of its images, before that.
    """

    def __init__(self, data: FERDataModule, part: str, colour: str = "rgb", change: Change | None = None) -> None:
        super().__init__()
        self.data, self.part, self.colour, self.change = data, part, colour, change

    def predict_dataloader(self) -> DataLoader[Batch]:
        assert self.trainer is not None
        return self.data.evaluation_loader(self.part, self.trainer.strategy.root_device, self.change)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        images, targets, positions = batch
        if self.colour == "grey":
            images = as_grey(images.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return normalise(images), targets, positions
