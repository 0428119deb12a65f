from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from model_store.card import InputConvention
from model_store.pixels import bytes_to_image, fit, image_to_bytes, to_8bit, to_bytes, to_float

FITTED = InputConvention(short_side=20, crop=16)


def every_level() -> Tensor:
    return torch.arange(256, dtype=torch.uint8).expand(3, 2, 256).contiguous()


def test_all_256_levels_survive_the_way_through_float() -> None:
    levels = every_level()
    assert torch.equal(to_bytes(to_float(levels)), levels)
    assert to_float(levels).dtype == torch.float32
    assert torch.equal(to_8bit(to_float(levels)), to_float(levels))


def test_all_256_levels_survive_the_way_through_an_image_file_object() -> None:
    assert torch.equal(image_to_bytes(bytes_to_image(every_level())), every_level())


def test_height_width_and_colour_keep_their_places() -> None:
    array = np.zeros((2, 5, 3), dtype=np.uint8)
    array[1, 4] = (10, 20, 30)
    pixels = image_to_bytes(Image.fromarray(array))
    assert pixels.shape == (3, 2, 5)
    assert pixels[:, 1, 4].tolist() == [10, 20, 30]
    assert bytes_to_image(pixels).getpixel((4, 1)) == (10, 20, 30)


def test_values_are_clamped_and_rounded_to_the_nearest_level() -> None:
    given = torch.tensor([-1.0, 2.0, 100.4 / 255, 100.6 / 255])
    assert to_bytes(given).tolist() == [0, 255, 100, 101]


@pytest.mark.parametrize("size", [(20, 20), (16, 40), (100, 30), (1, 1), (7, 5), (1, 60), (401, 399)])
def test_an_image_of_any_size_comes_to_the_classifiers(size: tuple[int, int]) -> None:
    fitted = fit(torch.rand(2, 3, *size), FITTED)
    assert fitted.shape == (2, 3, 16, 16)
    assert fitted.min() >= -1e-5
    assert fitted.max() <= 1 + 1e-5


def test_without_a_size_an_image_is_taken_as_it_is() -> None:
    images = torch.rand(1, 3, 7, 5)
    assert fit(images, InputConvention()) is images


def test_a_short_side_alone_keeps_the_shape_of_the_image() -> None:
    assert fit(torch.rand(1, 3, 10, 30), InputConvention(short_side=20)).shape == (1, 3, 20, 60)


def test_an_image_of_the_right_short_side_is_only_cropped() -> None:
    images = torch.rand(1, 3, 20, 24)
    assert torch.equal(fit(images, FITTED), images[..., 2:18, 4:20])


def test_a_long_image_is_cut_before_it_is_scaled_and_shows_the_same_centre() -> None:
    ramp = torch.linspace(0, 1, 301).view(1, 1, 1, -1).expand(1, 3, 30, 301).contiguous()
    whole = F.interpolate(ramp, size=(20, 201), mode="bilinear", antialias=True)[..., 2:18, 92:108]
    torch.testing.assert_close(fit(ramp, FITTED), whole, atol=0.01, rtol=0)


@pytest.mark.parametrize("size", [(1, 100_000), (100_000, 1)])
def test_an_extremely_long_image_does_not_grow(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    scaled = []

    def watched(images: Tensor, size: tuple[int, int], **options: object) -> Tensor:
        scaled.append(size)
        return real(images, size=size, **options)

    real = F.interpolate
    monkeypatch.setattr(F, "interpolate", watched)
    assert fit(torch.rand(1, 3, *size), FITTED).shape == (1, 3, 16, 16)
    assert max(scaled[0]) <= 80


@pytest.mark.parametrize("size", [(30, 25), (5, 60)])
def test_a_gradient_flows_through_to_the_uploaded_pixels(size: tuple[int, int]) -> None:
    images = torch.rand(1, 3, *size, requires_grad=True)
    (gradient,) = torch.autograd.grad(fit(images, FITTED).square().sum(), images)
    assert gradient[..., size[0] // 2, size[1] // 2].abs().min() > 0


def test_a_crop_larger_than_the_short_side_is_refused() -> None:
    with pytest.raises(ValueError, match="crop 30 is larger than short_side 20"):
        fit(torch.rand(1, 3, 40, 50), InputConvention(short_side=20, crop=30))


def test_a_stretched_image_loses_nothing_but_what_the_crop_cuts() -> None:
    convention = InputConvention(short_side=20, crop=16, stretch=True)
    images = torch.rand(2, 3, 30, 50)
    whole = F.interpolate(images, size=(20, 20), mode="bilinear", antialias=True)
    torch.testing.assert_close(fit(images, convention), whole[..., 2:18, 2:18])
    assert torch.equal(fit(images[..., :20, :20], convention), images[..., 2:18, 2:18])
