"""The median filter (Xu et al., NDSS 2018)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from robustness.defences.defence import Defence


@dataclass(frozen=True)
class Median(Defence):
    """A ``window`` x ``window`` median filter on each channel, the border pixels repeated outwards."""

    window: int = 3

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"median {self.window}x{self.window}"

    @property
    def differentiable(self) -> bool:
        """Each output is one of the inputs: the gradient goes to that pixel, and is exact where no two are equal."""
        return True

    def __call__(self, images: Tensor) -> Tensor:
        """Filtered images."""
        padded = F.pad(images, (self.window // 2,) * 4, mode="replicate")
        windows = padded.unfold(2, self.window, 1).unfold(3, self.window, 1)
        return windows.flatten(4).median(dim=-1).values
