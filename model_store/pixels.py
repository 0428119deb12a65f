"""The pixel convention: NCHW float32 RGB in [0,1], and the way to it and back.

uint8 value v is exactly v/255, uint16 value v is v/65535; back, the nearest of the levels. Resizing is bilinear with
antialiasing on the tensor, so that service, evaluation and an attacker's gradient all see the same operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:  # training on a bare machine has no pydantic, which cards need
    from model_store.card import InputConvention

LONGEST_ASPECT = 4
DEEPEST = 65_535  # the highest uint16 level


def image_to_bytes(image: Image.Image) -> Tensor:
    """An RGB image as uint8 (3, H, W)."""
    array = np.array(image if image.mode == "RGB" else image.convert("RGB"), dtype=np.uint8)
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def bytes_to_image(pixels: Tensor) -> Image.Image:
    """uint8 (3, H, W) as an RGB image."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy(), mode=None)


def to_float(pixels: Tensor) -> Tensor:
    """uint8 or uint16 to float32 in [0,1]."""
    # In place: a large image's floats take much memory once.
    return pixels.to(torch.float32, copy=True).div_(DEEPEST if pixels.dtype == torch.uint16 else 255)


def to_bytes(images: Tensor) -> Tensor:
    """Float in any range to uint8, clamped to [0,1] and rounded to the nearest level."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


def to_levels(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Float in any range to uint8 or uint16, clamped to [0,1] and rounded to the nearest level."""
    if dtype == torch.uint8:
        return to_bytes(images)
    # By way of int32: not every device converts floats to uint16.
    return (images.clamp(0, 1) * DEEPEST).round().to(torch.int32).to(dtype)


def to_8bit(images: Tensor) -> Tensor:
    """Round to the 256 levels an upload can carry, staying float32 in [0,1]."""
    return to_float(to_bytes(images))


def fit(images: Tensor, convention: InputConvention) -> Tensor:
    """Bring images (N, 3, H, W) to a classifier's size: shorter side to ``short_side``, then a centre crop.

    ``stretch`` brings both sides to ``short_side``. An image more than four times as long as wide, or as wide as
    long, first loses what is beyond that: the crop shows less still, and a 1x40000 image scaled up whole would take
    gigabytes.
    """
    if convention.crop is not None and convention.short_side is not None:
        images = centre(images, LONGEST_ASPECT * min(images.shape[-2:]))
    if convention.short_side is not None:
        images = _scaled(images, convention.short_side, stretch=convention.stretch)
    if convention.crop is None:
        return images
    if min(images.shape[-2:]) < convention.crop:
        raise ValueError(f"crop {convention.crop} is larger than short_side {convention.short_side}")
    return centre(images, convention.crop)


def _scaled(images: Tensor, side: int, *, stretch: bool) -> Tensor:
    shape = images.shape[-2:]
    size = [side, side] if stretch else [max(1, round(one * (side / min(shape)))) for one in shape]
    if size == list(shape):
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True)


def centre(images: Tensor, longest: int) -> Tensor:
    """The centre of images (N, C, H, W), neither side longer than ``longest``."""
    height, width = (min(side, longest) for side in images.shape[-2:])
    top, left = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
    return images[..., top : top + height, left : left + width]
