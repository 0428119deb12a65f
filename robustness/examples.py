"""Examples: images of one size as bytes, what is true of each, and their names. Every task's data has this form."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

Truths = Mapping[str, Tensor]


@dataclass(frozen=True)
class Examples:
    """``pixels`` uint8 (N, 3, H, W); ``truths``: tensors whose first dimension is N, by the task:

    * classification: ``labels`` (N,) int64;
    * segmentation: ``mask`` (N, H, W) int64, the number of classes (one past the last) where nothing is scored;
    * detection: ``boxes`` (N, K, 4) float32 x1 y1 x2 y2 in pixels, ``labels`` (N, K) int64, -1 where there is no box.

    ``names`` are the same on every machine.
    """

    pixels: Tensor
    truths: Truths
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def digest(self) -> str:
        """A sha256 over pixels, truths and names, for a cache's fingerprint."""
        hasher = hashlib.sha256("\n".join(self.names).encode())
        for key in sorted(self.truths):
            hasher.update(key.encode())
            hasher.update(self.truths[key].contiguous().numpy().tobytes())
        hasher.update(self.pixels.contiguous().numpy().tobytes())
        return hasher.hexdigest()

    def part(self, where: slice) -> Examples:
        """The examples of a slice."""
        return Examples(self.pixels[where], part_of(self.truths, where), self.names[where])

    def first(self, count: int) -> Examples:
        """The first ``count``, all of them if there are fewer."""
        return self.part(slice(0, count))

    def pick(self, places: Tensor) -> Examples:
        """The examples at ``places`` (M,) int64, in that order."""
        truths = {key: value[places] for key, value in self.truths.items()}
        return Examples(self.pixels[places], truths, tuple(self.names[int(place)] for place in places))


def part_of(truths: Truths, where: slice) -> Truths:
    """The same slice of every truth."""
    return {key: value[where] for key, value in truths.items()}
