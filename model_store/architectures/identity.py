"""The fake purifier."""

from __future__ import annotations

from torch import Tensor, nn


class Identity(nn.Module):
    """Return the input unchanged, so that the whole path runs in milliseconds under test."""

    reach = 0

    def forward(self, images: Tensor) -> Tensor:
        return images
