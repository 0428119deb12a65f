"""An image too large to be held in floats: its bytes, from which noisy rows are made when they are needed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from model_store.inference import InferenceMode, compressed, seeded
from model_store.jpeg import MULTIPLE
from model_store.noise import with_noise
from model_store.noise_stream import NoiseStream
from model_store.pixels import to_bytes, to_float, to_levels

STRIP_PIXELS = 1 << 20


class LargeImage:
    """The noisy draws of one image in one mode, row by row, as ``compressed`` and ``noisy_draws`` would give them."""

    def __init__(self, pixels: Tensor, mode: InferenceMode, seed: int) -> None:
        """``pixels``: uint8 or uint16 (3, H, W) on the CPU."""
        self._pixels = compressed_in_strips(pixels, mode)
        self._mode = mode
        self._noise = None if mode.static else NoiseStream(seeded(seed), *pixels.shape[-2:])

    def rows(self, draw: int, top: int, bottom: int) -> Tensor:
        """Rows ``top`` to ``bottom`` (excluded) of draw number ``draw``: float32 (3, bottom - top, W)."""
        image = to_float(self._pixels[:, top:bottom])
        if self._noise is None:
            return image
        return with_noise(image, self._noise.rows(draw, top, bottom).mul_(self._mode.noise_std), self._mode.ball)


def compressed_in_strips(pixels: Tensor, mode: InferenceMode) -> Tensor:
    """``pixels`` (3, H, W) as JPEG leaves them, uint8, or as they are where ``mode`` has no JPEG.

    A strip is compressed together with one row of blocks above and below: smooth upsampling of the chroma takes the
    nearest row of the neighbouring block, nothing else crosses a block.
    """
    if mode.jpeg is None:
        return pixels
    height, width = pixels.shape[-2:]
    out = torch.empty(pixels.shape, dtype=torch.uint8)
    for top, bottom in strips(height, width, MULTIPLE):
        above = max(0, top - MULTIPLE)
        around = compressed(to_float(pixels[:, above : min(height, bottom + MULTIPLE)]), mode)
        out[:, top:bottom] = to_bytes(around[:, top - above :][:, : bottom - top])
    return out


def mean_levels(total: Tensor, draws: int, dtype: torch.dtype) -> Tensor:
    """``total`` (3, H, W), a sum over ``draws``, as levels of ``dtype`` (uint8 or uint16) on the CPU."""
    out = torch.empty(total.shape, dtype=dtype)
    for top, bottom in strips(*total.shape[-2:]):
        out[:, top:bottom] = to_levels(total[:, top:bottom] / draws, dtype).cpu()
    return out


def strips(height: int, width: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Cut rows into strips of about ``STRIP_PIXELS``: first row and the row after the last, both of a ``multiple``
    but for the last."""
    step = max(1, STRIP_PIXELS // width // multiple) * multiple
    for top in range(0, height, step):
        yield top, min(height, top + step)
