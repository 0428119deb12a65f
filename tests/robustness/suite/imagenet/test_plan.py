from __future__ import annotations

import pytest

from robustness.attacks.registry import ATTACKS
from robustness.suite.imagenet.plan import FEWEST, REHEARSAL, WHOLE, Plan, plan_for


@pytest.mark.parametrize("plan", [WHOLE, REHEARSAL])
def test_every_attack_of_a_plan_is_registered_and_hits_classifiers_that_training_has_not_seen(plan: Plan) -> None:
    assert {line.key for line in plan.white} | set(plan.transfer) <= set(ATTACKS)
    for line in plan.white:
        assert set(line.seen_eps) <= set(line.eps)
        assert 0 < line.share <= 1


def test_the_whole_plan_has_every_budget_and_photo_that_the_headline_promises() -> None:
    assert WHOLE.photos == 200
    assert {line.key for line in WHOLE.white} == {
        "FGSM",
        "MI-FGSM",
        "DIM",
        "DIM-TI",
        "PGD-50 untargeted",
        "AutoAttack pair",
    }
    assert all(sorted(line.eps) == [2, 4, 8, 16] for line in WHOLE.white)
    assert (WHOLE.aware.photos, WHOLE.aware.steps, WHOLE.aware.eot) == (64, 40, 10)


def test_few_photos_are_a_rehearsal() -> None:
    assert plan_for(None, None, None) == WHOLE
    assert plan_for(FEWEST, None, None).white == WHOLE.white
    assert plan_for(FEWEST - 1, None, None).white == REHEARSAL.white


def test_limits_hold_for_whatever_stands_on_the_same_photos() -> None:
    few = WHOLE.limited(60, 4, 3)
    assert (few.photos, few.figure_photos, few.known_photos) == (60, 50, 60)
    assert (few.aware.photos, few.aware.few, few.aware.square_photos) == (4, 4, 4)
    assert (few.scenes, few.known_scenes) == (3, 3)
    assert WHOLE.limited(None, None, None) == WHOLE
