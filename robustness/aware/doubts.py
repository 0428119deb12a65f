"""Doubts: what the protocol notices about its own attacks. Each function gives one sentence, or None."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robustness.intervals import paired

NEAR_ZERO = 0.05
BLIND_SHARE = 0.02


def unbounded_warning(title: str, share: Tensor) -> str | None:
    """``share`` (N,) of right decisions under a budget that nothing can withstand: its mean must be near 0."""
    left = float(share.mean())
    if left <= NEAR_ZERO:
        return None
    return (
        f"{title} leaves {100 * left:.1f} % of {len(share)} photos; at that budget it must leave about nothing, so the "
        "attack is too weak and its smaller budgets prove little"
    )


def masking_warning(title: str, exact: Tensor, bpda: Tensor) -> str | None:
    """The exact gradient must not leave more standing than BPDA, by more than chance: the sign of a masked one."""
    if not _above(exact, bpda):
        return None
    return (
        f"{title}: BPDA leaves {100 * float(bpda.mean()):.1f} %, the exact gradient {100 * float(exact.mean()):.1f} %; "
        "the defence masks its gradient, so believe the worst of attacks alone"
    )


def curve_warning(title: str, eot: Sequence[int], shares: Sequence[Tensor]) -> str | None:
    """``shares`` (N,) of right decisions by the number of draws: the last must not be below the one before it."""
    if len(shares) < 2 or not _above(shares[-2], shares[-1]):
        return None
    return (
        f"{title}: with {eot[-1]} draws a gradient {100 * float(shares[-1].mean()):.1f} % are left, with {eot[-2]} "
        f"{100 * float(shares[-2].mean()):.1f} %; the curve is not flat yet, so more draws would break more"
    )


def blind_warning(title: str, blind: Tensor) -> str | None:
    """``blind`` (N,) bool: the gradient at the clean photo vanished or was not finite."""
    useless = int(blind.sum())
    if useless <= BLIND_SHARE * len(blind):
        return None
    return f"{title}: the gradient vanished or was not finite for {useless} of {len(blind)} photos; the attack is weak"


def _above(higher: Tensor, lower: Tensor) -> bool:
    """Whether the first is larger by more than the paired 95 % interval."""
    difference = higher - lower
    return bool(torch.any(difference != 0)) and paired(difference)[0] > 0
