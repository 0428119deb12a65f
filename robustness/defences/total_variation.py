"""Total variation minimisation (Guo et al., ICLR 2018)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from skimage.restoration import denoise_tv_bregman
from torch import Tensor

from robustness.defences.defence import Defence


@dataclass(frozen=True)
class TotalVariation(Defence):
    """Total variation minimisation by split Bregman (scikit-image); a smaller ``weight`` smooths more."""

    weight: float

    @property
    def name(self) -> str:
        """What tables call it."""
        return f"TV {self.weight:g}"

    @property
    def differentiable(self) -> bool:
        """The solver runs outside autograd; no gradient passes."""
        return False

    def __call__(self, images: Tensor) -> Tensor:
        """Smoothed images, the channels taken together."""
        arrays = images.detach().cpu().permute(0, 2, 3, 1).numpy()
        smooth = [torch.as_tensor(denoise_tv_bregman(a, weight=self.weight, channel_axis=-1)) for a in arrays]
        return torch.stack(smooth).permute(0, 3, 1, 2).to(images).clamp(0, 1)
