from __future__ import annotations

import pytest
import torch

from robustness.intervals import paired, wilson


@pytest.mark.parametrize(
    ("correct", "count", "low", "high"),
    [
        (5, 10, 0.2366, 0.7634),  # 0.5 -+ 1.96 / 1.3841 * sqrt(0.025 + 0.0096)
        (0, 10, 0.0, 0.2775),  # 3.8415 / 13.8415
        (10, 10, 0.7225, 1.0),
        (81, 263, 0.2553, 0.3662),  # the worked example of Newcombe, Statistics in Medicine 17 (1998)
    ],
)
def test_wilson_is_as_computed_by_hand(correct: int, count: int, low: float, high: float) -> None:
    found = wilson(correct, count)
    assert found == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_wilson_narrows_with_more_photos_and_takes_fractional_counts() -> None:
    wide, narrow = wilson(7.5, 10), wilson(750, 1000)
    assert wide[0] < narrow[0] < 0.75 < narrow[1] < wide[1]


@pytest.mark.parametrize(("correct", "count"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(correct: int, count: int) -> None:
    with pytest.raises(ValueError, match="no proportion"):
        wilson(correct, count)


def test_a_paired_interval_is_the_normal_one_of_the_mean() -> None:
    # mean 0.25, standard deviation sqrt(0.6875 / 1): 1.96 * 0.82916 / 2
    low, high = paired(torch.tensor([1.0, 1.0, 0.0, -1.0]))
    assert (low, high) == (pytest.approx(0.25 - 0.81257, abs=1e-4), pytest.approx(1.0))
    assert paired(torch.zeros(5)) == (0.0, 0.0)
