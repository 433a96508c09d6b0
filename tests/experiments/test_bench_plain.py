"""The plain training computes what the package does, and its command runs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.bench.plain import Network, main
from fer_voting.models import VotingResNet18


@pytest.mark.slow
@pytest.mark.parametrize("split", ["baseline", "m1", "m3"])
def test_the_plain_network_is_the_papers(split: str) -> None:
    torch.manual_seed(0)
    plain = Network(None if split == "baseline" else int(split[1]), 7).double()
    assert sum(parameter.numel() for parameter in plain.parameters()) == 11_172_423
    ours = VotingResNet18(split).double()
    with torch.no_grad():
        for mine, theirs in zip(ours.parameters(), plain.parameters(), strict=True):
            mine.copy_(theirs)
    side = 24 if split == "m3" else 12  # the smallest whose map divides by six where it is cropped
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    torch.testing.assert_close(plain(images), ours(images), rtol=1e-10, atol=1e-10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*multi-threaded, use of fork")
def test_the_command_trains(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    np.save(tmp_path / "images.npy", generator.integers(0, 256, (30, 24, 24, 3), dtype=np.uint8))
    np.savez(tmp_path / "index.npz", labels=np.arange(30) % 7, parts=np.repeat([0, 1, 2], 10))
    main([str(tmp_path), "--split", "m3", "--batch", "5", "--out", str(tmp_path / "out")])
    assert list((tmp_path / "out").rglob("last.ckpt"))
    assert "val_accuracy" in next((tmp_path / "out").rglob("metrics.csv")).read_text()
