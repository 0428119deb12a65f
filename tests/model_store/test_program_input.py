from __future__ import annotations

import pytest
import torch

from model_store.card import InputConvention
from model_store.program_input import channels_first, program_input


def test_pixels_are_left_as_they_are_by_default() -> None:
    images = torch.rand(2, 3, 4, 5)
    assert program_input(images, InputConvention()) is images


def test_caffe_s_convention_is_channels_last_bgr_levels_less_their_mean() -> None:
    convention = InputConvention(layout="NHWC", colour="BGR", high=255.0, mean=(104, 117, 123))
    images = torch.rand(2, 3, 4, 5)
    red, green, blue = (images[:, channel] * 255 for channel in range(3))
    expected = torch.stack([blue - 104, green - 117, red - 123], dim=3)
    torch.testing.assert_close(program_input(images, convention), expected)


def test_mean_and_std_are_of_scaled_values_channel_by_channel() -> None:
    convention = InputConvention(low=-1.0, high=1.0, mean=(0.0, 0.1, 0.2), std=(1.0, 2.0, 4.0))
    found = program_input(torch.full((1, 3, 1, 1), 0.75), convention)
    assert found.flatten().tolist() == pytest.approx([0.5, 0.2, 0.075])


def test_a_gradient_passes() -> None:
    convention = InputConvention(layout="NHWC", colour="BGR", high=255.0)
    images = torch.rand(1, 3, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(program_input(images, convention).sum(), images)
    assert (gradient == 255).all()


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    [
        ("NCHW", ["n", 3, 4, 5], ["n", 3, 4, 5]),
        ("NHWC", ["n", 4, 5, 3], ["n", 3, 4, 5]),
        ("NHWC", [4, 5, 3], [3, 4, 5]),
        ("NHWC", [5, 3], [5, 3]),
    ],
)
def test_shapes_are_read_with_the_channels_first(layout: str, shape: list[object], expected: list[object]) -> None:
    assert channels_first(shape, InputConvention.model_validate({"layout": layout})) == expected
