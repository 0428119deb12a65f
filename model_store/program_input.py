"""A program's input: pixels as this project has them, brought to the layout, colour and scale that a card states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from model_store.card import InputConvention

T = TypeVar("T")


def program_input(images: Tensor, convention: InputConvention) -> Tensor:
    """What a program of that convention takes of images (N, 3, H, W) float32 RGB in [0,1]; differentiable.

    (N, 3, H, W), or (N, H, W, 3) for NHWC.
    """
    if convention.colour == "BGR":
        images = images.flip(1)
    if (convention.low, convention.high) != (0.0, 1.0):
        images = convention.low + (convention.high - convention.low) * images
    if convention.mean is not None:
        images = images - _by_channel(convention.mean, images)
    if convention.std is not None:
        images = images / _by_channel(convention.std, images)
    return images.permute(0, 2, 3, 1) if convention.layout == "NHWC" else images


def channels_first(shape: Sequence[T], convention: InputConvention) -> list[T]:
    """A program's shape, ([N,] H, W, 3) for NHWC, with the channels before height and width."""
    if convention.layout == "NCHW" or len(shape) < 3:
        return list(shape)
    *batch, height, width, channels = shape
    return [*batch, channels, height, width]


def _by_channel(values: Sequence[float], images: Tensor) -> Tensor:
    return torch.tensor(values, dtype=images.dtype, device=images.device).view(1, -1, 1, 1)
