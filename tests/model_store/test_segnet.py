"""SegNet-Basic: any size in, the same size of logits out, each value where its maximum stood."""

import pytest
import torch

from model_store.architectures import ARCHITECTURES, build
from model_store.architectures.segnet import SegNetBasic
from model_store.errors import UnknownArchitectureError


def tiny() -> SegNetBasic:
    return SegNetBasic(classes=5, width=4, kernel=3).eval()


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 33), (45, 60), (1, 40)])
def test_the_logits_have_the_images_size_whatever_it_is(size: tuple[int, int]) -> None:
    logits = tiny()(torch.rand(2, 3, *size))
    assert logits.shape == (2, 5, *size)
    assert torch.isfinite(logits).all()


def test_it_is_the_papers_network_by_default() -> None:
    with torch.device("meta"):
        state = build("segnet_basic", {"classes": 11}).state_dict()
    kernels = [tuple(value.shape) for key, value in state.items() if value.dim() == 4]
    assert kernels == [(64, 3, 7, 7), *[(64, 64, 7, 7)] * 7, (11, 64, 1, 1)]
    assert ARCHITECTURES["segnet_basic"].task == "segmenter"


def test_padding_repeats_the_border_and_is_cut_off_again() -> None:
    module = tiny()
    image = torch.rand(1, 3, 16, 16)
    padded = torch.cat([image, image[..., -1:, :].expand(1, 3, 16, 16)], dim=2)
    torch.testing.assert_close(module(padded[..., :20, :]), module(padded)[..., :20, :])


def test_the_decoder_puts_values_back_where_their_maxima_stood() -> None:
    """With convolutions that copy, only pixels that won all four poolings keep a value."""
    module = tiny()
    for stack in (*module.encoders, *module.decoders):
        torch.nn.init.dirac_(stack[0].weight)
    torch.nn.init.dirac_(module.classify.weight)
    assert module.classify.bias is not None
    torch.nn.init.zeros_(module.classify.bias)
    image = torch.full((1, 3, 32, 32), 0.5)
    image[0, :, 5, 9], image[0, :, 20, 30], image[0, :, 21, 3], image[0, :, 3, 31] = 0.9, 0.8, 0.7, 1.0
    kept = module(image)[0, 0].nonzero().tolist()
    assert kept == [[3, 31], [5, 9], [20, 30], [21, 3]]


def test_normalisation_is_no_part_of_the_weights() -> None:
    assert not any("normalise" in key for key in tiny().state_dict())


def test_an_even_kernel_is_refused() -> None:
    with pytest.raises(UnknownArchitectureError, match="odd"):
        build("segnet_basic", {"classes": 5, "kernel": 4})
