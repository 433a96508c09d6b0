"""Properties of what the project is about, for inputs that nobody chose: crops, votes, balance, division, names.

Hypothesis draws arrays or a seed for NumPy's generators, never torch's; the same inputs each time.
"""

import copy
import math
from collections import Counter
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from helpers.composed import composed
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torchvision.transforms import functional as torchvision

from fer_voting.config import flatten
from fer_voting.data import sampling
from fer_voting.data.sampling import (
    EpochSampler,
    EvalSampler,
    apportion,
    images_per_rank,
    sample_by_class,
    sample_epoch,
    sample_share,
)
from fer_voting.models.crops import CROPS, crop_corners, crop_side, ten_crops
from fer_voting.runs.identity import NOT_IDENTITY, identity, resolve
from fer_voting.runs.naming import name_run
from fer_voting.votes import VOTES, CropOutputs

few = settings(max_examples=40, derandomize=True, database=None, deadline=None)

# --- crops ----------------------------------------------------------------------------------------------------------

SIDES = range(3, 65)


def exact_side(side: int) -> int:
    """Five sixths, half a pixel up, in whole numbers."""
    return (2 * 5 * side + 6) // 12


@pytest.mark.parametrize("side", range(130))
def test_a_crop_s_side_is_five_sixths_to_the_nearest_pixel(side: int) -> None:
    exact = exact_side(side)
    if exact in (0, side):
        with pytest.raises(ValueError, match="too small for crops"):
            crop_side(side)
    else:
        assert crop_side(side) == exact
        assert abs(exact - Fraction(5, 6) * side) <= Fraction(1, 2)


@pytest.mark.parametrize("height", [side for side in SIDES if exact_side(side) not in (0, side)])
def test_crops_of_all_sizes_are_torchvision_s(height: int) -> None:
    """Square maps of every side, and with another side; to the bit, and so is their gradient."""
    for width in (height, SIDES[-1] - height % 7):
        h, w = crop_side(height), crop_side(width)
        pixels = torch.arange(2 * height * width, dtype=torch.float64).view(1, 2, height, width)
        ours, theirs = pixels.clone().requires_grad_(), pixels.clone().requires_grad_()
        expected = torch.stack(torchvision.ten_crop(theirs, [h, w]), dim=1)
        found = ten_crops(ours)
        assert torch.equal(found, expected)
        weights = torch.arange(found.numel(), dtype=torch.float64).view_as(found) % 11
        (found * weights).sum().backward()
        (expected * weights).sum().backward()
        assert torch.equal(ours.grad, theirs.grad)


@few
@given(height=st.integers(6, 200), width=st.integers(6, 200), data=st.data())
def test_corners_of_any_size_are_torchvision_s(height: int, width: int, data: st.DataObject) -> None:
    h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    pixels = torch.arange(height * width).view(1, height, width)
    expected = torchvision.five_crop(pixels, [h, w])
    assert [int(crop[0, 0, 0]) for crop in expected] == [
        top * width + left for top, left in crop_corners(height, width, h, w)
    ]


# --- votes ----------------------------------------------------------------------------------------------------------


@st.composite
def crop_logits(draw: st.DrawFn, whole: bool) -> NDArray[np.float64]:
    """`[B, V, K]`: whole numbers, of which many are equal, or any."""
    shape = draw(st.tuples(st.integers(1, 4), st.sampled_from((1, 2, 5, CROPS)), st.integers(2, 8)))
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    if whole:
        return generator.integers(-2, 3, shape).astype(np.float64)
    return generator.normal(0, draw(st.sampled_from((0.01, 1.0, 30.0))), shape)


def softmax(row: list[float]) -> list[float]:
    exponentials = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponentials) for value in exponentials]


def first_best(row: list[float]) -> int:
    return row.index(max(row))


@few
@given(crop_logits(whole=True))
def test_the_hard_vote_is_a_count(logits: NDArray[np.float64]) -> None:
    """Ties, of which there are many, go to the class with the highest sum of logits, then to the first."""
    classes = logits.shape[2]
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        found = VOTES["hard"](torch.from_numpy(logits).to(dtype)).argmax(dim=1).tolist()
        for decision, crops in zip(found, logits.tolist(), strict=True):
            counts = Counter(first_best(crop) for crop in crops)
            sums = [sum(crop[k] for crop in crops) for k in range(classes)]
            best = [k for k in range(classes) if counts[k] == max(counts.values())]
            assert decision == max(best, key=lambda k: (sums[k], -k))


@few
@given(crop_logits(whole=False))
def test_soft_votes_are_means(logits: NDArray[np.float64]) -> None:
    found = {vote: VOTES[vote](torch.from_numpy(logits)).tolist() for vote in ("soft", "softprob")}
    for image, crops in enumerate(logits.tolist()):
        rows = {"soft": crops, "softprob": [softmax(crop) for crop in crops]}
        for vote, of_crops in rows.items():
            means = [sum(column) / len(column) for column in zip(*of_crops, strict=True)]
            assert found[vote][image] == pytest.approx(means, rel=1e-9, abs=1e-12)


@few
@given(crop_logits(whole=False), st.sampled_from(sorted(VOTES)), st.integers(0, 2**32))
def test_any_vote_s_probabilities(logits: NDArray[np.float64], vote: str, seed: int) -> None:
    """Rows sum to 1, the largest is the decision, and neither depends on the order of crops or of images."""
    tensor = torch.from_numpy(logits)
    found = VOTES[vote].probabilities(CropOutputs(tensor))
    assert torch.allclose(found.sum(dim=1), torch.ones(len(found), dtype=found.dtype))
    assert torch.equal(found.argmax(dim=1), VOTES[vote](tensor).argmax(dim=1))
    if VOTES[vote].is_probability:
        assert torch.equal(found, VOTES[vote](tensor))
    generator = np.random.default_rng(seed)
    images, crops = (torch.from_numpy(generator.permutation(size)) for size in logits.shape[:2])
    shuffled = CropOutputs(tensor[images][:, crops])
    assert torch.allclose(VOTES[vote].probabilities(shuffled), found[images])


# --- parts ----------------------------------------------------------------------------------------------------------


@st.composite
def labelled(draw: st.DrawFn) -> tuple[NDArray[np.void], NDArray[np.int64]]:
    """Hashes V16 and classes of images: uneven, and some classes with none."""
    sizes = draw(st.lists(st.integers(0, 60), min_size=2, max_size=8))
    assume(sum(sizes) > 1)
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    labels = generator.permutation(np.repeat(np.arange(len(sizes)), sizes))
    hashes = np.frombuffer(generator.bytes(16 * len(labels)), "V16")
    return hashes, labels.astype(np.int64)


@few
@given(st.integers(0, 10**6), st.lists(st.integers(0, 1000), min_size=1, max_size=9))
def test_apportioned_numbers_are_the_shares_to_less_than_one(total: int, weights: list[int]) -> None:
    assume(sum(weights) > 0)
    counts = apportion(total, weights)
    assert sum(counts) == total
    for count, weight in zip(counts, weights, strict=True):
        assert abs(count - Fraction(total * weight, sum(weights))) < 1


@few
@given(labelled(), st.floats(0, 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32))
def test_a_share_is_of_every_class_and_of_content(
    images: tuple[NDArray[np.void], NDArray[np.int64]], share: float, seed: int, order: int
) -> None:
    """Each image is in one part; each class has its share to less than one image; the order of files is nothing."""
    hashes, labels = images
    taken = sample_share(hashes, labels, share, seed)
    assert len(set(taken.tolist())) == len(taken) == round(share * len(labels))
    for label, size in enumerate(np.bincount(labels)):
        whole = Fraction(round(share * len(labels)) * int(size), len(labels))
        assert abs(int((labels[taken] == label).sum()) - whole) < 1
    shuffled = np.random.default_rng(order).permutation(len(labels))
    again = sample_share(hashes[shuffled], labels[shuffled], share, seed)
    assert sorted(shuffled[again].tolist()) == taken.tolist()


@few
@given(labelled(), st.integers(0, 40), st.integers(0, 2**31))
def test_a_number_of_each_class(images: tuple[NDArray[np.void], NDArray[np.int64]], count: int, seed: int) -> None:
    hashes, labels = images
    classes = int(labels.max()) + 1
    taken = sample_by_class(hashes, labels, [count] * classes, seed)
    sizes = np.bincount(labels, minlength=classes)
    assert np.bincount(labels[taken], minlength=classes).tolist() == [min(count, int(size)) for size in sizes]


# --- epochs and ranks -----------------------------------------------------------------------------------------------


@few
@given(labelled(), st.none() | st.integers(1, 90), st.integers(0, 2**31), st.integers(0, 50))
def test_an_epoch_is_balanced_and_uses_images_evenly(
    images: tuple[NDArray[np.void], NDArray[np.int64]], target: int | None, seed: int, epoch: int
) -> None:
    """An epoch has the target of each class; over epochs, no image is used twice more often than another."""
    labels = images[1]
    uses = np.zeros(len(labels), int)
    for each in range(3):
        sample = sample_epoch(labels, target, seed, each)
        counts = Counter(labels[sample].tolist())
        assert counts == {k: target or n for k, n in Counter(labels.tolist()).items()}
        np.add.at(uses, sample, 1)
    for label in set(labels.tolist()):
        of_class = uses[labels == label]
        assert of_class.max() - of_class.min() <= 1
    assert np.array_equal(sample_epoch(labels, target, seed, epoch), sample_epoch(labels, target, seed, epoch))


@pytest.fixture
def ranks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    place = {"rank": 0, "world": 1}
    monkeypatch.setattr(sampling, "rank_and_world", lambda: (place["rank"], place["world"]))
    return place


@pytest.mark.parametrize("seed", range(12))
def test_every_image_is_evaluated_once_on_any_number_of_ranks(ranks: dict[str, int], seed: int) -> None:
    generator = np.random.default_rng(seed)
    positions = generator.permutation(1000)[: generator.integers(1, 200)]
    for world in (1, 2, 3, 8):
        seen = []
        for rank in range(world):
            ranks |= {"rank": rank, "world": world}
            sampler = EvalSampler(positions, batch_size=24)
            batches = list(sampler)
            assert len(batches) == len(sampler)
            seen += [position for batch in batches for _, position in batch]
        assert sorted(seen) == sorted(positions.tolist())


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("target", [None, 7, 50])
def test_ranks_share_the_batches_of_one_device(ranks: dict[str, int], seed: int, target: int | None) -> None:
    """Each rank gets equally many images of each batch; together they are the batch of one device, and of a last one
    that does not divide its first images are there twice."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, generator.integers(2, 300))
    positions = generator.permutation(1000)[: len(labels)]

    def batches(rank: int, world: int) -> list[list[tuple[int, int]]]:
        ranks["rank"], ranks["world"] = rank, world
        sampler = EpochSampler(positions, labels, batch_size=24, seed=seed, target=target)
        sampler.set_epoch(3)
        found = list(sampler)
        assert len(found) == len(sampler)
        return found

    alone = batches(0, 1)
    for world in (2, 3, 4, 12):
        assert images_per_rank(24, world) >= 2
        shared = [batches(rank, world) for rank in range(world)]
        for whole, *shares in zip(alone, *shared, strict=True):
            assert len({len(share) for share in shares}) == 1
            together = Counter(key for share in shares for key in share)
            assert together.keys() == set(whole)
            if len(whole) % world == 0 and len(whole) >= 2 * world:
                assert together == Counter(whole)


# --- names ----------------------------------------------------------------------------------------------------------

PLACES = {"trainer.devices", "trainer.num_nodes", "trainer.sync_batchnorm"}
"""By the number of ranks that BatchNorm's batch is divided among: tests/runs/test_identity.py."""


def changed(config: dict[str, Any], key: str) -> dict[str, Any]:
    config = copy.deepcopy(config)
    *parents, last = key.split(".")
    node = config
    for parent in parents:
        node = node[parent]
    value = node[last]
    if isinstance(value, bool):
        node[last] = not value
    elif isinstance(value, int | float):
        node[last] = value + 1
    else:
        node[last] = "other"
    return config


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["dataset=affectnet"],
        ["dataset=fer2013", "split=m3", "model.memory=lean"],
        ["dataset=rafdb", "refit=true", "voting=hard"],
        ["experiment=demo", "seed=5"],
        ["dataset=folder", "augment=none", "optimizer.lr=0.1"],
    ],
    ids=str,
)
def test_a_key_changes_the_name_or_is_listed_with_a_reason(words: list[str]) -> None:
    """Two runs that differ in anything that counts never have one name, nor one identity."""
    config = composed(words)
    plain = resolve(config)
    name = name_run(config)
    for key in sorted(flatten(plain).keys() - PLACES):
        if key.startswith("composition."):
            continue  # what was composed, and no value of it
        other = changed(plain, key)
        listed = any(fnmatchcase(key, pattern) for pattern in NOT_IDENTITY)
        named = name_run(OmegaConf.create(other))
        if identity(other) == identity(plain):
            assert listed or not _counts(plain, key), key
        else:
            assert not listed or key.startswith("voting."), key  # of a refit, the vote counts
            assert named != name, key


def _counts(config: dict[str, Any], key: str) -> bool:
    """Whether a training uses the key: without a teacher, nothing is distilled, without a mix nothing is mixed, and
    without initial weights no class is missing in them."""
    unused = ["mix."]
    unused += ["distillation."] if config.get("teacher") is None else []
    unused += ["init_missing_classes"] if config.get("init_from") is None else []
    return not key.startswith(tuple(unused))
