"""Batches from a resident pack are those from the memory-mapped one."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fer_voting.config import compose_config
from fer_voting.data.module import PackedImages, make_datamodule
from fer_voting.data.pack import Pack
from fer_voting.data.resident import ResidentImages, fits, load
from fer_voting.data.sampling import EpochSampler

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    config = compose_config(["dataset=faces", "augment=none"])
    sizes = {"train_size": 40, "val_size": 7, "test_size": 7, "cache_dir": tmp_path_factory.mktemp("packs")}
    datamodule = make_datamodule({**config.dataset, **sizes})
    datamodule.setup()
    return datamodule.pack


def test_batches_are_the_packs(pack: Pack) -> None:
    targets = np.eye(7, dtype=np.float32)[pack.label_ids]
    ours, theirs = ResidentImages(load(pack, CPU), targets), PackedImages(pack, targets)
    keys = [(0, 3), (0, 11), (0, 3), (0, 0)]
    for one, other in zip(ours[keys], theirs[keys], strict=True):
        assert torch.equal(one, other)
        assert one.dtype == other.dtype


def test_an_epoch_through_a_loader_is_the_samplers(pack: Pack) -> None:
    sampler = EpochSampler(np.arange(40), pack.label_ids[:40], batch_size=16, seed=0, target=None)
    dataset = ResidentImages(load(pack, CPU), pack.label_ids)
    epochs = [torch.cat([p for _, _, p in DataLoader(dataset, batch_size=None, sampler=sampler)]) for _ in range(2)]
    assert all(torch.equal(epoch.sort().values, torch.arange(40)) for epoch in epochs)
    assert not torch.equal(*epochs)


def test_on_the_cpu_a_pack_stays_in_its_file(pack: Pack) -> None:
    assert not fits(pack, CPU)
