"""Scores: one figure in percent, its 95 % interval, and how many examples it stands on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from robustness.intervals import wilson

Interval = tuple[float, float]

RESAMPLES = 1000


@dataclass(frozen=True)
class Score:
    """``metric`` is "accuracy", "pixel accuracy" or "mAP@0.5"; ``percent`` and ``interval`` are in percent.

    ``each`` (N,) float64 in [0,1] is every example's own score where the metric is a mean over examples, else None.
    """

    metric: str
    percent: float
    interval: Interval
    count: int
    each: Tensor | None = field(default=None, repr=False)


def accuracy(correct: Tensor) -> Score:
    """The share of ``correct`` (N,), bool or in [0,1], with its Wilson interval."""
    each = correct.double()
    low, high = wilson(float(each.sum()), len(each))
    return Score("accuracy", 100 * float(each.mean()), (100 * low, 100 * high), len(each), each)


def resampled(metric: str, count: int, value: Callable[[Tensor], float], each: Tensor | None = None) -> Score:
    """The score of a metric that is no mean over examples: ``value(places)`` in [0,1] of the examples at ``places``.

    The interval is the percentile bootstrap's over examples, of a fixed seed. One example tells nothing of others,
    and resampling it would give an interval of no width: then it is everything, 0 to 100 %.
    """
    if count == 1:
        return Score(metric, 100 * value(torch.arange(1)), (0.0, 100.0), 1, each)
    generator = np.random.default_rng(0)
    drawn = [value(torch.from_numpy(generator.integers(0, count, count))) for _ in range(RESAMPLES)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Score(metric, 100 * value(torch.arange(count)), (100 * float(low), 100 * float(high)), count, each)
