"""How a purifier is run: static, or on noisy copies of the image whose outputs are averaged; JPEG may go first.

Dynamic inference adds noise, then purifies. The published setting (Naseer et al., CVPR 2020, and the authors'
code) is one draw of Gaussian noise of std 0.05 kept inside the 16/255 ball and [0,1]. Heavier unclipped noise
destroys more of the perturbation and asks the purifier to rebuild more of the image. JPEG in front of the noise
destroys fine perturbations that the noise leaves and costs little of what a purifier cannot rebuild.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from model_store.jpeg import jpeg
from model_store.noise import PUBLISHED_BALL, PUBLISHED_STD, with_noise


class InferenceMode(BaseModel):
    """``noise_std`` in [0,1] pixel units; ``draws`` independent noisy copies; ``ball`` in /255 or None for no clip.

    ``jpeg``: the image passes through JPEG at this quality before the noise, or does not with None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise_std: float = Field(default=0.0, ge=0.0, le=1.0)
    draws: int = Field(default=1, ge=1, le=64)
    ball: float | None = Field(default=None, gt=0.0, le=255.0)
    jpeg: int | None = Field(default=None, ge=1, le=100)

    @property
    def static(self) -> bool:
        """True when the answer does not depend on a seed."""
        return self.noise_std == 0.0

    def in_words(self) -> str:
        """What is done to an image before the purifier sees it."""
        words = "static" if self.static else f"noise std {self.noise_std:g}"
        if not self.static and self.ball is not None:
            words += f" inside the {self.ball:g}/255 ball"
        return words if self.jpeg is None else f"JPEG {self.jpeg}, then {words}"


STATIC = InferenceMode()
PUBLISHED = InferenceMode(noise_std=PUBLISHED_STD, ball=PUBLISHED_BALL)
STANDARD_MODES: Mapping[str, InferenceMode] = MappingProxyType({"static": STATIC, "published": PUBLISHED})


def compressed(image: Tensor, mode: InferenceMode) -> Tensor:
    """One image (C, H, W) in [0,1] as JPEG leaves it, where the mode asks for it; gradients pass the rounding."""
    return image if mode.jpeg is None else jpeg(image.unsqueeze(0), torch.tensor([mode.jpeg]))[0]


def noisy_draws(image: Tensor, mode: InferenceMode, generator: torch.Generator) -> Tensor:
    """Return ``mode.draws`` noisy copies (D, C, H, W) of one image (C, H, W) in [0,1].

    The noise comes from ``generator`` alone (a CPU generator), so an image's answer depends on its own seed and
    never on its neighbours in a batch. Compressed first, where the mode says so.
    """
    image = compressed(image, mode)
    if mode.static:
        return image.unsqueeze(0).expand(mode.draws, *image.shape)
    # One draw at a time: a single large randn fills its block in another order, and then how many draws are made at
    # once would change the noise.
    drawn = [torch.randn(image.shape, generator=generator, dtype=torch.float32) for _ in range(mode.draws)]
    noise = torch.stack(drawn).to(image.device) * mode.noise_std
    return with_noise(image, noise, mode.ball)


def seeded(seed: int) -> torch.Generator:
    """A CPU generator for one image's noise."""
    return torch.Generator().manual_seed(seed)


class PurifierDraws(nn.Module):
    """A purifier in one mode, for evaluation: keeps the draws apart so that probabilities can be averaged."""

    def __init__(self, purifier: nn.Module, mode: InferenceMode) -> None:
        super().__init__()
        self.purifier = purifier
        self.mode = mode

    def draws(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Purified draws (N, D, C, H, W) in [0,1] of images (N, C, H, W), image i's noise from ``seeds[i]``."""
        noisy = torch.cat([noisy_draws(x, self.mode, seeded(s)) for x, s in zip(images, seeds, strict=True)])
        purified = self.purifier(noisy).float().clamp(0, 1)
        return torch.as_tensor(purified.view(len(images), self.mode.draws, *images.shape[1:]))

    def forward(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """The mean over draws, same shape as ``images``."""
        return self.draws(images, seeds).mean(dim=1)
