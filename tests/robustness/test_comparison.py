from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from robustness.comparison import Comparison, compare
from robustness.defences import Role
from robustness.errors import EvaluationError
from robustness.intervals import share_interval
from robustness.observations import CLEAN, Observation, Scenario
from robustness.scores import accuracy

HIT = Scenario("PGD", 8)


def bits(*each: int) -> Tensor:
    return torch.tensor(each, dtype=torch.float64)


def seen(scenario: Scenario, victim: str, defence: str, role: Role, *right: int) -> Observation:
    return Observation(scenario, victim, defence, role, accuracy(bits(*right)))


WHOLE = Comparison(bits(1, 1, 1, 0), bits(0, 0, 0, 0), bits(1, 1, 0, 0), {"a": bits(1, 0, 0, 0), "b": bits(0, 0, 0, 1)})


def test_points_are_over_the_baseline_that_keeps_most() -> None:
    assert WHOLE.best == "a"
    points = WHOLE.points()
    assert points is not None
    assert points[0] == pytest.approx(25.0)
    # One photo of four differs, by one: the standard deviation is sqrt(3)/4.
    half = 100 * 1.959963984540054 * math.sqrt(3) / 4 / 2
    assert points[1] == pytest.approx((25 - half, 25 + half))


def test_the_share_is_of_what_is_right_without_an_attack() -> None:
    share = WHOLE.share()
    assert share is not None
    assert share[0] == pytest.approx(200 / 3)
    assert share[1][0] < 200 / 3 < share[1][1]


def test_a_share_of_itself_is_certain_and_one_of_nothing_is_none() -> None:
    assert share_interval(bits(1, 0, 1), bits(1, 0, 1)) == pytest.approx((1.0, 1.0))
    with pytest.raises(ValueError, match="share of nothing"):
        share_interval(bits(1, 0), bits(0, 0))
    assert Comparison(bits(0, 0), None, bits(0, 1), {}).share() is None


def test_a_share_s_interval_is_narrower_than_its_parts_allow_apart() -> None:
    """Pairing: the photos that are wrong anyhow say nothing about what an attack takes."""
    clean = bits(*[1] * 80, *[0] * 20)
    left = bits(*[1] * 78, *[0] * 22)
    low, high = share_interval(left, clean)
    assert 0.9 < low < 0.975 < high <= 1.02


def test_victims_are_averaged_photo_by_photo_over_the_same_ones() -> None:
    observations = [
        seen(CLEAN, "x", "none", "none", 1, 1),
        seen(CLEAN, "y", "none", "none", 1, 0),
        seen(CLEAN, "z", "none", "none", 0, 0),
        *(seen(HIT, victim, "p", "purifier", *right) for victim, right in (("x", (1, 0)), ("y", (0, 0)))),
        *(seen(HIT, victim, "none", "none", 0, 0) for victim in "xy"),
        *(seen(HIT, victim, "JPEG", "baseline", 0, 1) for victim in "xy"),
    ]
    found = compare(observations, HIT, "p")
    assert found is not None
    assert found.clean.tolist() == [1.0, 0.5]
    assert found.defended.tolist() == [0.5, 0.0]
    assert found.baselines["JPEG"].tolist() == [0.0, 1.0]
    assert found.undefended is not None
    assert found.undefended.tolist() == [0.0, 0.0]
    assert compare(observations, HIT, "q") is None


def test_fewer_attacked_photos_are_compared_with_the_same_ones_clean() -> None:
    known = Scenario("least", 4, "aware")
    observations = [
        seen(CLEAN, "x", "none", "none", 1, 0, 1, 1),
        seen(known, "x", "p", "purifier", 1, 0),
    ]
    found = compare(observations, known, "p")
    assert found is not None
    assert found.clean.tolist() == [1.0, 0.0]
    assert (found.undefended, found.best, found.points()) == (None, None, None)
    share = found.share()
    assert share is not None
    assert (share[0], *share[1]) == pytest.approx((100.0, 100.0, 100.0))


def test_a_victim_without_a_clean_score_is_named() -> None:
    with pytest.raises(EvaluationError, match="x: no clean score"):
        compare([seen(HIT, "x", "p", "purifier", 1)], HIT, "p")
