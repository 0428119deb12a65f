"""Bit-depth reduction, the colour half of feature squeezing (Xu et al., NDSS 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustness.defences.defence import Defence
from robustness.errors import EvaluationError

DEEPEST = 8


@dataclass(frozen=True)
class BitDepth(Defence):
    """Each channel rounded to the nearest of ``2**bits`` evenly spaced levels, 0 and 1 among them.

    The paper squeezes ImageNet photos to 4 or 5 bits. Raises EvaluationError unless ``bits`` is 1 to 8.
    """

    bits: int

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= DEEPEST:
            raise EvaluationError(f"a bit depth of {self.bits} makes no image; choose 1 to {DEEPEST} bits a channel")

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"bit depth {self.bits}"

    @property
    def differentiable(self) -> bool:
        """Rounding is flat: its gradient is zero wherever there is one."""
        return False

    def __call__(self, images: Tensor) -> Tensor:
        """Images of at most ``2**bits`` values a channel."""
        highest = 2**self.bits - 1
        return images.clamp(0, 1).mul(highest).round().div(highest)
