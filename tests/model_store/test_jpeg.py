"""JPEG in torch against Pillow's codec, and what a gradient sees of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from model_store.inference import STATIC, InferenceMode, PurifierDraws, noisy_draws, seeded
from model_store.jpeg import jpeg, softly_rounded
from model_store.pixels import to_bytes, to_float


def photo(height: int, width: int) -> Tensor:
    """A piece of scikit-image's astronaut, uint8 (3, height, width)."""
    pixels: Tensor = torch.from_numpy(astronaut()[:height, 100 : 100 + width].copy()).permute(2, 0, 1)
    return pixels


def by_pillow(pixels: Tensor, quality: int) -> Tensor:
    file = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)


@pytest.mark.parametrize("quality", [10, 20, 50, 75, 95])
@pytest.mark.parametrize("size", [(128, 128), (97, 61)])
def test_it_is_what_pillow_does_but_for_rare_roundings(quality: int, size: tuple[int, int]) -> None:
    pixels = photo(*size)
    ours = to_bytes(jpeg(to_float(pixels).unsqueeze(0), torch.tensor([quality])))[0].int()
    apart = (ours - by_pillow(pixels, quality).int()).abs().float()
    assert apart.mean() < 0.7
    assert apart.quantile(0.99) <= 8
    assert apart.mean() < 0.4 * (ours - pixels.int()).abs().float().mean()


def test_each_image_has_its_own_quality_and_no_neighbours() -> None:
    images = to_float(torch.stack([photo(64, 48), photo(64, 48)]))
    both = jpeg(images, torch.tensor([10, 90]))
    assert torch.equal(both[0], jpeg(images[:1], torch.tensor([10]))[0])
    assert (both[0] - images[0]).abs().mean() > 2 * (both[1] - images[1]).abs().mean()


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (16, 17)])
def test_any_size_comes_back_as_itself(size: tuple[int, int]) -> None:
    assert jpeg(torch.rand(1, 3, *size), torch.tensor([50])).shape == (1, 3, *size)


def test_the_gradient_passes_the_rounding() -> None:
    image = torch.full((1, 3, 16, 16), 0.5, requires_grad=True)
    (gradient,) = torch.autograd.grad(jpeg(image, torch.tensor([50])).mean(), image)
    assert gradient.sum().item() == pytest.approx(1, abs=0.01)


def test_another_gradient_of_the_quantisation_changes_no_value() -> None:
    images = to_float(photo(32, 32)).unsqueeze(0)
    leaf = images.clone().requires_grad_(True)
    quality, weights = torch.tensor([20]), torch.randn(1, 3, 32, 32, generator=seeded(0))
    straight, soft = jpeg(leaf, quality), jpeg(leaf, quality, softly_rounded)
    assert torch.equal(straight, soft)
    gradients = [torch.autograd.grad((out * weights).sum(), leaf)[0] for out in (straight, soft)]
    assert not torch.allclose(*gradients)
    assert gradients[1].abs().max() > 0


def test_the_soft_roundings_gradient_is_flat_at_whole_numbers_and_steep_between() -> None:
    values = torch.tensor([0.0, 0.25, 0.4999, 1.0, -1.25], requires_grad=True)
    rounded = softly_rounded(values)
    assert torch.equal(rounded.detach(), values.detach().round())
    (slope,) = torch.autograd.grad(rounded.sum(), values)
    torch.testing.assert_close(slope, torch.tensor([0.0, 0.1875, 0.7497, 0.0, 0.1875]))


def test_a_mode_compresses_before_its_noise() -> None:
    image = to_float(photo(32, 32))
    mode = InferenceMode(noise_std=0.1, draws=2, jpeg=30)
    expected = noisy_draws(
        jpeg(image.unsqueeze(0), torch.tensor([30]))[0], InferenceMode(noise_std=0.1, draws=2), seeded(3)
    )
    assert torch.equal(noisy_draws(image, mode, seeded(3)), expected)
    assert mode.in_words() == "JPEG 30, then noise std 0.1"


def test_a_static_mode_with_jpeg_is_static_and_attacks_get_through_it() -> None:
    mode = InferenceMode(jpeg=30)
    assert mode.static
    assert mode != STATIC
    image = to_float(photo(16, 16)).unsqueeze(0).requires_grad_(True)
    purified = PurifierDraws(torch.nn.Identity(), mode)(image, [0])
    (gradient,) = torch.autograd.grad(purified.square().sum(), image)
    assert gradient.abs().max() > 0
