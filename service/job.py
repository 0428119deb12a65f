"""One image's way through the engine: what is asked for, and what is answered."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from torch import Tensor

from model_store.inference import InferenceMode
from model_store.official import Kind
from service.findings import Finding
from service.images import charge


@dataclass(frozen=True, eq=False)
class Job:
    """One image to be purified, uint8 or uint16 (3, H, W); ``task``: and handed to the downstream model of that kind.

    ``compare``: the model is also asked about the image as it came; a classifier always is.
    """

    pixels: Tensor
    purifier: str
    mode: InferenceMode
    seed: int
    task: Kind | None = None
    compare: bool = False
    abandoned: threading.Event = field(default_factory=threading.Event)

    @property
    def draws(self) -> int:
        """Draws that are really computed: without noise they would all be the same."""
        return 1 if self.mode.static else self.mode.draws

    @property
    def pixels_charged(self) -> int:
        """Pixels of one draw, as budgets count them."""
        return charge(int(self.pixels.shape[-1]), int(self.pixels.shape[-2]))

    @property
    def cost(self) -> int:
        """Pixels through the purifier, all draws together."""
        return self.pixels_charged * self.draws

    @property
    def key(self) -> tuple[str, int, int]:
        """Jobs of equal key can be run together."""
        return self.purifier, int(self.pixels.shape[-2]), int(self.pixels.shape[-1])


@dataclass(frozen=True, eq=False)
class Answer:
    """``purified``: mean of the draws, (3, H, W) on the CPU, of the job's type. ``defended`` and ``undefended``: what
    the downstream model says of it and of the image as it came, on the CPU, None where it was not asked.

    The seconds are those of the whole batch that the image was part of.
    """

    purified: Tensor
    defended: Finding | None
    undefended: Finding | None
    purify_s: float
    downstream_s: float
