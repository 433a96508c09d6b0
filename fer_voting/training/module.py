"""The LightningModule: training and evaluation of a voting network (paper, sections 3.3 and 3.4).

Shapes: B batch, V crops an image, K classes, N images of a data set.
"""

import functools
import logging
import math
import signal
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn

from fer_voting.data.batches import Batch, TrainingBatch
from fer_voting.models import VotingNetwork
from fer_voting.models.adaptive import full_map_and_crops, has_cut, require_cut
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.networks import Network
from fer_voting.targets import Classes, Metrics, Target, target_of
from fer_voting.training.losses import CrossEntropy, Distillation
from fer_voting.training.mix import Mix, seed_for
from fer_voting.training.predictions import PartPredictions
from fer_voting.votes import VOTES, CropOutputs, Vote, soft_vote

log = logging.getLogger(__name__)

_NETWORK = 0x6E6574  # purpose of the random numbers


def evaluation_module(network: Network) -> "VotingModule":
    """A module that evaluates a trained network."""
    return VotingModule(network.net, CrossEntropy(), torch.optim.Adam, network.info)  # the optimizer is not used


def memory_format_for(net: nn.Module) -> torch.memory_format:
    """channels_last (faster). Contiguous if a convolution has a number of channels that is not a multiple of 16; the 3
    input channels do not count.

    oneDNN 3.12 (torch 2.14) writes out of bounds in the float32 backward pass of channels_last convolutions of 4 or
    8 channels.
    """
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    channels = {c for module in convolutions for c in (module.in_channels, module.out_channels)} - {3}
    return torch.contiguous_format if any(c % 16 for c in channels) else torch.channels_last


def weight_decay_groups(net: nn.Module) -> list[dict[str, Any]]:
    """The trained parameters of `net` as an optimizer takes them: without weight decay for biases and normalisation.

    Those have one dimension. Decay is meant for the weights of convolutions and linear layers (He et al. 2019,
    arXiv:1812.01187, section 3.1).
    """
    trained = [p for p in net.parameters() if p.requires_grad]
    decayed, others = ([p for p in trained if (p.ndim > 1) is many] for many in (True, False))
    return [{"params": decayed}, {"params": others, "weight_decay": 0.0}]


class VotingModule(L.LightningModule):
    """One network, trained once and evaluated by every vote.

    Args:
        net: any module that maps images `[B, 3, H, W]` to crop logits `[B, V, K]`.
        loss: maps crop logits and targets to a number (`training.losses`).
        optimizer: makes an optimizer of parameters; of `weight_decay_groups` where it has weight decay.
        info: the checkpoint's metadata of the network, with the names of its K outputs.
        scheduler: makes Lightning's configuration of a learning-rate scheduler of the optimizer, with `steps`
            (`training.schedules`); None for a constant rate.
        mix: mixes the images of each training batch.
        distillation: adds the targets of a teacher.
        votes: by name, those whose metrics each evaluation logs, if the target takes them; they need only the crops.
        target: its metrics. None: those of the network's outputs.
        schedule_epochs: epochs that the scheduler covers, where training stops earlier; None: those of the trainer.
        seed: of what the network draws in training (dropout, stochastic depth).

    Logs `train/loss`, and of each part (`val`, `test`) and vote: `<part>/loss`, and what the target names
    (`Target.to_curves`), as `<part>/<vote>/accuracy` and `<part>/<vote>/recall/<class>`. `predict_step` returns what
    votes are computed from.
    """

    def __init__(
        self,
        net: VotingNetwork,
        loss: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        info: NetworkInfo,
        scheduler: Callable[..., Any] | None = None,
        mix: Mix | None = None,
        distillation: Distillation | None = None,
        votes: Mapping[str, Vote] = VOTES,
        target: Target | None = None,
        schedule_epochs: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.memory_format = memory_format_for(net)
        self.net = net.to(memory_format=self.memory_format)
        self.loss = loss
        self.make_optimizer, self.make_scheduler, self.schedule_epochs = optimizer, scheduler, schedule_epochs
        self.mix, self.distillation, self.seed = mix, distillation, seed
        self.info = info
        self.class_names = info.class_names
        self.target = target or target_of(info.class_names, info.number_names) or Classes()
        self.votes = {name: vote for name, vote in votes.items() if self.target.takes(vote)}
        self.metrics = nn.ModuleDict({vote: self.target.metrics(self.class_names) for vote in self.votes})

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `[B, 3, H, W]` -> crop logits `[B, V, K]`."""
        return self.net(self.lay_out(images))

    def lay_out(self, images: Tensor) -> Tensor:
        """Images in the memory format and dtype of the network's weights (float64 with `trainer.precision=64-true`)."""
        return images.to(next(self.net.parameters()).dtype, memory_format=self.memory_format)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.info.write(checkpoint)

    def configure_optimizers(self) -> Any:
        make = self.make_optimizer
        optimizer = make([p for p in self.net.parameters() if p.requires_grad])
        clipped = self.trainer.gradient_clip_val and isinstance(self.trainer.precision_plugin, MixedPrecision)
        if clipped and optimizer.defaults.get("fused"):
            log.info(
                f"trainer.gradient_clip_val with precision {self.trainer.precision}: {type(optimizer).__name__} is not "
                "fused, for a fused one can't clip"
            )
            make = functools.partial(make, fused=False)
            optimizer = make([p for p in self.net.parameters() if p.requires_grad])
        if optimizer.defaults.get("weight_decay"):
            optimizer = make(weight_decay_groups(self.net))
        if self.make_scheduler is None:
            return optimizer
        trainer = self.trainer
        steps = int(trainer.estimated_stepping_batches)
        if self.schedule_epochs is not None:
            steps = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches) * self.schedule_epochs
            steps = steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)
        return [optimizer], [self.make_scheduler(optimizer, steps=steps)]

    # Training -----------------------------------------------------------------------------------------------------

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        images, targets, _, *for_teacher = batch
        if batch_idx == 0:
            # Dropout and stochastic depth draw from torch's own generator: a continued run draws as an undisturbed one.
            # Not as the epoch begins: the loader draws after that, as often as it was made anew.
            torch.manual_seed(seed_for(_NETWORK, self.seed, self.current_epoch, self.global_rank))
        if self.mix is not None:
            mix = functools.partial(self.mix, targets=targets, epoch=self.current_epoch, batch_idx=batch_idx)
            for_teacher = [mix(version)[0] for version in for_teacher]  # by the same numbers
            images, targets = mix(images)
        loss = self.training_loss(images, targets, *for_teacher)
        self.log("train/loss", loss, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=True)
        return loss

    def training_loss(self, images: Tensor, targets: Tensor, for_teacher: Tensor | None = None) -> Tensor:
        """The loss of images `[B, 3, H, W]` by their targets, and by the teacher where there is one, which sees
        `for_teacher`, by default the same images."""
        logits = self(images)
        loss = self.loss(logits, targets)
        if self.distillation is None:
            return loss
        return self.distillation(loss, logits, images if for_teacher is None else for_teacher)

    # Evaluation ---------------------------------------------------------------------------------------------------

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """`trainer.test` of a script calls it; our commands test by `predict_step`, which keeps the outputs."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> PartPredictions:
        if self.trainer.received_sigterm:  # Lightning notes the signal, and looks at it in training and validation only
            raise SystemExit(128 + signal.SIGTERM)
        images, targets, positions = batch
        full_map, crops = self._logits_that_fit(images)
        full_map = None if full_map is None else full_map.float().cpu()
        return PartPredictions(crops.float().cpu(), full_map, targets.cpu(), positions.cpu())

    def on_validation_epoch_start(self) -> None:
        if dist.is_initialized():
            # BatchNorm's running statistics differ between ranks; a checkpoint keeps those of rank 0.
            for buffer in self.net.buffers():
                dist.broadcast(buffer, 0)

    on_test_epoch_start = on_predict_epoch_start = on_validation_epoch_start

    def on_validation_epoch_end(self) -> None:
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        self._log_metrics("test")

    def _evaluate(self, batch: Batch, part: str) -> None:
        images, targets, _ = batch
        logits = self._in_parts_that_fit(self, images).float()
        loss = self.loss(soft_vote(logits)[:, None], targets)  # [B, 1, K]: the vote's logits as those of one crop
        self.log(f"{part}/loss", loss, batch_size=len(images), sync_dist=True)
        for vote, metrics in self._vote_metrics():
            scores = self.target.scores(self.votes[vote], CropOutputs(logits), self.class_names)
            self.target.update(metrics, scores, targets, self.class_names)

    def _log_metrics(self, part: str) -> None:
        for vote, metrics in self._vote_metrics():
            values = self.target.to_values(metrics.compute(), self.class_names)
            metrics.reset()
            self.log_dict({f"{part}/{vote}/{name}": value for name, value in self.target.to_curves(values).items()})

    def _vote_metrics(self) -> list[tuple[str, Metrics]]:
        return list(self.metrics.items())  # type: ignore[arg-type]  # a ModuleDict forgets the class of its values

    def _logits_that_fit(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Logits of the whole map `[B, K]`, None if no vote needs them, and crop logits `[B, V, K]`."""
        if not has_cut(self.net) or self.info.number_names:
            return None, self._in_parts_that_fit(self, images)
        logits = self._in_parts_that_fit(self._full_map_and_crops, images)
        return logits[:, 0], logits[:, 1:]

    def _full_map_and_crops(self, images: Tensor) -> Tensor:
        outputs = full_map_and_crops(require_cut(self.net), self.lay_out(images))
        return torch.cat([outputs.full_map[:, None], outputs.crops], dim=1)

    def _in_parts_that_fit(self, forward: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """`forward(images)`; where the device runs out of memory, of each half of the images, recursively."""
        try:
            return forward(images)
        except torch.OutOfMemoryError:
            if len(images) == 1:
                raise
        # Outside of `except`: the error's traceback keeps the tensors of the failed pass alive.
        return torch.cat([self._in_parts_that_fit(forward, half) for half in images.chunk(2)])
