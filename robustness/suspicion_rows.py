"""The rows of suspicion: how well attacks are seen, and what each policy leaves of a classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from model_store.calibration import Scale
from robustness.calibrating import decided, flagged
from robustness.detection import area, curve
from robustness.results.row import Row
from robustness.results.suspicion import (
    ACCURACY,
    ALWAYS,
    AREA,
    DETECTED,
    DETECTED_FOOLING,
    FALSE_POSITIVES,
    LEAST,
    RESIDUAL,
    SCORE,
    SHIFT,
    SUSPICIOUS,
    TABLE,
    UNDEFENDED,
    UNSEEN,
)
from robustness.scores import Score, accuracy
from robustness.suspicion import Sighting

NOBODY_FOOLED = "the attack fooled the undefended classifier on no photo"


def clean_rows(sighting: Sighting, scale: Scale, alone: Scale, shared: Row) -> list[Row]:
    """False positives of both thresholds, and what each policy leaves right."""
    found = _placed(shared, sighting)
    rates = ((SCORE, scale), (RESIDUAL, alone))
    rows = [_row(found, FALSE_POSITIVES, series, accuracy(flagged(sighting, at)), at) for series, at in rates]
    return [*rows, *_policies(found, [sighting], scale)]


def attack_rows(sighting: Sighting, clean: Sighting, scale: Scale, alone: Scale, shared: Row) -> list[Row]:
    """Detection by the score and by each signal against the photos of ``clean``, and what each policy leaves right."""
    found = _placed(shared, sighting)
    scores = sighting.scores(scale), clean.scores(scale)
    roc = _row(found, AREA, SCORE, area(*scores), scale)
    roc = roc.model_copy(update={"settings": {**roc.settings, "roc": curve(*scores), "clean": len(clean)}})
    seen, fooled = flagged(sighting, scale), ~sighting.original
    return [
        roc,
        _row(found, AREA, RESIDUAL, area(sighting.residual_rms, clean.residual_rms)),
        _row(found, AREA, SHIFT, area(sighting.prediction_shift, clean.prediction_shift)),
        _row(found, DETECTED, SCORE, accuracy(seen), scale),
        _row(found, DETECTED, RESIDUAL, accuracy(flagged(sighting, alone)), alone),
        _row(found, DETECTED_FOOLING, SCORE, accuracy(seen[fooled]), scale)
        if bool(fooled.any())
        else found.model_copy(update={"metric": DETECTED_FOOLING, "series": SCORE, "missing": NOBODY_FOOLED}),
        *_policies(found, [sighting], scale),
    ]


def least_rows(tries: Sequence[Sighting], scale: Scale, shared: Row) -> list[Row]:
    """What is left of each photo by whichever of ``tries``, all of the same photos, does most harm."""
    found = shared.model_copy(update={"attack": LEAST, "attacker": "aware", "eps": tries[0].scenario.eps})
    return _policies(found.model_copy(update={"victim": tries[0].victim}), tries, scale)


def _policies(found: Row, tries: Sequence[Sighting], scale: Scale) -> list[Row]:
    """Accuracy undefended and under each policy, and the share that each leaves wrong below the threshold."""
    hidden = [~flagged(sighting, scale) for sighting in tries]
    answers = {
        UNDEFENDED: [sighting.original for sighting in tries],
        ALWAYS: [sighting.purified for sighting in tries],
        SUSPICIOUS: [decided(sighting, scale) for sighting in tries],
    }
    rows = [_row(found, ACCURACY, name, accuracy(_all(right)), scale) for name, right in answers.items()]
    for name in (ALWAYS, SUSPICIOUS):
        unseen = [~(right.logical_not() & below) for right, below in zip(answers[name], hidden, strict=True)]
        rows.append(_row(found, UNSEEN, name, accuracy(~_all(unseen)), scale))
    return rows


def _all(kept: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(kept)).all(dim=0)


def _placed(shared: Row, sighting: Sighting) -> Row:
    scenario = sighting.scenario
    return shared.model_copy(
        update={
            "table": TABLE,
            "attacker": scenario.attacker,
            "attack": scenario.attack,
            "eps": scenario.eps,
            "surrogate": scenario.surrogate,
            "victim": sighting.victim,
        }
    )


def _row(found: Row, metric: str, series: str, score: Score, scale: Scale | None = None) -> Row:
    return found.model_copy(
        update={
            "metric": metric,
            "series": series,
            "percent": round(score.percent, 3),
            "interval": (round(score.interval[0], 3), round(score.interval[1], 3)),
            "count": score.count,
            "missing": "",
            "settings": {} if scale is None else {"threshold": scale.threshold},
        }
    )
