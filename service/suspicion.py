"""Suspicion: how far purifying moved an image, and the answer about it.

Uncalibrated: a busy or noisy photo moves too, so the figures rank images of one kind under one purifier; they are
no probabilities of an attack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.large_image import strips
from service.findings import Finding


@dataclass(frozen=True)
class Suspicion:
    """``linf``: greatest change of a channel value, in levels of 255; ``residual_rms``: root mean square change,
    in levels; ``prediction_shift``: Jensen-Shannon divergence in bits, 0 to 1, between the classifier's
    probabilities before and after, None where nothing was classified."""

    linf: int
    residual_rms: float
    prediction_shift: float | None = None

    @property
    def score(self) -> float:
        """The one number of ``X-NRP-Suspicion``: ``residual_rms``, which every route has."""
        return self.residual_rms


def judge(
    before: Tensor, after: Tensor, undefended: Finding | None = None, defended: Finding | None = None
) -> Suspicion:
    """Compare (3, H, W) before and after, both uint8 or uint16, and probabilities (classes,) where both findings are
    that."""
    shift = None
    if isinstance(undefended, Tensor) and isinstance(defended, Tensor):
        shift = jensen_shannon_bits(undefended, defended)
    most, mean_square, height, levels = 0.0, 0.0, before.shape[-2], 257 if before.dtype == torch.uint16 else 1
    for top, bottom in strips(*before.shape[-2:]):
        change = before[:, top:bottom].to(torch.int32).sub_(after[:, top:bottom].to(torch.int32)).to(torch.float32)
        most = max(most, float(change.abs().max()) / levels)
        mean_square += float(change.div_(levels).square_().mean()) * (bottom - top) / height
    return Suspicion(round(most), math.sqrt(mean_square), shift)


def jensen_shannon_bits(p: Tensor, q: Tensor) -> float:
    """Jensen-Shannon divergence in bits (Lin, 1991) of two distributions (classes,): 0 equal, 1 disjoint."""
    p, q = p.double(), q.double()
    middle = (p + q) / 2
    return float((_relative_entropy(p, middle) + _relative_entropy(q, middle)).div(2).clamp(0, 1))


def _relative_entropy(p: Tensor, q: Tensor) -> Tensor:
    return torch.where(p > 0, p * (p / q).log2(), 0.0).sum()
