"""Confidence intervals: no accuracy is reported without one."""

from __future__ import annotations

import math

from torch import Tensor

Z95 = 1.959963984540054


def wilson(correct: float, count: int, z: float = Z95) -> tuple[float, float]:
    """The Wilson score interval (Wilson, 1927) of the proportion ``correct / count``, as two fractions in [0,1].

    ``correct`` may be fractional: the mean over several victims of photos got right. The interval then stands on
    the photos alone, which is never too narrow, since victims that share photos are not independent of each other.
    Raises ValueError unless 0 <= correct <= count and count >= 1.
    """
    if count < 1 or not 0 <= correct <= count:
        raise ValueError(f"no proportion: {correct} of {count}")
    share = correct / count
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, centre - half), min(1.0, centre + half)


def paired(differences: Tensor, z: float = Z95) -> tuple[float, float]:
    """The normal interval of the mean of per-photo ``differences`` (N,), each in [-1,1], as two fractions."""
    count = len(differences)
    mean = float(differences.double().mean())
    half = z * float(differences.double().std(correction=0)) / math.sqrt(count)
    return max(-1.0, mean - half), min(1.0, mean + half)


def share_interval(part: Tensor, whole: Tensor, z: float = Z95) -> tuple[float, float]:
    """The normal interval of mean(part) / mean(whole), both (N,) of the same photos (the delta method), from 0 up.

    Raises ValueError where ``whole`` is nothing.
    """
    base = float(whole.double().mean())
    if base <= 0:
        raise ValueError("no share of nothing")
    share = float(part.double().mean()) / base
    half = z * float((part.double() - share * whole.double()).std(correction=0)) / (base * math.sqrt(len(part)))
    return max(0.0, share - half), share + half
