"""Calibration of suspicion: what clean images score, as a card holds it, and what a score amounts to against that.

A signal's surprise is -log10 of the share of clean images that reach it: 0 for what every clean image reaches, 2 for
what one in a hundred does. The calibrated score is the sum of the surprises of all signals (Fisher's method of
combining tests, without its claim that they are independent: the threshold is measured on clean images instead).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from model_store.inference import InferenceMode

# Shares of clean images whose value a table keeps; below the last, the greatest value alone.
KEPT_TAILS = (0.75, 0.5, 0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.0025)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CleanSignal(_Part):
    """One signal on ``count`` clean images: the share ``tails[i]`` of them reaches ``values[i]``.

    ``tails`` fall from 1, ``values`` rise. Nothing is claimed beyond what ``count`` images can show: no value is rarer
    than one in ``count`` + 1.
    """

    tails: tuple[float, ...] = Field(min_length=1)
    values: tuple[float, ...] = Field(min_length=1)
    count: int = Field(ge=1)

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if len(self.tails) != len(self.values) or self.tails[0] != 1 or self.tails[-1] <= 0:
            raise ValueError("tails and values are as many, and the tails fall from 1 to more than 0")
        falling = all(first > second for first, second in pairwise(self.tails))
        if not falling or not all(first < second for first, second in pairwise(self.values)):
            raise ValueError("tails fall, values rise")
        return self

    @classmethod
    def of(cls, samples: Sequence[float]) -> Self:
        """The table of the values of clean images."""
        falling, count = sorted(samples, reverse=True), len(samples)
        ranks = [round(tail * (count + 1)) for tail in KEPT_TAILS]
        kept = [(1.0, falling[-1])]
        for rank in [*(rank for rank in ranks if 1 < rank < count), 1]:
            value = falling[rank - 1]
            if value > kept[-1][1]:
                kept.append((rank / (count + 1), value))
        return cls(tails=tuple(tail for tail, _ in kept), values=tuple(value for _, value in kept), count=count)

    def surprise(self, value: float) -> float:
        """-log10 of the share of clean images that reach ``value``, linear between the entries of the table."""
        place = bisect_right(self.values, value)
        if place == 0:
            return 0.0
        low = -math.log10(self.tails[place - 1])
        if value == self.values[place - 1]:
            return low
        if place == len(self.values):
            return math.log10(self.count + 1)
        start, end = self.values[place - 1 : place + 1]
        return low + (value - start) / (end - start) * (-math.log10(self.tails[place]) - low)


@dataclass(frozen=True)
class Scale:
    """What makes a calibrated score of signals. ``prediction_shift`` None: no model is asked, the residual is all."""

    residual_rms: CleanSignal
    prediction_shift: CleanSignal | None
    threshold: float

    def score(self, residual_rms: float, prediction_shift: float | None = None) -> float:
        """The score of a residual in levels of 255 and, where a model is asked, a Jensen-Shannon divergence in bits.

        Raises ValueError for a signal that is missing.
        """
        if self.prediction_shift is None:
            return self.residual_rms.surprise(residual_rms)
        if prediction_shift is None:
            raise ValueError("this scale is of a classifier: it needs its prediction shift")
        return self.residual_rms.surprise(residual_rms) + self.prediction_shift.surprise(prediction_shift)


class ClassifierCalibration(_Part):
    """One classifier of weights ``sha256`` behind a purifier's mode; ``threshold`` is that of both signals' score."""

    sha256: str
    prediction_shift: CleanSignal
    threshold: float = Field(ge=0)


class SuspicionCalibration(_Part):
    """What clean images of ``height`` x ``width`` pixels score behind a purifier in ``mode``, float32.

    ``threshold`` is that of the residual alone. Each threshold was set for ``false_positives`` (a share) on the images
    of ``data``, by ``command`` with ``seed``.
    """

    mode: InferenceMode
    residual_rms: CleanSignal
    threshold: float = Field(ge=0)
    classifiers: dict[str, ClassifierCalibration] = {}
    false_positives: float = Field(gt=0, lt=1)
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    data: str
    command: str
    seed: int

    def alone(self) -> Scale:
        """The scale of the residual where no model is asked."""
        return Scale(self.residual_rms, None, self.threshold)

    def behind(self, classifier: str, sha256: str) -> Scale | None:
        """The scale of both signals; None for a classifier, or weights, that were not calibrated."""
        known = self.classifiers.get(classifier)
        if known is None or known.sha256 != sha256:
            return None
        return Scale(self.residual_rms, known.prediction_shift, known.threshold)

    def joined(self, older: SuspicionCalibration | None) -> SuspicionCalibration:
        """This one, with the classifiers of ``older`` too where both stand on the same residuals."""
        if older is None or (older.mode, older.residual_rms) != (self.mode, self.residual_rms):
            return self
        return self.model_copy(update={"classifiers": {**older.classifiers, **self.classifiers}})
