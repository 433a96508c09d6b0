"""The memory of a forward pass, measured as the paper measured it (section 3.1, Table 2)."""

import lightning as L
import torch
from torch import Tensor

from fer_voting.models.cost import forward_mib_per_image


class ForwardMemory(L.Callback):
    """Logs the memory that a training-mode forward pass of the first batch leaves allocated, in MiB an image.

    On CUDA by `torch.cuda.memory_allocated`, as `memory/forward_mib_per_image`; elsewhere by the tensors that live
    after the pass, as `memory/forward_mib_per_image_autograd` (see `cost.py`). The measurement works on a copy
    of the network, so that BatchNorm statistics, gradients and random numbers of the training stay as they are.
    """

    def __init__(self) -> None:
        self.mib_per_image: float | None = None
        self.measure: str | None = None

    def on_train_batch_start(
        self, trainer: L.Trainer, module: L.LightningModule, batch: tuple[Tensor, ...], batch_idx: int
    ) -> None:
        if batch_idx > 0:
            return
        images = module.lay_out(batch[0])  # type: ignore[operator]
        name = "memory/forward_mib_per_image" + ("" if images.is_cuda else "_autograd")
        if self.mib_per_image is None:
            with trainer.precision_plugin.forward_context():
                self.mib_per_image = forward_mib_per_image(module.get_submodule("net"), images)
            self.measure = "cuda" if images.is_cuda else "autograd"
            for logger in trainer.loggers:
                logger.log_metrics({name: self.mib_per_image}, step=trainer.global_step)
        # In every epoch: a resumed run reports the value that its checkpoint holds.
        trainer.callback_metrics[name] = torch.tensor(self.mib_per_image)

    def state_dict(self) -> dict[str, float | str | None]:
        return {"mib_per_image": self.mib_per_image, "measure": self.measure}

    def load_state_dict(self, state_dict: dict[str, float | str | None]) -> None:
        self.mib_per_image, self.measure = state_dict["mib_per_image"], state_dict["measure"]  # type: ignore[assignment]
