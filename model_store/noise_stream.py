"""The noise of an image that is too large to hold all of it: any rows of any draw, the same bits as drawn at once."""

from __future__ import annotations

import torch
from torch import Tensor

# torch turns uniform numbers into normal ones sixteen at a time; where a piece's length is no multiple of that, the
# last sixteen values are drawn anew. So pieces of such multiples, the last one longer, are what one ``randn`` gives.
GROUP = 16
PIECE = GROUP << 14


class NoiseStream:
    """What ``torch.randn((channels, height, width), generator=g)`` gives when called again and again.

    ``generator`` (CPU) stands where the first draw begins and is moved about. Held: one generator state, 5 kB, for
    every ``PIECE`` values that have been passed.
    """

    def __init__(self, generator: torch.Generator, height: int, width: int, channels: int = 3) -> None:
        self._generator = generator
        self._shape = (channels, height, width)
        self._length = channels * height * width
        self._pieces = max(1, self._length // PIECE)
        self._states = [generator.get_state()]

    def rows(self, draw: int, top: int, bottom: int) -> Tensor:
        """Rows ``top`` to ``bottom`` (excluded) of draw number ``draw``, float32 (channels, bottom - top, width)."""
        channels, height, width = self._shape
        out = torch.empty(channels, (bottom - top) * width)
        for channel in range(channels):
            start = (channel * height + top) * width
            self._fill(out[channel], draw, start)
        return out.view(channels, bottom - top, width)

    def _fill(self, out: Tensor, draw: int, start: int) -> None:
        """The values of ``draw`` from its value number ``start`` on."""
        filled = 0
        while filled < len(out):
            piece = min((start + filled) // PIECE, self._pieces - 1)
            values = self._values(draw * self._pieces + piece)[start + filled - piece * PIECE :][: len(out) - filled]
            out[filled : filled + len(values)] = values
            filled += len(values)

    def _values(self, number: int) -> Tensor:
        """Piece ``number``, counted over all draws; those before it are passed first where they have not been."""
        while len(self._states) <= number:
            self._draw(len(self._states) - 1)
        return self._draw(number)

    def _draw(self, number: int) -> Tensor:
        last = number % self._pieces == self._pieces - 1
        size = self._length - PIECE * (self._pieces - 1) if last else PIECE
        self._generator.set_state(self._states[number])
        values = torch.randn(size, generator=self._generator)
        if number + 1 == len(self._states):
            self._states.append(self._generator.get_state())
        return values
