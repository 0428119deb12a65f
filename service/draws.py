"""One image's noisy draws, purified and summed up: many images' at once, or one image's in tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from model_store.inference import InferenceMode, compressed, noisy_draws, seeded
from model_store.large_image import LargeImage, mean_levels
from model_store.pixels import to_float
from service.tiles import Tiling, add_in_tiles

ONE_DRAW = MappingProxyType({"draws": 1, "jpeg": None})  # of an image that is compressed already

Network = Callable[[Tensor], Tensor]


class Draws:
    """What an image's draws add up to so far, on the device: ``total`` (3, H, W), and whether all were finite."""

    def __init__(self, pixels: Tensor, mode: InferenceMode, seed: int, device: torch.device) -> None:
        """``pixels``: uint8 or uint16 (3, H, W) on the CPU."""
        self.pixels = pixels
        self.mode = mode
        self.finite = True
        self.total = torch.zeros(pixels.shape, device=device)
        self._seed = seed
        self._begun = 0
        self._noise = seeded(seed)
        self._prepared: Tensor | None = None
        self._large: LargeImage | None = None

    @property
    def image(self) -> Tensor:
        """The image as it came, on the device, in [0,1]. Not kept: of a large one it takes much memory."""
        return to_float(self.pixels.to(self.total.device))

    def next_noisy(self) -> Tensor:
        """The next draw's input, (1, 3, H, W) on the device."""
        if self._prepared is None:
            self._prepared = compressed(self.image, self.mode)
        return noisy_draws(self._prepared, self.mode.model_copy(update=ONE_DRAW), self._noise)

    def add_in_tiles(self, tiling: Tiling, network: Network, gone: Callable[[], bool], *, apart: bool) -> Tensor:
        """Add the next draw, tile by tile; ``apart``: and return it, (1, 3, H, W), which takes memory of its own.

        Otherwise what is returned is the sum so far.
        """
        if self._large is None:
            self._large = LargeImage(self.pixels, self.mode, self._seed)
        into = torch.zeros_like(self.total) if apart else self.total
        rows = partial(self._large.rows, self._begun)
        self._begun += 1
        self.finite &= add_in_tiles(tiling, rows, network, into, gone)
        if apart:
            self.total += into
        return into.unsqueeze(0)

    def mean(self, draws: int) -> Tensor:
        """The mean of ``draws``, in the levels and of the type that the image came in, on the CPU."""
        return mean_levels(self.total, draws, self.pixels.dtype)


def add_at_once(entries: Sequence[Draws], network: Network) -> Tensor:
    """Add one draw to each entry, all in one run (one that appears twice gets two); the draws (N, 3, H, W) in [0,1]."""
    purified = network(torch.cat([entry.next_noisy() for entry in entries]))
    finite = purified.isfinite().flatten(1).all(dim=1).tolist()
    purified = purified.clamp(0, 1)
    for entry, image, good in zip(entries, purified, finite, strict=True):
        entry.total += image
        entry.finite &= good
    return purified
