"""Random crops of a batch of square photos, a function of a generator alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """``count`` values uniform in [low, high)."""
    return torch.rand(count, generator=generator) * (high - low) + low


def resized_crops(images: Tensor, size: int, smallest_area: float, generator: torch.Generator) -> Tensor:
    """Crops of random area share, aspect 3:4 to 4:3, place and mirror, resampled to (N, 3, size, size) float in [0,1].

    One affine resampling serves crop, scale and mirror; ``images`` are uint8 (N, 3, S, S), and the crops lie where
    they do, though ``generator`` is the CPU's.
    """
    count = len(images)
    area = uniform(count, smallest_area, 1.0, generator)
    aspect = torch.exp(uniform(count, -0.2877, 0.2877, generator))
    wide, high = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    mirror = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = wide * mirror, high
    theta[:, 0, 2] = (1 - wide) * uniform(count, -1, 1, generator)
    theta[:, 1, 2] = (1 - high) * uniform(count, -1, 1, generator)
    grid = F.affine_grid(theta.to(images.device), [count, 3, size, size], align_corners=False)
    return F.grid_sample(images.float() / 255, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Random brightness and contrast, each by up to ``strength``."""
    count = len(images)
    contrast = uniform(count, 1 - strength, 1 + strength, generator).view(-1, 1, 1, 1)
    brightness = uniform(count, -strength / 2, strength / 2, generator).view(-1, 1, 1, 1)
    return ((images - 0.5) * contrast + 0.5 + brightness).clamp(0, 1)


def aligned_crops(stack: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """The same random crop and mirror of every image of a group: uint8 (N, K, 3, S, S) to float (N, K, 3, size, size).

    No resampling: what an attack put into single pixels stays as it was.
    """
    count, span = len(stack), stack.shape[-1] - size + 1
    tops = torch.randint(span, (count,), generator=generator).tolist()
    lefts = torch.randint(span, (count,), generator=generator).tolist()
    mirrors = (torch.rand(count, generator=generator) < 0.5).tolist()
    crops = []
    for group, top, left, mirror in zip(stack, tops, lefts, mirrors, strict=True):
        crop = group[..., top : top + size, left : left + size]
        crops.append(crop.flip(-1) if mirror else crop)
    return torch.stack(crops).float() / 255
