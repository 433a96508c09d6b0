import itertools

import numpy as np
from PIL import Image, ImageOps

from fer_voting.data.division import same_content
from fer_voting.data.quality import UPRIGHT, VIEWS, near_pairs, perceptual_hashes


def test_groups_of_equal_content() -> None:
    hashes = np.array([b"b" * 16, b"a" * 16, b"b" * 16, b"\0" * 16, b"a" * 15 + b"\0", b"\0" * 16, b"b" * 16], "V16")
    assert [group.tolist() for group in same_content(hashes)] == [[0, 2, 6], [3, 5]]


def smooth(seed: int, side: int = 48) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def test_images_that_look_alike_have_near_hashes() -> None:
    image = smooth(0)
    darker = (image * 0.7 + 10).astype(np.uint8)
    noisy = np.clip(image.astype(int) + np.random.default_rng(1).integers(-8, 9, image.shape), 0, 255)
    resized = np.asarray(Image.fromarray(image).resize((40, 40)).resize((48, 48)))
    hashes = perceptual_hashes(np.stack([image, darker, noisy.astype(np.uint8), resized, smooth(2), smooth(3)]))
    distances = np.bitwise_count(hashes[0] ^ hashes)
    assert distances[0] == 0
    assert distances[1:4].max() <= 4
    assert distances[4:].min() > 12


def test_near_pairs_are_those_that_comparing_all_finds() -> None:
    generator = np.random.default_rng(0)
    hashes = generator.integers(0, 2**63, 60, np.uint64)
    for copy in range(60, 120):  # copies of earlier ones with 0 to 6 other bits
        changed = generator.choice(64, copy % 7, replace=False).astype(np.uint64)
        hashes = np.append(hashes, hashes[generator.integers(copy)] ^ np.bitwise_or.reduce(np.uint64(1) << changed))
    assert near_pairs(hashes[:0], 4).shape == (0, 2)
    for bits in (0, 1, 4, 8):
        expected = [
            [first, second]
            for first, second in itertools.combinations(range(len(hashes)), 2)
            if int(hashes[first] ^ hashes[second]).bit_count() <= bits
        ]
        assert near_pairs(hashes, bits).tolist() == expected
        assert len(expected) > 5


def test_mirrored_turned_and_cropped_copies_have_near_hashes_in_a_view() -> None:
    """Each copy as Pillow makes it, black where turning leaves corners; other images are near in no view."""
    images = [Image.fromarray(smooth(seed)) for seed in range(12)]
    copies = {
        "mirrored": ImageOps.mirror(images[0]),
        "turned": images[1].rotate(7, Image.Resampling.BILINEAR),
        "turned and mirrored": ImageOps.mirror(images[2]).rotate(-4, Image.Resampling.BILINEAR),
        "cropped": images[3].crop((2, 2, 46, 46)).resize((48, 48)),
    }
    stack = np.stack([np.asarray(image) for image in (*images, *copies.values())])
    upright = perceptual_hashes(UPRIGHT.of(stack))
    pairs: dict[tuple[int, int], str] = {}
    for view in VIEWS:
        for first, second in near_pairs(upright, 6, perceptual_hashes(view.of(stack))).tolist():
            pairs.setdefault((first, second), view.change)
    assert set(pairs) == {(number, 12 + number) for number in range(4)}
    assert pairs[0, 12] == "mirrored"
    assert "turned by about" in pairs[1, 13]
    assert "mirrored" in pairs[2, 14]
