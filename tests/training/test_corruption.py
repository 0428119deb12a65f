"""What happens to images before the purifier: how often, how strongly, in which order, and what is spared."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model_store.pixels import to_8bit
from robustness.defences.jpeg import Jpeg
from tests.training.conftest import tiny_recipe as recipe
from training.corruption import Strengths, corrupt, draw_strengths, gaussian

CPU = torch.device("cpu")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def photos(count: int = 2, height: int = 48, width: int = 64) -> Tensor:
    """Smooth images with a little grain, of 8 bits."""
    coarse = torch.rand(count, 3, 5, 5, generator=generator(1))
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic")
    return to_8bit(smooth + 0.02 * torch.randn(smooth.shape, generator=generator(2)))


def strengths(count: int, std: float = 0.0, quality: int = 0) -> Strengths:
    return Strengths(torch.full((count, 1, 1, 1), std), torch.full((count,), quality))


@pytest.mark.parametrize("quality", [20, 50, 90])
def test_what_is_compressed_is_what_pillow_makes_of_it(quality: int) -> None:
    images = photos(height=50, width=61)
    ours, theirs = corrupt(images, strengths(2, quality=quality), torch.zeros(())), Jpeg(quality)(images)
    assert (ours - theirs).abs().mean() < 1.2 / 255
    assert (ours - theirs).abs().mean() < 0.25 * (theirs - images).abs().mean()


def test_nothing_is_done_where_nothing_was_drawn() -> None:
    images, noise = photos(4), torch.randn(4, 3, 48, 64, generator=generator())
    drawn = Strengths(torch.full((4, 1, 1, 1), 0.3), torch.tensor([30, 0, 30, 0]))
    spared = drawn.sparing(torch.tensor([True, True, False, False]))
    seen = corrupt(images, spared, noise)
    assert torch.equal(seen[:2], images[:2])
    assert torch.equal(seen[2:], corrupt(images, drawn, noise)[2:])
    assert torch.equal(seen[3], images[3] + 0.3 * noise[3])


def test_noise_lies_on_top_of_jpeg() -> None:
    images, noise = photos(), torch.randn(2, 3, 48, 64, generator=generator())
    both = corrupt(images, strengths(2, 0.1, 20), noise)
    torch.testing.assert_close(both - 0.1 * noise, corrupt(images, strengths(2, 0.0, 20), noise))


def test_a_gradient_passes_all_of_it() -> None:
    images = (0.25 + 0.5 * photos()).requires_grad_(True)
    seen = corrupt(images, Strengths(torch.full((2, 1, 1, 1), 0.2), torch.tensor([40, 0])), torch.zeros(()))
    (slope,) = torch.autograd.grad(seen.sum(), images)
    torch.testing.assert_close(slope.sum((1, 2, 3)), torch.full((2,), float(slope[0].numel())), rtol=0.02, atol=0)


def test_strengths_keep_their_ranges() -> None:
    drawn = draw_strengths(
        recipe(noise_low=0.1, noise_high=0.2, jpeg_share=1.0, jpeg_quality=(40, 60)), 400, generator()
    )
    assert 0.1 <= drawn.std.min() < 0.11
    assert 0.19 < drawn.std.max() <= 0.2
    assert (int(drawn.quality.min()), int(drawn.quality.max())) == (40, 60)


def test_shares_are_kept() -> None:
    drawn = draw_strengths(recipe(noise_share=0.25, jpeg_share=0.5), 4000, generator())
    assert (drawn.std > 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (drawn.quality > 0).float().mean().item() == pytest.approx(0.5, abs=0.03)
    assert abs(np.corrcoef(drawn.std.flatten() > 0, drawn.quality > 0)[0, 1]) < 0.06


def test_one_strength_of_noise_is_that_of_certification() -> None:
    drawn = draw_strengths(recipe(noise_low=0.25, noise_high=0.25), 8, generator())
    assert torch.equal(drawn.std, torch.full((8, 1, 1, 1), 0.25))


def test_options_that_are_off_draw_nothing() -> None:
    """Else a recipe would mean other bits as soon as another option is invented."""
    one, other = generator(), generator()
    draw_strengths(recipe(), 8, one)
    torch.rand(8, 1, 1, 1, generator=other)
    assert torch.equal(one.get_state(), other.get_state())


def test_noise_is_a_function_of_the_generator() -> None:
    shape = torch.Size((2, 3, 4, 5))
    assert torch.equal(gaussian(shape, generator(3), CPU), gaussian(shape, generator(3), CPU))
    assert not torch.equal(gaussian(shape, generator(3), CPU), gaussian(shape, generator(4), CPU))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_noise_on_a_gpu_is_a_function_of_the_generator_too() -> None:
    device, shape = torch.device("cuda"), torch.Size((2, 3, 64, 64))
    first = gaussian(shape, generator(3), device)
    assert first.is_cuda
    assert torch.equal(first, gaussian(shape, generator(3), device))
    assert first.std().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"noise_low": 0.4, "noise_high": 0.3}, "noise_low must be at most noise_high"),
        ({"jpeg_quality": (80, 20)}, "jpeg_quality"),
        ({"jpeg_quality": (0, 20)}, "jpeg_quality"),
        ({"adversary_share": 0.8, "clean_share": 0.3}, "at most 1 together"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        recipe(**changes)
