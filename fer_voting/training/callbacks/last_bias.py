"""Training of the last layer's bias alone: a finished network adapts to other labels or shares of the classes."""

import lightning as L

from fer_voting.models.voting import VotingNetwork, find_head


class LastBias(L.Callback):
    """Trains a number a class, and leaves all other parameters, and BatchNorm's statistics, as they are.

    A training again of the last layer alone adapts a network to classes of other frequencies (Kang et al. 2020,
    arXiv:1910.09217, section 4). This trains less of it.
    """

    def setup(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        """Before the optimizer is made. Raises ValueError if the last layer has no bias."""
        net = module.get_submodule("net")
        assert isinstance(net, VotingNetwork)
        head = find_head(net, len(module.class_names))  # type: ignore[arg-type]
        bias = net.backbone.get_submodule(head).bias
        if bias is None:
            raise ValueError(f"callbacks=last_bias trains the last layer's bias, but the network's `{head}` has none")
        net.requires_grad_(False)
        bias.requires_grad_()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        module.get_submodule("net").eval()
