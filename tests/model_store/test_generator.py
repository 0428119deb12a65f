"""The perturbation generator: any size in, the same size out, in [0,1]."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model_store.architectures import ARCHITECTURES, build
from model_store.architectures.generator import PerturbationGenerator


def tiny() -> PerturbationGenerator:
    torch.manual_seed(0)
    return PerturbationGenerator(width=4, blocks=1).eval()


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 5), (8, 8), (33, 17), (1, 64)])
def test_it_keeps_the_shape_of_any_image_and_stays_within_the_unit_interval(size: tuple[int, int]) -> None:
    module = tiny()
    with torch.no_grad():
        for parameter in module.last.parameters():
            parameter.mul_(30)
    made = module(torch.rand(2, 3, *size))
    assert made.shape == (2, 3, *size)
    assert made.dtype == torch.float32
    assert 0 <= made.min() < made.max() <= 1


def test_padding_repeats_the_border_and_is_cut_off_again() -> None:
    module = tiny()
    image = torch.rand(1, 3, 10, 12)
    padded = torch.cat([image, image[..., -1:, :].expand(1, 3, 2, 12)], dim=2)
    torch.testing.assert_close(module(image), module(padded)[..., :10, :])


def test_a_gradient_reaches_the_input() -> None:
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(tiny()(images).sum(), images)
    assert gradient.abs().sum() > 0


def test_trained_an_image_is_perturbed_alike_whatever_its_neighbours() -> None:
    module = tiny()
    image = torch.rand(1, 3, 16, 16)
    among_others = module(torch.cat([torch.zeros(1, 3, 16, 16), image]))[1:]
    torch.testing.assert_close(among_others, module(image))


def test_it_has_the_papers_layout() -> None:
    """Features from 3 over w and 2w to 4w and back, two of stride 2 down, two up, 7x7 first and last."""
    module = build("cda_generator", {"width": 64, "blocks": 6})
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == [
        (3, 64),
        (64, 128),
        (128, 256),
        *[(256, 256)] * 12,
        (256, 128),
        (128, 64),
        (64, 3),
    ]
    assert [layer.kernel_size[0] for layer in layers] == [7, *[3] * 16, 7]
    assert [index for index, layer in enumerate(layers) if layer.stride == (2, 2)] == [1, 2, 15, 16]
    assert [type(layers[index]) for index in (2, 15, 16)] == [nn.Conv2d, nn.ConvTranspose2d, nn.ConvTranspose2d]
    assert ARCHITECTURES["cda_generator"].task == "perturber"


def test_in_half_precision_the_answer_still_tells_the_levels_of_eight_bits_apart() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert tiny()(torch.rand(1, 3, 16, 16)).dtype == torch.float32
