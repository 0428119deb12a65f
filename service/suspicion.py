"""Suspicion: how far purifying moved an image, and the answer about it, against what clean images give.

Without a calibration the figures rank images of one kind under one purifier, no more: a busy or noisy photo moves too.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from model_store.calibration import Scale
from model_store.suspicion import jensen_shannon_bits, residual
from service.findings import Finding


@dataclass(frozen=True)
class Suspicion:
    """``linf``: greatest change of a channel value, in levels of 255; ``residual_rms``: root mean square change,
    in levels; ``prediction_shift``: Jensen-Shannon divergence in bits, 0 to 1, between the classifier's
    probabilities before and after, None where nothing was classified.

    ``calibrated_score``: what the card's calibration makes of them, None without one; ``threshold``: the score from
    which an image is suspicious, the operator's or the calibration's, None where there is neither.
    """

    linf: int
    residual_rms: float
    prediction_shift: float | None = None
    calibrated_score: float | None = None
    threshold: float | None = None

    @property
    def calibrated(self) -> bool:
        """Whether ``score`` stands on clean images."""
        return self.calibrated_score is not None

    @property
    def score(self) -> float:
        """The one number of ``X-NRP-Suspicion``: calibrated, else ``residual_rms``, which every route has."""
        return self.residual_rms if self.calibrated_score is None else self.calibrated_score

    @property
    def suspicious(self) -> bool | None:
        """Whether the score reaches the threshold; None where there is none."""
        return None if self.threshold is None else self.score >= self.threshold


def judge(
    before: Tensor,
    after: Tensor,
    undefended: Finding | None = None,
    defended: Finding | None = None,
    *,
    scale: Scale | None = None,
    threshold: float | None = None,
) -> Suspicion:
    """Compare (3, H, W) before and after, both uint8 or uint16, and probabilities (classes,) where both findings are
    that. ``scale`` is the calibration that holds, if any; ``threshold`` the operator's, which goes before its own."""
    shift = None
    if isinstance(undefended, Tensor) and isinstance(defended, Tensor):
        shift = float(jensen_shannon_bits(undefended.double(), defended.double()))
    linf, rms = residual(before, after)
    score = None if scale is None else scale.score(rms, shift)
    if threshold is None and scale is not None:
        threshold = scale.threshold
    return Suspicion(linf, rms, shift, score, threshold)
