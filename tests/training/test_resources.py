import pytest
import torch
from helpers.composed import composed

from fer_voting.experiment import make_network
from fer_voting.models.cost import count_gmacs, count_parameters, forward_mib_per_image
from fer_voting.models.registry import build_network
from fer_voting.runs.identity import resolve
from fer_voting.training import resources
from fer_voting.training.resources import BACKWARD, BYTES_PER_PARAMETER, PROCESS_MIB, estimate_jobs, gpu_names


def asked(**values):
    config = composed(["split=m1", "model.width=8", "dataset.size=24"])
    model = resolve(config)["model"]
    return {"model": model, "split": "m1", "size": 24, "batch_size": 16, "epochs": 2, "precision": "32-true", **values}


def test_weights_are_multiply_accumulates_times_epochs_and_memory_grows_with_the_batch():
    net = make_network(composed(["split=m1", "model.width=8", "dataset.size=24"]), 7)
    estimates = estimate_jobs([asked(), asked(epochs=6), asked(batch_size=32)])
    gmacs = count_gmacs(net, 24)
    assert estimates["weights"] == pytest.approx([2 * gmacs, 6 * gmacs, 2 * gmacs])
    per_image = forward_mib_per_image(net, torch.zeros(2, 3, 24, 24))
    states = count_parameters(net) * BYTES_PER_PARAMETER / 2**20
    assert estimates["mib"] == pytest.approx(PROCESS_MIB + states + BACKWARD * 32 * per_image)


def test_jobs_that_differ_in_their_seed_are_measured_once(monkeypatch: pytest.MonkeyPatch):
    built = []
    monkeypatch.setattr(resources, "build_network", lambda *words: built.append(words) or build_network(*words))
    three = estimate_jobs([asked(), asked(epochs=4), asked()])
    assert len(built) == 1
    assert three["weights"][1:] == [2 * three["weights"][0], three["weights"][0]]


def test_a_network_that_cannot_be_made_is_left_to_its_job():
    assert estimate_jobs([asked(size=2)])["weights"] == [1.0]


def test_bfloat16_keeps_less():
    full, half = (estimate_jobs([asked(precision=p, batch_size=512)])["mib"] for p in ("32-true", "bf16-mixed"))
    assert half < full


def test_gpus_are_called_as_the_environment_lists_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert gpu_names() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    assert gpu_names() == ["3", "5"]
