"""The signals of suspicion: how far purifying moved an image, and the answer about it."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from model_store.large_image import strips


def residual(before: Tensor, after: Tensor) -> tuple[int, float]:
    """Greatest and root mean square change of a channel value, in levels of 255, of (3, H, W) uint8 or uint16."""
    most, mean_square, height, levels = 0.0, 0.0, before.shape[-2], 257 if before.dtype == torch.uint16 else 1
    for top, bottom in strips(*before.shape[-2:]):
        change = before[:, top:bottom].to(torch.int32).sub_(after[:, top:bottom].to(torch.int32)).to(torch.float32)
        most = max(most, float(change.abs().max()) / levels)
        mean_square += float(change.div_(levels).square_().mean()) * (bottom - top) / height
    return round(most), math.sqrt(mean_square)


def jensen_shannon_bits(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence in bits (Lin, 1991) of distributions (..., classes): 0 equal, 1 disjoint.

    Differentiable, where a probability is zero too.
    """
    middle = (p + q) / 2
    return (_relative_entropy(p, middle) + _relative_entropy(q, middle)).div(2).clamp(0, 1)


def _relative_entropy(p: Tensor, q: Tensor) -> Tensor:
    there = p > 0
    return (p * (torch.where(there, p, 1.0) / torch.where(there, q, 1.0)).log2()).sum(dim=-1)
