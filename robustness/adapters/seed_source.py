"""Where an adapter's noise comes from, in libraries that hand no generator down to the model they attack."""

from __future__ import annotations

import torch


class SeedSource:
    """Seeds for the draws of a purifier: the same sequence after each construction with ``seed``, never the same with
    None, which asks the operating system for entropy at each call.

    The global generator is neither read nor moved, so a library that seeds it does not fix a defence's noise.
    """

    def __init__(self, seed: int | None) -> None:
        self._fresh = seed is None
        self._generator = torch.Generator()
        if seed is not None:
            self._generator.manual_seed(seed)

    def draw(self, count: int) -> list[int]:
        """The next ``count`` seeds."""
        if self._fresh:
            self._generator.seed()
        return torch.randint(2**62, (count,), generator=self._generator).tolist()
