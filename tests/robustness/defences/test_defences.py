from __future__ import annotations

import pytest
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from model_store.architectures import build
from model_store.inference import STATIC, InferenceMode, PurifierDraws
from model_store.pixels import bytes_to_image, image_to_bytes, to_8bit, to_bytes
from robustness.defences import BASELINES, BitDepth, Defence, Jpeg, Median, NoDefence, Purification, TotalVariation
from robustness.errors import EvaluationError


def photos(count: int = 2, height: int = 17, width: int = 24) -> Tensor:
    """Smooth images with a little noise, of 8 bits, black and white among their pixels."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0, 1, width).expand(count, 3, height, width)
    return to_8bit(ramp + 0.1 * torch.randn(ramp.shape, generator=generator))


def roughness(images: Tensor) -> float:
    return float(images.diff(dim=-1).abs().mean() + images.diff(dim=-2).abs().mean())


def purification(mode: InferenceMode) -> Purification:
    return Purification("mode", mode, "0" * 64, PurifierDraws(build("identity"), mode))


EVERY: list[Defence] = [
    NoDefence(),
    *BASELINES,
    purification(STATIC),
    purification(InferenceMode(noise_std=0.1, draws=2)),
]


@pytest.mark.parametrize("defence", EVERY, ids=lambda d: d.name)
def test_a_defence_keeps_shape_type_and_range(defence: Defence) -> None:
    images = photos()
    kept = images.clone()
    found = defence(images)
    assert (found.shape, found.dtype) == (images.shape, torch.float32)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(images, kept)
    assert defence.draws(images, [3, 4]).shape == (2, defence.draw_count, *images.shape[1:])


@pytest.mark.parametrize("defence", EVERY, ids=lambda d: d.name)
def test_a_neighbour_in_the_batch_changes_nothing(defence: Defence) -> None:
    images = photos(3)
    alone = defence.draws(images[1:2], [8])
    assert torch.equal(defence.draws(images, [7, 8, 9])[1:2], alone)


@pytest.mark.parametrize("defence", EVERY, ids=lambda d: d.name)
def test_a_gradient_passes_where_a_defence_says_so_and_nowhere_else(defence: Defence) -> None:
    images = photos().requires_grad_(True)
    found = defence.draws(images, [3, 4])
    passed = found.requires_grad and bool(torch.autograd.grad(found.sum(), images)[0].any())
    assert passed == defence.differentiable


@pytest.mark.parametrize("defence", [Median(), purification(InferenceMode(noise_std=0.1, ball=16.0))])
def test_the_gradient_that_passes_is_the_true_one(defence: Defence) -> None:
    images = 0.2 + 0.6 * torch.rand(1, 3, 6, 6)
    weights, way = torch.rand(1, 1, 3, 6, 6), 1e-4 * torch.randn(images.shape)
    leaf = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad((weights * defence.draws(leaf, [1])).sum(), leaf)
    moved = (weights * (defence.draws(images + way, [1]) - defence.draws(images, [1]))).sum()
    assert moved == pytest.approx(float((gradient * way).sum()), abs=2e-5)
    assert abs(float(moved)) > 1e-4


@pytest.mark.parametrize("defence", BASELINES, ids=lambda d: d.name)
def test_a_baseline_keeps_the_picture(defence: Defence) -> None:
    images = photos(1, 32, 32)
    assert 0 < (defence(images) - images).abs().mean() < 0.15


@pytest.mark.parametrize("defence", [d for d in BASELINES if not isinstance(d, BitDepth)], ids=lambda d: d.name)
def test_a_smoothing_baseline_removes_noise(defence: Defence) -> None:
    images = photos(1, 32, 32)
    assert roughness(defence(images)) < roughness(images)


def test_total_variation_10_smooths_more_than_30() -> None:
    images = photos()
    assert roughness(TotalVariation(10)(images)) < 0.95 * roughness(TotalVariation(30)(images))


def test_jpeg_20_loses_more_than_jpeg_75() -> None:
    images = photos()
    losses = [(Jpeg(quality)(images) - images).abs().mean() for quality in (75, 50, 20)]
    assert losses[0] < losses[1] < losses[2]


def test_the_median_is_pillows_inside_and_repeats_the_border() -> None:
    images = photos(1)
    image: Image.Image = bytes_to_image(to_bytes(images)[0])
    expected = image_to_bytes(image.filter(ImageFilter.MedianFilter(3)))
    assert torch.equal(to_bytes(Median()(images))[0, :, 1:-1, 1:-1], expected[:, 1:-1, 1:-1])
    corner = torch.tensor([[0.0, 0.2], [0.4, 0.8]]).expand(1, 3, 2, 2)
    assert torch.equal(Median()(corner)[0, 0], torch.tensor([[0.2, 0.2], [0.4, 0.4]]))


def test_bit_depth_rounds_to_the_nearest_of_its_levels() -> None:
    images = torch.tensor([0.0, 0.1, 0.17, 0.49, 0.51, 0.9, 1.0]).expand(1, 3, 1, 7)
    assert torch.equal(BitDepth(1)(images)[0, 0, 0], torch.tensor([0.0, 0, 0, 0, 1, 1, 1]))
    assert torch.equal(BitDepth(2)(images)[0, 0, 0] * 3, torch.tensor([0.0, 0, 1, 1, 2, 3, 3]))


@pytest.mark.parametrize("bits", range(1, 9))
def test_bit_depth_leaves_its_own_levels_and_the_ends_alone(bits: int) -> None:
    ramp = torch.linspace(0, 1, 3 * 512).view(1, 3, 16, 32)
    squeezed = BitDepth(bits)(ramp)
    assert len(squeezed.unique()) == 2**bits
    assert (squeezed.min(), squeezed.max()) == (0, 1)
    assert torch.equal(BitDepth(bits)(squeezed), squeezed)


def test_eight_bits_are_what_an_upload_has() -> None:
    images = photos()
    assert torch.equal(BitDepth(8)(images), images)


@pytest.mark.parametrize("bits", [0, 9])
def test_no_bits_and_too_many_bits_are_refused(bits: int) -> None:
    with pytest.raises(EvaluationError, match="choose 1 to 8"):
        BitDepth(bits)


def test_the_identity_purifier_changes_no_bit() -> None:
    images = photos()
    assert torch.equal(purification(STATIC).draws(images, [0, 1])[:, 0], images)


def test_noise_comes_from_the_images_own_seed() -> None:
    noisy, images = purification(InferenceMode(noise_std=0.1, draws=2)), photos(1).expand(2, -1, -1, -1)
    found = noisy.draws(images, [1, 1])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0, 0], found[0, 1])
    assert not torch.equal(found[:1], noisy.draws(images[:1], [2]))


def test_another_number_of_draws_is_another_identity() -> None:
    noisy = purification(InferenceMode(noise_std=0.1, draws=2))
    assert noisy.with_draws(5).draws(photos(1), [0]).shape[1] == 5
    assert repr(noisy.with_draws(5)) != repr(noisy)
    assert repr(noisy.with_draws(2)) == repr(noisy)


def test_names_tell_defences_apart() -> None:
    names = ["JPEG 75", "JPEG 50", "JPEG 20", "TV 30", "TV 10", "median 3x3", "bit depth 4"]
    assert [d.name for d in BASELINES] == names
