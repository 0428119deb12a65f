from __future__ import annotations

import pytest
import torch
from torch import Tensor

from robustness.scores import accuracy, resampled


def test_accuracy_counts_and_has_wilsons_interval() -> None:
    score = accuracy(torch.tensor([True, True, True, False]))
    assert (score.metric, score.percent, score.count) == ("accuracy", 75.0, 4)
    assert list(score.interval) == pytest.approx([30.06, 95.44], abs=0.01)
    assert score.each is not None
    assert score.each.dtype == torch.float64
    assert score.each.tolist() == [1, 1, 1, 0]


def test_accuracy_takes_shares_too() -> None:
    score = accuracy(torch.tensor([0.5, 1.0]))
    assert score.percent == 75
    assert score.interval[0] < 75 < score.interval[1]


@pytest.mark.parametrize("right", [False, True])
def test_an_interval_stays_between_0_and_100(right: bool) -> None:
    low, high = accuracy(torch.full((9,), right)).interval
    assert 0 <= low < high <= 100
    assert (high == pytest.approx(100)) is right


def test_one_example_leaves_everything_open() -> None:
    assert resampled("mAP@0.5", 1, lambda _: 0.25).interval == (0, 100)
    assert resampled("mAP@0.5", 1, lambda _: 0.25).percent == 25


def test_a_resampled_score_is_of_all_examples_and_repeats() -> None:
    worth = torch.linspace(0, 1, 40).square()

    def value(places: Tensor) -> float:
        assert places.shape == (40,)
        return float(worth[places].mean())

    score = resampled("mAP@0.5", 40, value)
    assert score.percent == pytest.approx(100 * float(worth.mean()))
    assert (score.metric, score.count, score.each) == ("mAP@0.5", 40, None)
    half = 1.96 * 100 * float(worth.std(correction=0)) / 40**0.5
    assert score.interval[0] == pytest.approx(score.percent - half, abs=1.5)
    assert score.interval[1] == pytest.approx(score.percent + half, abs=1.5)
    assert resampled("mAP@0.5", 40, value).interval == score.interval


def test_a_value_that_is_the_same_of_any_sample_has_no_width() -> None:
    each = torch.ones(5)
    score = resampled("pixel accuracy", 5, lambda _: 0.25, each)
    assert (score.percent, score.interval) == (25.0, (25.0, 25.0))
    assert score.each is each
