"""Images as a network takes them."""

import numpy as np
import PIL.Image
import torch

from fer_voting.models.images import as_grey


def test_grey_is_pillows_in_every_bit():
    every = np.stack(np.meshgrid(*[np.arange(0, 256, 5, dtype=np.uint8)] * 3), axis=-1).reshape(52, -1, 3)
    expected = np.asarray(PIL.Image.fromarray(every).convert("L").convert("RGB"))
    assert np.array_equal(as_grey(torch.from_numpy(every)).numpy(), expected)


def test_grey_images_stay_what_they_are():
    grey = torch.arange(256, dtype=torch.uint8).view(16, 16, 1).expand(2, 16, 16, 3)
    assert torch.equal(as_grey(grey), grey)
