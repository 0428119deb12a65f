import math

import pytest
import torch

from training.losses import feature_distance, pixel_distance, prediction_shift, relativistic_average


def test_equal_images_cost_nothing() -> None:
    images = torch.rand(2, 3, 8, 8)
    assert pixel_distance(images, images) == 0
    assert feature_distance(images, images) == 0


def test_feature_distance_has_no_unit() -> None:
    clean = torch.rand(2, 4, 8, 8) + 0.1
    other = torch.rand(2, 4, 8, 8)
    torch.testing.assert_close(feature_distance(10 * other, 10 * clean), feature_distance(other, clean))


def test_prediction_shift_by_hand() -> None:
    clean, purified = torch.tensor([[0.0, 0.0]]), torch.tensor([[math.log(3.0), 0.0]])
    # 1/2 log((1/2)/(3/4)) + 1/2 log((1/2)/(1/4))
    expected = 0.5 * math.log(2 / 3) + 0.5 * math.log(2)
    assert prediction_shift(purified, clean).item() == pytest.approx(expected, rel=1e-5)
    assert prediction_shift(clean, clean).item() == pytest.approx(0, abs=1e-7)


def test_relativistic_average_by_hand() -> None:
    winners, losers = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    # averages: winners 1, losers 0; the winners lead by 2 and 0, the losers by -2 and 0
    ahead = (math.log1p(math.exp(-2)) + math.log(2)) / 2
    behind = (math.log1p(math.exp(-2)) + math.log(2)) / 2
    assert relativistic_average(winners, losers).item() == pytest.approx((ahead + behind) / 2, rel=1e-6)


def test_relativistic_average_falls_as_winners_pull_ahead() -> None:
    scores = torch.randn(8)
    costs = [relativistic_average(scores + lead, scores).item() for lead in (-1.0, 0.0, 1.0)]
    assert costs[0] > costs[1] > costs[2]
