"""The LightningModule: loss of the crops, metrics of the votes, against values computed by hand."""

import math
import os
import signal

import lightning as L
import pytest
import torch
from helpers.composed import composed
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.utils.data import DataLoader, TensorDataset

from fer_voting.models import VotingResNet18
from fer_voting.models.checkpoint import NetworkInfo
from fer_voting.training.losses import CrossEntropy
from fer_voting.training.module import VotingModule, memory_format_for, weight_decay_groups

CLASSES = ("neutral", "happy", "sad")


def make_module(width: int = 4) -> VotingModule:
    net = VotingResNet18("m3", num_classes=3, width=width)
    record = NetworkInfo("m3", {"width": width}, CLASSES, 48, "faces")
    return VotingModule(net, CrossEntropy(), lambda parameters: torch.optim.Adam(parameters, 0.5), record)


def test_loss_is_the_mean_over_all_crops_and_not_that_of_the_vote():
    logits = torch.tensor([[[math.log(3.0), 0.0], [0.0, math.log(3.0)]]])  # one image, two crops that disagree
    by_hand = (-math.log(3 / 4) - math.log(1 / 4)) / 2
    assert CrossEntropy()(logits, torch.tensor([0])).item() == pytest.approx(by_hand)
    of_the_vote = math.log(2)  # the mean of the logits is even
    assert abs(by_hand - of_the_vote) > 0.1


def test_loss_takes_class_probabilities():
    logits = torch.randn(4, 10, 3)
    labels = torch.tensor([0, 2, 1, 2])
    one_hot = torch.nn.functional.one_hot(labels, 3).float()
    torch.testing.assert_close(CrossEntropy()(logits, one_hot), CrossEntropy()(logits, labels))


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_step_of_each_optimizer_is_the_formula_of_its_source(name: str):
    """Two steps, of a weight that decays and of one that does not, against the formulas in plain numbers."""
    node = composed([f"optimizer={name}", "optimizer.lr=0.1"]).optimizer
    net = torch.nn.Linear(1, 1)
    module = make_module()
    module.net, module.make_optimizer = net, instantiate(node)
    module.trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    optimizer = module.configure_optimizers()
    with torch.no_grad():
        net.weight.fill_(2.0)
        net.bias.fill_(2.0)
    expected = {}
    for key, decay in (("weight", node.get("weight_decay", 0.0)), ("bias", 0.0)):
        w, m, v = 2.0, 0.0, 0.0
        for step, g in ((1, 0.5), (2, -0.25)):
            if name == "sgd":  # torch's Nesterov: v = mu v + g, w -= lr (g + mu v)
                g += decay * w
                m = 0.9 * m + g if step > 1 else g
                w -= 0.1 * (g + 0.9 * m)
            else:
                w -= 0.1 * decay * w
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                w -= 0.1 * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.999**step)) + 1e-8)
        expected[key] = w
    for gradient in (0.5, -0.25):
        for parameter in net.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        optimizer.step()
    assert {key: value.item() for key, value in net.named_parameters()} == pytest.approx(expected, rel=1e-6)
    assert (expected["weight"] != expected["bias"]) == (name != "adam")


@pytest.mark.parametrize(("max_steps", "expected"), [(-1, 300), (45, 45), (25, 25), (400, 300)])
def test_a_refit_has_the_schedule_of_its_selection_run(max_steps: int, expected: int):
    """The selection run has 30 epochs of 10 steps, the refit 3 of them; `trainer.max_steps` limits both."""
    for epochs, schedule_epochs in ((30, None), (3, 30)):
        module, steps = make_module(), []
        module.make_scheduler = lambda optimizer, steps, into=steps: into.append(steps)
        module.schedule_epochs = schedule_epochs
        trainer = L.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=epochs, max_steps=max_steps
        )
        trainer.fit_loop.max_batches = 10  # as it finds out from the loader
        trainer.fit_loop._combined_loader = CombinedLoader([])
        module.trainer = trainer
        module.configure_optimizers()
        assert steps == [expected]


def test_weight_decay_leaves_out_biases_and_normalisation():
    net = make_module().net
    decayed, others = weight_decay_groups(net)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    assert others["weight_decay"] == 0
    assert {names[id(p)].rpartition(".")[2] for p in others["params"]} == {"weight", "bias"}
    assert all(
        "bn" in names[id(p)] or "downsample.1" in names[id(p)] or names[id(p)] == "backbone.fc.bias"
        for p in others["params"]
    )
    assert len(decayed["params"]) + len(others["params"]) == len(names)


def test_a_checkpoint_says_what_its_weights_are():
    checkpoint: dict = {}
    make_module().on_save_checkpoint(checkpoint)
    assert checkpoint["fer_voting"] == {
        "split": "m3",
        "options": {"width": 4},
        "class_names": ["neutral", "happy", "sad"],
        "image_size": 48,
        "dataset": "faces",
        "architecture": "resnet18",
        "faces": {"colour": "rgb", "margin": 0.05, "align": True, "detector": "centerface"},
        "number_names": [],
    }


@pytest.mark.parametrize("width", [4, 16])
def test_the_order_in_memory_changes_no_logits(width: int):
    module = make_module(width).eval()
    assert module.net.backbone.layer1[0].conv1.weight.is_contiguous(memory_format=memory_format_for(module.net))
    images = torch.randn(2, 3, 48, 48)
    plain = VotingResNet18("m3", num_classes=3, width=width).eval()
    plain.load_state_dict(module.net.state_dict())
    for order in (torch.contiguous_format, torch.channels_last):
        torch.testing.assert_close(module(images.contiguous(memory_format=order)), plain(images), rtol=1e-4, atol=1e-5)


def test_an_evaluation_that_does_not_fit_is_split_into_parts_that_do(monkeypatch: pytest.MonkeyPatch):
    module = make_module().eval()
    images = torch.randn(7, 3, 24, 24)
    with torch.no_grad():
        expected = module(images)
    sizes, forward = [], module.net.forward

    def with_little_memory(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("there is room for two")
        return forward(x)

    batches = DataLoader(TensorDataset(images, torch.arange(7) % 3, torch.arange(7)), batch_size=7)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    monkeypatch.setattr(module.net, "forward", with_little_memory)
    (metrics,) = trainer.validate(module, batches, verbose=False)
    votes = expected.mean(dim=1)
    assert metrics["val/soft/accuracy"] == pytest.approx((votes.argmax(dim=1) == torch.arange(7) % 3).float().mean())
    assert metrics["val/loss"] == pytest.approx(torch.nn.functional.cross_entropy(votes, torch.arange(7) % 3).item())
    assert sizes == [7, 4, 2, 2, 3, 2, 1]
    monkeypatch.setattr(module.net, "forward", lambda x: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(torch.OutOfMemoryError):  # not even for one image
        trainer.validate(module, batches, verbose=False)


def test_sigterm_ends_an_evaluation_at_the_next_batch():
    """Slurm, Docker and `kill` send it; the evaluation on worse images takes half an hour."""
    module = make_module()
    loader = DataLoader(TensorDataset(torch.zeros(3, 3, 48, 48), torch.zeros(3), torch.arange(3)), batch_size=1)
    seen: list[int] = []

    def kill(trainer: L.Trainer, module: L.LightningModule, outputs: object, batch: object, index: int) -> None:
        seen.append(index)
        os.kill(os.getpid(), signal.SIGTERM)

    trainer = L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        callbacks=[LambdaCallback(on_predict_batch_end=kill)],
    )
    with pytest.raises(SystemExit) as stop:
        trainer.predict(module, loader)
    assert (stop.value.code, seen) == (128 + signal.SIGTERM, [0])


def test_lightnings_own_test_of_a_script():
    module = make_module().eval()
    images, labels = torch.randn(6, 3, 48, 48), torch.arange(6) % 3
    loader = DataLoader(TensorDataset(images, labels, torch.arange(6)), batch_size=4)
    with torch.no_grad():
        decisions = module.net(images).mean(dim=1).argmax(dim=1)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (values,) = trainer.test(module, loader, verbose=False)
    assert values["test/soft/accuracy"] == pytest.approx((decisions == labels).float().mean().item())
