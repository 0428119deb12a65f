"""What happens to images before the purifier sees them: JPEG, then Gaussian noise, or neither.

In the order of the world: an adversary is stored as a JPEG, and a dynamic mode then adds its noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from model_store.jpeg import jpeg
from training.purifier_recipe import PurifierRecipe


@dataclass(frozen=True)
class Strengths:
    """What is done to each of N images: noise of ``std`` (N, 1, 1, 1), JPEG at ``quality`` (N,), 0 for none.

    Both lie on the CPU.
    """

    std: Tensor
    quality: Tensor

    def of(self, places: Tensor) -> Strengths:
        """Those of the images at ``places``."""
        return Strengths(self.std[places], self.quality[places])

    def sparing(self, spared: Tensor) -> Strengths:
        """The same, but nothing where the mask ``spared`` (N,) is True."""
        return replace(
            self, std=self.std.masked_fill(spared.view(-1, 1, 1, 1), 0), quality=self.quality.masked_fill(spared, 0)
        )


def draw_strengths(recipe: PurifierRecipe, count: int, generator: torch.Generator) -> Strengths:
    """Strengths for ``count`` images as ``recipe`` has them; an option that is off draws nothing."""
    spread = recipe.noise_high - recipe.noise_low
    std = recipe.noise_low + spread * torch.rand(count, 1, 1, 1, generator=generator) ** recipe.noise_power
    if recipe.noise_share < 1:
        std = std.masked_fill(torch.rand(count, 1, 1, 1, generator=generator) >= recipe.noise_share, 0)
    quality = torch.zeros(count, dtype=torch.long)
    if recipe.jpeg_share:
        worst, best = recipe.jpeg_quality
        drawn = torch.randint(worst, best + 1, (count,), generator=generator)
        quality = drawn.masked_fill(torch.rand(count, generator=generator) >= recipe.jpeg_share, 0)
    return Strengths(std, quality)


def gaussian(shape: torch.Size, generator: torch.Generator, device: torch.device) -> Tensor:
    """Standard normal noise on ``device``, a function of ``generator``, which lives on the CPU.

    A GPU draws for itself, from a seed that is drawn here: millions of values a step are slow on a CPU.
    """
    if device.type == "cpu":
        return torch.randn(shape, generator=generator)
    seed = int(torch.randint(2**62, (), generator=generator))
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device)


def corrupt(images: Tensor, strengths: Strengths, noise: Tensor) -> Tensor:
    """Images (N, 3, H, W) in [0,1] through JPEG where it was drawn, plus ``noise`` (standard normal) times its std.

    Differentiable. An image of no strength comes back as it is, to the bit.
    """
    compressed = strengths.quality.nonzero().flatten()
    if len(compressed):
        places = compressed.to(images.device)
        images = images.index_copy(0, places, jpeg(images[places], strengths.quality[compressed]))
    return images + strengths.std.to(images.device) * noise
