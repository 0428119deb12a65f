"""Calibrating: from sightings of clean photos to what a purifier's card holds of suspicion, and how far it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model_store.calibration import ClassifierCalibration, CleanSignal, Scale, SuspicionCalibration
from model_store.card import Card, Figure
from robustness.certified import with_figures
from robustness.defences import Purification
from robustness.detection import threshold_at
from robustness.scores import Score, accuracy
from robustness.suspicion import Sighting
from robustness.victims.classification import Classifier

# Floats of a card are cut to these digits, before thresholds are set on them.
SIGNAL_DIGITS = 6


@dataclass(frozen=True)
class Source:
    """Which images a calibration stands on, and how it was made."""

    data: str
    height: int
    width: int
    command: str
    seed: int
    false_positives: float


def calibrate(
    purification: Purification, seen: Sequence[tuple[Classifier, Sighting]], source: Source
) -> SuspicionCalibration:
    """The calibration of a mode by each classifier's sighting of the same clean photos.

    Raises EvaluationError for fewer photos than can show the rate of false positives.
    """
    residuals = _table(seen[0][1].residual_rms)
    alone = Scale(residuals, None, 0.0)
    classifiers = {}
    for victim, sighting in seen:
        scale = Scale(residuals, _table(sighting.prediction_shift), 0.0)
        classifiers[victim.name] = ClassifierCalibration(
            sha256=victim.identity,
            prediction_shift=_table(sighting.prediction_shift),
            threshold=threshold_at(sighting.scores(scale), source.false_positives),
        )
    return SuspicionCalibration(
        mode=purification.mode,
        residual_rms=residuals,
        threshold=threshold_at(seen[0][1].scores(alone), source.false_positives),
        classifiers=classifiers,
        false_positives=source.false_positives,
        height=source.height,
        width=source.width,
        data=source.data,
        command=source.command,
        seed=source.seed,
    )


def _table(samples: Tensor) -> CleanSignal:
    return CleanSignal.of([round(value, SIGNAL_DIGITS) for value in samples.tolist()])


def flagged(sighting: Sighting, scale: Scale) -> Tensor:
    """Which images (N,) bool are suspicious."""
    return sighting.scores(scale) >= scale.threshold


def false_positives(clean: Sighting, scale: Scale) -> Score:
    """The share of clean images that are called suspicious."""
    return accuracy(flagged(clean, scale))


def figures(
    purification: Purification, clean: Sequence[tuple[Sighting, Scale]], alone: Scale, source: Source
) -> tuple[Figure, ...]:
    """What the thresholds give on clean photos that they were not set on, for the card."""
    aim = f"threshold set at {100 * source.false_positives:g} % on other photos"
    rates = [(f"of suspicion, {purification.name}, {s.victim}", false_positives(s, scale)) for s, scale in clean]
    rates.append((f"of suspicion by the residual alone, {purification.name}", false_positives(clean[0][0], alone)))
    return tuple(
        Figure(
            name=f"false positives {what}",
            value=round(score.percent, 2),
            unit="%",
            count=score.count,
            interval=(round(score.interval[0], 2), round(score.interval[1], 2)),
            command=source.command,
            seed=source.seed,
            note=aim,
        )
        for what, score in rates
    )


def with_calibration(card: Card, mode: str, fresh: SuspicionCalibration, added: Sequence[Figure]) -> Card:
    """The card with the mode's calibration in place of the one it had, and ``added`` among its figures."""
    joined = fresh.joined(card.suspicion.get(mode))
    return with_figures(card.model_copy(update={"suspicion": {**card.suspicion, mode: joined}}), added)


def marks(calibration: SuspicionCalibration, classifier: str) -> tuple[float, float]:
    """The residual and the shift that one clean image in ten reaches: what an attacker in hiding stays below."""
    shift = calibration.classifiers[classifier].prediction_shift
    return _reached(calibration.residual_rms), _reached(shift)


def _reached(signal: CleanSignal, share: float = 0.1) -> float:
    near = min(range(len(signal.tails)), key=lambda place: abs(signal.tails[place] - share))
    return signal.values[near]


def decided(sighting: Sighting, scale: Scale) -> Tensor:
    """Which images (N,) bool are answered rightly under the policy ``suspicious``."""
    return torch.where(flagged(sighting, scale), sighting.purified, sighting.original)
