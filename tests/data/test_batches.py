from pathlib import Path

import numpy as np
import pytest
import torch

from fer_voting.data.batches import BatchDataset
from fer_voting.data.index import Index, Sample
from fer_voting.data.pack import Pack, build_pack

KEYS = [(0, 3), (0, 1), (2, 3), (0, 0)]
TARGETS = np.eye(4, 7, dtype=np.float32)


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    samples = [Sample(str(n), "sad", "train", pixels=bytes(range(n, n + 64))) for n in range(4)]
    return build_pack(tmp_path / "pack", {"size": 8}, lambda: Index(samples))


@pytest.mark.parametrize("resident", [False, True])
def test_a_batch_has_the_images_targets_and_positions_of_its_keys(pack: Pack, resident: bool) -> None:
    dataset = BatchDataset(torch.tensor(pack.images) if resident else pack, TARGETS)
    images, targets, positions = dataset[KEYS]
    assert positions.tolist() == [3, 1, 3, 0]
    assert (images.permute(0, 2, 3, 1).numpy() == pack.images[[3, 1, 3, 0]]).all()
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert (targets.numpy() == TARGETS[[3, 1, 3, 0]]).all()


def test_the_augmentation_gets_the_keys_and_the_seed(pack: Pack) -> None:
    def augment(images: np.ndarray, keys: list[tuple[int, int]], seed: int) -> np.ndarray:
        assert (keys, seed) == (KEYS, 5)
        return 255 - images

    images, _, _ = BatchDataset(pack, TARGETS, augment, seed=5)[KEYS]
    assert (images.permute(0, 2, 3, 1).numpy() == 255 - pack.images[[3, 1, 3, 0]]).all()
