"""A purifier in one of its modes, as a defence like any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from model_store.inference import InferenceMode, PurifierDraws
from robustness.defences.defence import Defence, Role


@dataclass(frozen=True)
class Purification(Defence):
    """A purifier in one named mode. ``weights`` (sha256) and ``mode`` are its identity in a cache.

    ``purifier`` is its name in the store where several are compared, else empty: a table of one need not name it.
    """

    mode_name: str
    mode: InferenceMode
    weights: str
    module: PurifierDraws = field(repr=False)
    purifier: str = field(default="", repr=False)

    @property
    def role(self) -> Role:
        """The row that is measured."""
        return "purifier"

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"{self.purifier or 'purifier'} {self.mode_name}"

    @property
    def differentiable(self) -> bool:
        """A purifier is a network: its gradient is exact for the noise of the seeds in use."""
        return True

    @property
    def draw_count(self) -> int:
        """How many noisy copies of an image are purified."""
        return self.mode.draws

    def __call__(self, images: Tensor) -> Tensor:
        """The mean over draws, image i seeded with i."""
        return self.draws(images, range(len(images))).mean(dim=1)

    def with_draws(self, count: int) -> Purification:
        """The same purifier and noise with another number of draws."""
        mode = self.mode.model_copy(update={"draws": count})
        return replace(self, mode=mode, module=PurifierDraws(self.module.purifier, mode))

    def draws(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Purified versions (N, D, C, H, W)."""
        return self.module.draws(images, seeds)
