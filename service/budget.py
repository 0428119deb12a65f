"""How many pixels go through a model at a time: less after an out-of-memory, then slowly more again."""

from __future__ import annotations

import torch

STEPS_BACK = 64


class PixelBudget:
    """``full`` pixels as long as memory lasts. Changed by the device thread only; any thread may read ``now``."""

    def __init__(self, full: int) -> None:
        self.full = full
        self.now = full

    def lower(self, tried: int) -> None:
        """``tried`` pixels were too many: half of them, at the most half of the present budget, is the next try."""
        self.now = max(1, min(self.now, tried) // 2)

    def creep_up(self) -> None:
        """A run went well: ``STEPS_BACK`` of these bring the budget from nothing back to ``full``."""
        self.now = min(self.full, self.now + -(-self.full // STEPS_BACK))


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether ``error`` says that the device had too little memory; the CPU's allocator has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
