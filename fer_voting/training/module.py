"""The LightningModule: training and evaluation of a voting network (paper, sections 3.3 and 3.4).

Shapes: B batch, V crops an image, K classes, N images of a data set.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassRecall

from fer_voting.models import VotingNetwork
from fer_voting.models.adaptive import full_map_and_crops, require_cut
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.training.losses import Distillation, crop_cross_entropy
from fer_voting.training.mix import Mix
from fer_voting.votes import VOTES, CropOutputs, Vote, soft_vote


def vote_metrics(num_classes: int, sync_on_compute: bool = True) -> MetricCollection:
    """Overall accuracy (equation 1), mean of the per-class recalls, per-class recall, and confusion counts.

    Fed with scores `[B, K]` and class ids `[B]`; of all ranks together, unless `sync_on_compute` is false.
    """
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(num_classes, average="micro", sync_on_compute=sync_on_compute),
            "mean_recall": MulticlassRecall(num_classes, average="macro", sync_on_compute=sync_on_compute),
            "recall": MulticlassRecall(num_classes, average=None, sync_on_compute=sync_on_compute),
            "confusion_counts": MulticlassConfusionMatrix(num_classes, sync_on_compute=sync_on_compute),
        }
    )


def score_metrics(scores: Tensor, labels: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """`vote_metrics` as plain numbers of the scores `[N, K]` and class ids `[N]` of a whole part, on this process."""
    metrics = vote_metrics(len(class_names), sync_on_compute=False)
    metrics.update(scores, labels)
    return _plain(metrics.compute(), class_names)


def _plain(values: Mapping[str, Tensor], class_names: Sequence[str]) -> dict[str, Any]:
    return {
        "accuracy": values["accuracy"].item(),
        "mean_recall": values["mean_recall"].item(),
        "recall": dict(zip(class_names, values["recall"].tolist(), strict=True)),
        "confusion_counts": values["confusion_counts"].tolist(),
    }


def memory_format_for(net: torch.nn.Module) -> torch.memory_format:
    """channels_last, which is faster, or contiguous for networks with a convolution whose channels, but for the
    image's three, are no multiple of 16.

    oneDNN 3.12 (torch 2.14) writes out of bounds in the float32 backward pass of channels_last convolutions of 4 or
    8 channels.
    """
    convolutions = [module for module in net.modules() if isinstance(module, torch.nn.Conv2d)]
    channels = {c for module in convolutions for c in (module.in_channels, module.out_channels)} - {3}
    return torch.contiguous_format if any(c % 16 for c in channels) else torch.channels_last


def weight_decay_groups(net: torch.nn.Module) -> list[dict[str, Any]]:
    """The trained parameters of `net` as an optimizer takes them: without weight decay for biases and normalisation.

    Those have one dimension. Decay is meant for the weights of convolutions and linear layers (He et al. 2019,
    arXiv:1812.01187, section 3.1).
    """
    trained = [p for p in net.parameters() if p.requires_grad]
    decayed, others = ([p for p in trained if (p.ndim > 1) is many] for many in (True, False))
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


@dataclass
class Predictions:
    """Crop logits `[n, V, K]` (float32) of an evaluation, with labels `[n]` and positions in the pack `[n]`.

    `whole`: logits of the whole map `[n, K]`, if the module was asked for them (`VotingModule.with_whole_map`).
    """

    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    index: list[Tensor] = field(default_factory=list)
    whole: list[Tensor] = field(default_factory=list)

    def outputs(self) -> CropOutputs:
        """The logits as a vote takes them."""
        return CropOutputs(torch.cat(self.logits), torch.cat(self.whole) if self.whole else None)

    def gather(self, positions: NDArray[np.int64]) -> "Predictions":
        """The predictions of all ranks in the order of `positions` (int64 [n], in the pack), each list one tensor.

        Every rank must call it. Positions that were not evaluated (`trainer.limit_test_batches`) are left out.
        """
        parts = [self]
        if dist.is_initialized():
            parts = [self] * dist.get_world_size()
            dist.all_gather_object(parts, self)
        logits, labels, index, whole = (
            torch.cat([tensor for part in parts for tensor in getattr(part, name)] or [torch.empty(0)])
            for name in ("logits", "labels", "index", "whole")
        )
        row_of = {position: row for row, position in enumerate(index.tolist())}
        rows = torch.tensor([row_of[position] for position in positions.tolist() if position in row_of])
        return Predictions([logits[rows]], [labels[rows]], [index[rows]], [whole[rows]] if len(whole) else [])


class VotingModule(L.LightningModule):
    """One network, trained once and evaluated by every vote.

    Args:
        net: any module that maps images `[B, 3, H, W]` to crop logits `[B, V, K]`.
        optimizer: makes an optimizer of parameters; of `weight_decay_groups` where it has weight decay.
        info: the checkpoint's metadata of the network, with the names of the K classes.
        scheduler: makes Lightning's configuration of a learning-rate scheduler (`training.schedules`) of that
            optimizer; None for a constant rate.
        label_smoothing: see `losses.crop_cross_entropy`; of the training alone.
        mix: mixes the images of each training batch.
        distillation: adds the targets of a teacher.
        votes: by name, those whose metrics each evaluation logs; they need only the crops.

    Logs `train/loss`, and of each part (`val`, `test`) and vote: `<part>/loss`, `<part>/<vote>/accuracy`,
    `<part>/<vote>/mean_recall`, `<part>/<vote>/recall/<class>`. After an evaluation, `evaluation` holds all
    metrics as plain numbers and `predictions` the crop logits.
    """

    def __init__(
        self,
        net: VotingNetwork,
        optimizer: Callable[[Any], torch.optim.Optimizer],
        info: NetworkInfo,
        scheduler: Callable[[torch.optim.Optimizer], Any] | None = None,
        label_smoothing: float = 0.0,
        mix: Mix | None = None,
        distillation: Distillation | None = None,
        votes: Mapping[str, Vote] = VOTES,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"`label_smoothing` (={label_smoothing}) must be at least 0 and below 1")
        self.memory_format = memory_format_for(net)
        self.net = net.to(memory_format=self.memory_format)
        self.class_names = info.class_names
        self.make_optimizer = optimizer
        self.make_scheduler = scheduler
        self.label_smoothing, self.mix, self.distillation = label_smoothing, mix, distillation
        self.info = info
        self.votes = votes
        self.metrics = torch.nn.ModuleDict({vote: vote_metrics(len(self.class_names)) for vote in votes})
        self.predictions = Predictions()
        self.evaluation: dict[str, dict[str, Any]] = {}
        self.with_whole_map = False
        """Whether evaluations also compute the logits of the whole map, which the adaptive vote needs."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `[B, 3, H, W]` -> crop logits `[B, V, K]`."""
        return self.net(self.lay_out(images))

    def lay_out(self, images: Tensor) -> Tensor:
        """Images in the memory format and dtype of the network's weights (float64 with `trainer.precision=64-true`)."""
        return images.to(next(self.net.parameters()).dtype, memory_format=self.memory_format)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.info.write(checkpoint)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer([p for p in self.net.parameters() if p.requires_grad])
        if optimizer.defaults.get("weight_decay"):
            optimizer = self.make_optimizer(weight_decay_groups(self.net))
        return optimizer if self.make_scheduler is None else ([optimizer], [self.make_scheduler(optimizer)])

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> Tensor:
        images, targets, _ = batch
        if self.mix is not None:
            images, targets = self.mix(images, targets, self.current_epoch, batch_idx)
        logits = self(images)
        loss = crop_cross_entropy(logits, targets, self.label_smoothing)
        if self.distillation is not None:
            loss = self.distillation(loss, logits, images)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        self._evaluation_step(batch, "val")

    def test_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        self._evaluation_step(batch, "test")

    def on_validation_epoch_start(self) -> None:
        self._reset_evaluation()

    def on_test_epoch_start(self) -> None:
        self._reset_evaluation()

    def on_validation_epoch_end(self) -> None:
        self._end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        self._end_evaluation("test")

    def _reset_evaluation(self) -> None:
        if dist.is_initialized():
            # BatchNorm's running statistics differ between ranks; a checkpoint keeps those of rank 0.
            for buffer in self.net.buffers():
                dist.broadcast(buffer, 0)
        self.predictions = Predictions()
        for metrics in self._vote_metrics().values():
            metrics.reset()

    def _vote_metrics(self) -> dict[str, MetricCollection]:
        return dict(self.metrics.items())  # type: ignore[arg-type]  # a ModuleDict forgets the class of its values

    def _evaluation_step(self, batch: tuple[Tensor, Tensor, Tensor], part: str) -> None:
        images, targets, index = batch
        logits = self._in_parts_that_fit(images).float()
        if self.with_whole_map:
            whole, logits = logits[:, 0], logits[:, 1:]
            self.predictions.whole.append(whole.cpu())
        labels = targets if targets.ndim == 1 else targets.argmax(dim=1)
        loss = F.cross_entropy(soft_vote(logits), targets)
        self.log(f"{part}/loss", loss, batch_size=len(images), sync_dist=True)
        for vote, metrics in self._vote_metrics().items():
            metrics.update(self.votes[vote](logits), labels)
        self.predictions.logits.append(logits.cpu())
        self.predictions.labels.append(labels.cpu())
        self.predictions.index.append(index.cpu())

    def _in_parts_that_fit(self, images: Tensor) -> Tensor:
        """`self(images)`, after the logits of the whole map if they are wanted: `[B, V, K]` or `[B, 1 + V, K]`.

        Where the device runs out of memory, of each half of the images, recursively.
        """
        try:
            if not self.with_whole_map:
                return self(images)
            outputs = full_map_and_crops(require_cut(self.net), self.lay_out(images))
            return torch.cat([outputs.require_full_map()[:, None], outputs.crops], dim=1)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        # Outside of `except`: the error's traceback keeps the tensors of the failed pass alive.
        return torch.cat([self._in_parts_that_fit(half) for half in images.chunk(2)])

    def _end_evaluation(self, part: str) -> None:
        self.evaluation = {}
        for vote, metrics in self._vote_metrics().items():
            values = metrics.compute()
            self.evaluation[vote] = plain = _plain(values, self.class_names)
            for name in ("accuracy", "mean_recall"):
                self.log(f"{part}/{vote}/{name}", values[name])
            self.log_dict({f"{part}/{vote}/recall/{name}": recall for name, recall in plain["recall"].items()})
