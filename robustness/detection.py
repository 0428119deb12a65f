"""Detection: how well a score tells attacked images from clean ones, and the threshold that clean images set."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from robustness.errors import EvaluationError
from robustness.scores import RESAMPLES, Score

# The false-positive rates, in percent, at which a curve is kept.
CURVE = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 35.0, 50.0, 75.0, 100.0)
DIGITS = 4

Matrix = npt.NDArray[np.float64]


def threshold_at(scores: Tensor, rate: float) -> float:
    """The least score, of ``DIGITS`` digits, from which at most ``rate`` of clean images are to be expected.

    Of N clean ``scores`` no more than ``rate`` (N + 1) - 1 reach it, so that a further clean image does with a
    probability of at most ``rate`` (conformal prediction: Vovk et al., 2005, for a score that was fixed beforehand).
    Raises EvaluationError for a rate that is none, and for fewer images than can show it.
    """
    if not 0 < rate < 1:
        raise EvaluationError(f"a rate of false positives lies between 0 and 1, not at {rate:g}; 0.01 is usual")
    allowed = math.floor(rate * (len(scores) + 1) + 1e-9) - 1
    if allowed < 0:
        least = math.ceil(1 / rate - 1e-9) - 1
        raise EvaluationError(
            f"{len(scores)} clean photos show no rate of {100 * rate:g} %; it takes {least}: raise --clean-limit or "
            "--selection-fraction"
        )
    border = float(scores.sort(descending=True).values[allowed])
    return (math.floor(border * 10.0**DIGITS) + 1) / 10.0**DIGITS


def area(attacked: Tensor, clean: Tensor) -> Score:
    """The area under the ROC curve, in percent: how often an attacked image scores above a clean one, ties half.

    Its interval is the percentile bootstrap's over both sets of images, of a fixed seed.
    """
    above = _above(attacked, clean)
    generator = np.random.default_rng(0)
    rows, columns = (_shares(generator, size) for size in above.shape)
    low, high = np.percentile(((rows @ above) * columns).sum(axis=1), [2.5, 97.5])
    return Score("AUC", 100 * float(above.mean()), (100 * float(low), 100 * float(high)), len(attacked))


def _above(attacked: Tensor, clean: Tensor) -> Matrix:
    first, second = attacked.double().numpy()[:, None], clean.double().numpy()[None, :]
    return np.asarray((first > second) + 0.5 * (first == second), dtype=np.float64)


def _shares(generator: np.random.Generator, count: int) -> Matrix:
    """How often each of ``count`` images is drawn in each resample, as shares: (RESAMPLES, count)."""
    return generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES) / count


def curve(attacked: Tensor, clean: Tensor, rates: Sequence[float] = CURVE) -> list[tuple[float, float]]:
    """Points of the ROC curve: at each false-positive rate the true-positive rate, both in percent.

    The threshold at each rate is the least that no more than that share of the ``clean`` images reaches.
    """
    falling = clean.double().sort(descending=True).values
    points = []
    for rate in rates:
        allowed = math.floor(rate / 100 * len(falling) + 1e-9)
        caught = attacked.double() > falling[allowed] if allowed < len(falling) else torch.ones(len(attacked))
        points.append((rate, round(100 * float(caught.double().mean()), 3)))
    return points
