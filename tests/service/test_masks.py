from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from service.findings import ClassMask
from service.masks import encode_mask


def test_values_are_classes_and_shares_are_of_all_pixels(image_of: Callable[[bytes], Image.Image]) -> None:
    classes = torch.tensor([[0, 0, 3], [3, 3, 255]], dtype=torch.uint8)
    encoded = encode_mask(ClassMask(classes))
    image = image_of(encoded.file)
    assert np.array_equal(np.asarray(image), classes.numpy())
    assert len(encoded.shares) == 256
    assert (encoded.shares[0], encoded.shares[3]) == pytest.approx((2 / 6, 3 / 6))
    assert sum(encoded.shares) == pytest.approx(1)


def test_every_class_has_a_colour_of_its_own_and_the_first_are_voc_s(image_of: Callable[[bytes], Image.Image]) -> None:
    every = ClassMask(torch.arange(256, dtype=torch.uint8).view(16, 16))
    colours = np.asarray(image_of(encode_mask(every).file).convert("RGB")).reshape(256, 3).tolist()
    assert len({tuple(colour) for colour in colours}) == 256
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
