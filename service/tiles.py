"""Large images through a network in overlapping tiles, blended so that no seam shows.

What lies beyond a tile's edge is missing from its outputs as far as the network's ``reach``, so those are thrown away;
over the rest of an overlap one tile fades into the next. Tiles begin at multiples of the network's coarsest cell, so
that each cell covers the same pixels as in the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from model_store.architectures.published import FELT

FADE = 32

Span = tuple[int, int]
Rows = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class Tiling:
    """How an image is cut: spans of rows and of columns, each a first one and the one after the last.

    Neighbouring spans share ``overlap`` pixels, of which the outer ``reach`` on either side do not count. No pixel
    is in more than two spans of rows or of columns.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    overlap: int
    reach: int

    @classmethod
    def of(cls, height: int, width: int, module: nn.Module, pixels: int) -> Self:
        """Tiles of about ``pixels`` each, but never narrower than two overlaps, for ``module``.

        Its ``reach`` and ``multiple`` are taken where it says them, else those of the published networks.
        """
        reach = int(getattr(module, "reach", FELT))
        multiple = int(getattr(module, "multiple", 1))
        overlap = _up(2 * reach + FADE, multiple)
        tall = min(height, math.isqrt(pixels))
        wide = max(2 * overlap, min(width, pixels // tall))
        tall = max(2 * overlap, min(height, pixels // wide))
        return cls(_spans(height, tall, overlap, multiple), _spans(width, wide, overlap, multiple), overlap, reach)

    @property
    def largest(self) -> int:
        """Pixels of the largest tile."""
        tall, wide = (max(last - first for first, last in spans) for spans in (self.rows, self.columns))
        return tall * wide

    def weights(self, spans: tuple[Span, ...], index: int) -> Tensor:
        """How much each pixel of span ``index`` counts, in [0,1]; over all spans that hold a pixel it adds up to 1."""
        first, last = spans[index]
        weights = torch.ones(last - first)
        into = (torch.arange(self.overlap) + 0.5 - self.reach) / (self.overlap - 2 * self.reach)
        if index > 0:
            weights[: self.overlap] = into.clamp(0, 1)
        if index + 1 < len(spans):
            weights[-self.overlap :] = 1 - into.clamp(0, 1)
        return weights


def add_in_tiles(
    tiling: Tiling, rows: Rows, network: Callable[[Tensor], Tensor], into: Tensor, gone: Callable[[], bool]
) -> bool:
    """Add what ``network`` makes of an image to ``into`` (3, H, W), clamped to [0,1]; False if it was not finite.

    ``rows`` gives rows of the image, float32 (3, n, W) on the CPU; ``network`` maps (1, 3, h, w) on the device of
    ``into`` to the same shape. Once ``gone`` says that nobody waits any more, ``into`` is left unfinished.
    """
    finite = True
    columns = [tiling.weights(tiling.columns, index).to(into.device) for index in range(len(tiling.columns))]
    for index, (top, bottom) in enumerate(tiling.rows):
        band = rows(top, bottom)
        weights = tiling.weights(tiling.rows, index).unsqueeze(1).to(into.device)
        for (left, right), across in zip(tiling.columns, columns, strict=True):
            if gone():
                return finite
            tile = network(band[:, :, left:right].unsqueeze(0).to(into.device))[0]
            finite = finite and bool(tile.isfinite().all())
            into[:, top:bottom, left:right] += tile.clamp(0, 1) * (weights * across)
    return finite


def _spans(length: int, longest: int, overlap: int, multiple: int) -> tuple[Span, ...]:
    """The fewest spans up to ``longest`` (two overlaps or more) that cover ``length``, of about equal length."""
    if length <= longest:
        return ((0, length),)
    most = (longest - overlap) // multiple * multiple
    count = math.ceil((length - overlap) / most)
    step = min(most, max(overlap, _up(math.ceil((length - overlap) / count), multiple)))
    starts = range(0, length - overlap, step)
    return tuple((start, min(length, start + step + overlap)) for start in starts)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
