from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from model_store.calibration import ClassifierCalibration, CleanSignal, SuspicionCalibration
from model_store.card import Card
from model_store.inference import STATIC, InferenceMode
from model_store.store import card_text

TABLE = CleanSignal(tails=(1.0, 0.1, 0.01), values=(2.0, 4.0, 5.0), count=99)
SHIFT = CleanSignal(tails=(1.0, 0.01), values=(0.0, 0.4), count=99)


def calibration(**given: Any) -> SuspicionCalibration:
    fields: dict[str, Any] = {
        "mode": STATIC,
        "residual_rms": TABLE,
        "threshold": 2.0,
        "classifiers": {"tiny": ClassifierCalibration(sha256="ab", prediction_shift=SHIFT, threshold=2.5)},
        "false_positives": 0.01,
        "height": 128,
        "width": 128,
        "data": "photos",
        "command": "nrp evaluate suspicion",
        "seed": 0,
    }
    return SuspicionCalibration(**{**fields, **given})


@pytest.mark.parametrize(
    ("value", "surprise"),
    [(0.0, 0.0), (2.0, 0.0), (3.0, 0.5), (4.0, 1.0), (4.5, 1.5), (5.0, 2.0), (5.1, 2.0), (1e9, 2.0)],
)
def test_surprise_is_the_logarithm_of_the_clean_share_and_claims_no_more_than_the_images_show(
    value: float, surprise: float
) -> None:
    assert TABLE.surprise(value) == pytest.approx(surprise)


def test_beyond_the_greatest_value_that_several_images_share_there_is_only_one_in_all_and_one() -> None:
    same = CleanSignal.of([0.0] * 9)
    assert same.surprise(0.0) == 0
    assert same.surprise(0.001) == pytest.approx(1.0)


def test_a_table_keeps_the_shares_of_its_images() -> None:
    table = CleanSignal.of([float(value) for value in range(1, 1000)])
    assert table.count == 999
    assert (table.tails[0], table.values[0]) == (1.0, 1.0)
    assert (table.tails[-1], table.values[-1]) == (0.001, 999.0)
    for tail, value in zip(table.tails, table.values, strict=True):
        assert tail == pytest.approx((1000 - value) / 1000, abs=0.002)
    surprises = [table.surprise(value) for value in range(0, 1100, 7)]
    assert surprises == sorted(surprises)
    assert table.surprise(950) == pytest.approx(-math.log10(0.05), abs=0.01)


@pytest.mark.parametrize(
    "given",
    [
        {"tails": (1.0, 0.5), "values": (1.0,), "count": 3},
        {"tails": (0.9, 0.5), "values": (1.0, 2.0), "count": 3},
        {"tails": (1.0, 0.0), "values": (1.0, 2.0), "count": 3},
        {"tails": (1.0, 0.5, 0.5), "values": (1.0, 2.0, 3.0), "count": 3},
        {"tails": (1.0, 0.5), "values": (2.0, 2.0), "count": 3},
        {"tails": (1.0, 0.5), "values": (2.0, math.nan), "count": 3},
        {"tails": (), "values": (), "count": 3},
    ],
)
def test_a_table_that_is_out_of_order_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CleanSignal(**given)


def test_the_score_adds_the_surprises_and_asks_for_every_signal() -> None:
    both = calibration().behind("tiny", "ab")
    assert both is not None
    assert both.score(4.0, 0.4) == pytest.approx(1.0 + 2.0)
    assert both.threshold == 2.5
    alone = calibration().alone()
    assert alone.score(4.0) == alone.score(4.0, 0.4) == pytest.approx(1.0)
    assert alone.threshold == 2.0
    with pytest.raises(ValueError, match="prediction shift"):
        both.score(4.0)


@pytest.mark.parametrize(("name", "sha256"), [("tiny", "cd"), ("other", "ab"), ("tiny", "")])
def test_a_calibration_is_of_a_classifier_and_its_weights(name: str, sha256: str) -> None:
    assert calibration().behind(name, sha256) is None


def test_a_second_classifier_joins_the_first_on_the_same_residuals_alone() -> None:
    added = {"other": ClassifierCalibration(sha256="cd", prediction_shift=SHIFT, threshold=3.0)}
    fresh = calibration(classifiers=added)
    assert set(fresh.joined(calibration()).classifiers) == {"tiny", "other"}
    assert fresh.joined(None) == fresh
    elsewhere = CleanSignal(tails=(1.0, 0.01), values=(2.0, 5.5), count=99)
    assert set(fresh.joined(calibration(residual_rms=elsewhere)).classifiers) == {"other"}
    assert set(fresh.joined(calibration(mode=InferenceMode(noise_std=0.1))).classifiers) == {"other"}


def test_a_card_carries_calibrations_and_one_without_is_still_read() -> None:
    card = Card(name="p", summary="s", task="purifier", architecture="identity", suspicion={"static": calibration()})
    assert Card.model_validate_json(card_text(card)) == card
    old = card.model_dump(mode="json")
    del old["suspicion"]
    assert Card.model_validate(old).suspicion == {}
    old["suspicion"] = {"static": {**calibration().model_dump(mode="json"), "guess": 1}}
    with pytest.raises(ValidationError, match="guess"):
        Card.model_validate(old)
