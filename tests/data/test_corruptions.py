"""Corruptions of faces against independent arithmetic, and what all have in common."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from torch.nn.functional import interpolate

from fer_voting.data.corruptions import CORRUPTIONS, EYES, MOUTH, Corrupted, corrupt

SIDE = 48


def smooth_faces(count: int = 6, grey: bool = False) -> NDArray[np.uint8]:
    """Smooth random images, as photos are."""
    rng = np.random.default_rng(0)
    coarse = rng.uniform(30, 225, (count, 8, 8, 1 if grey else 3))
    fine = zoom(coarse, (1, SIDE / 8, SIDE / 8, 1), order=1)
    return np.broadcast_to(np.clip(fine.round(), 0, 255), (count, SIDE, SIDE, 3)).astype(np.uint8)


def area_matrix(before: int, after: int) -> NDArray[np.float64]:
    """Share of each of `before` pixels in each of `after`: their overlap on the line."""
    edges = np.linspace(0, before, after + 1)
    starts = np.arange(before)
    overlap = np.minimum(edges[1:, None], starts + 1) - np.maximum(edges[:-1, None], starts)
    return np.clip(overlap, 0, None) * after / before


@pytest.mark.parametrize("side", [8, 12, 16, 24, 32, 40, 48])
def test_resolution_is_area_averaging_and_bilinear_enlargement(side: int):
    faces = smooth_faces()
    areas = area_matrix(SIDE, side)
    small = np.einsum("ai,nijc,bj->nabc", areas, faces.astype(float), areas).round()
    x = torch.tensor(small).permute(0, 3, 1, 2)
    expected = interpolate(x, size=(SIDE, SIDE), mode="bilinear").round().permute(0, 2, 3, 1).numpy()
    error = np.abs(corrupt(faces, "resolution", side) - expected)
    assert error.max() <= 2
    assert error.mean() <= 0.5  # halves are rounded up or down


def test_blur_is_gaussian():
    faces = smooth_faces()
    for sigma in CORRUPTIONS["blur"].strengths:
        expected = gaussian_filter(faces.astype(float), (0, sigma, sigma, 0), mode="nearest")
        assert np.abs(corrupt(faces, "blur", sigma) - expected).mean() < 1


def test_blur_is_in_proportion_to_the_face():
    edge = np.zeros((1, 2 * SIDE, 2 * SIDE, 3), np.uint8)
    edge[:, :, SIDE:] = 200
    small = corrupt(edge[:, ::2, ::2], "blur", 2)[0, SIDE // 2, :, 0].astype(float)
    large = corrupt(edge, "blur", 2)[0, SIDE, :, 0].astype(float)
    assert np.abs(large.reshape(-1, 2).mean(axis=1) - small).max() < 8


def test_light_and_contrast_by_hand():
    face = np.array([[[10, 20, 30], [200, 100, 50]]], np.uint8)[None]
    assert corrupt(face, "darkness", 0.25)[0].tolist() == [[[2, 5, 8], [50, 25, 12]]]
    assert corrupt(face, "brightness", 2)[0].tolist() == [[[20, 40, 60], [255, 200, 100]]]
    mean = (10 + 20 + 30 + 200 + 100 + 50) / 6
    expected = [[round(mean + 0.5 * (value - mean)) for value in pixel] for pixel in face[0, 0].tolist()]
    assert corrupt(face, "contrast", 0.5)[0, 0].tolist() == expected


def test_noise_has_its_deviation_and_keeps_grey():
    faces = np.full((8, SIDE, SIDE, 3), 128, np.uint8) + np.arange(8, dtype=np.uint8)[:, None, None, None]
    for deviation in CORRUPTIONS["noise"].strengths:
        noise = corrupt(faces, "noise", deviation).astype(float) - faces
        assert noise.std() == pytest.approx(deviation, rel=0.05)
        assert abs(noise.mean()) < deviation / 20
        assert (np.ptp(noise, axis=3) == 0).all()
        assert not np.array_equal(noise[0], noise[1])  # each face has its own


@pytest.mark.parametrize(("name", "middle"), [("eyes", EYES), ("mouth", MOUTH)])
def test_a_bar_covers_its_rows_only(name: str, middle: float):
    faces = smooth_faces()
    for share in CORRUPTIONS[name].strengths:
        covered = corrupt(faces, name, share)
        black = (covered == 0).all(axis=(0, 2, 3))
        assert black.sum() == pytest.approx(share * SIDE, abs=1)
        assert np.flatnonzero(black).mean() == pytest.approx(middle * SIDE, abs=1)
        assert np.array_equal(covered[:, ~black], faces[:, ~black])


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_stronger_corruption_changes_more_and_equal_images_equally(name: str):
    faces = smooth_faces()
    before = faces.copy()
    changes = []
    for strength in CORRUPTIONS[name].strengths:
        worse = corrupt(faces, name, strength)
        assert (worse.dtype, worse.shape) == (np.uint8, faces.shape)
        changes.append(np.abs(worse.astype(int) - faces).mean())
        alone = Corrupted(name, strength)(faces[3:4], [(9, 9)], 5)
        assert np.array_equal(alone[0], worse[3])
        grey = corrupt(smooth_faces(grey=True), name, strength)
        assert (np.ptp(grey, axis=3) <= 1).all()
    assert 0 < changes[0] < changes[1] < changes[2]
    assert np.array_equal(faces, before)
