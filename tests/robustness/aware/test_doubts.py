from __future__ import annotations

import torch

from robustness.aware.doubts import blind_warning, curve_warning, masking_warning, unbounded_warning

NONE, SOME = torch.zeros(16).double(), torch.ones(16).double()


def test_a_budget_that_nothing_withstands_must_leave_nothing() -> None:
    assert unbounded_warning("t", NONE) is None
    nearly = NONE.clone()
    nearly[0] = 0.5
    assert unbounded_warning("t", nearly) is None
    assert "leaves 100.0 % of 16 photos" in str(unbounded_warning("t", SOME))


def test_bpda_that_beats_the_exact_gradient_shows_a_masked_one() -> None:
    assert "masks its gradient" in str(masking_warning("t", SOME, NONE))
    assert masking_warning("t", NONE, SOME) is None
    assert masking_warning("t", SOME, SOME) is None
    once = SOME.clone()
    once[0] = 0
    assert masking_warning("t", SOME, once) is None  # one photo of 16 is chance


def test_a_curve_that_still_falls_at_its_end_asks_for_more_draws() -> None:
    assert "with 20 draws a gradient 0.0 %" in str(curve_warning("t", (10, 20), [SOME, NONE]))
    assert curve_warning("t", (5, 10, 20), [SOME, NONE, NONE]) is None
    assert curve_warning("t", (10,), [SOME]) is None


def test_a_gradient_that_vanishes_is_told() -> None:
    assert blind_warning("t", torch.zeros(16).bool()) is None
    assert "vanished or was not finite for 16 of 16" in str(blind_warning("t", torch.ones(16).bool()))
