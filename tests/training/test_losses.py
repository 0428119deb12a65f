import math

import pytest
import torch

from training.losses import (
    feature_distance,
    pixel_distance,
    prediction_shift,
    prediction_shifts,
    relativistic_average,
)
from training.purifier_recipe import PixelNorm


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


@pytest.mark.parametrize(("norm", "expected"), [("absolute", 0.25), ("squared", 0.125), ("root", 0.125**0.5)])
def test_pixel_distances_by_hand(norm: PixelNorm, expected: float) -> None:
    clean = torch.zeros(1, 1, 1, 2)
    purified = torch.tensor([0.5, 0.0]).view(1, 1, 1, 2)
    assert pixel_distance(purified, clean, norm).item() == pytest.approx(expected)


def test_a_root_has_a_slope_at_its_end() -> None:
    images = torch.rand(1, 3, 4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(pixel_distance(images, images.detach(), "root"), images)
    assert torch.isfinite(slope).all()


def test_a_distance_can_keep_its_unit() -> None:
    clean, other = torch.rand(2, 4, 8, 8) + 0.1, torch.rand(2, 4, 8, 8)
    absolute = feature_distance(10 * other, 10 * clean, relative=False)
    torch.testing.assert_close(absolute, 10 * feature_distance(other, clean, relative=False))


def test_what_is_raised_of_each_image_has_the_mean_of_what_is_lowered() -> None:
    clean, purified = torch.randn(5, 4), torch.randn(5, 4)
    torch.testing.assert_close(prediction_shifts(purified, clean).mean(), prediction_shift(purified, clean))


def test_means_are_taken_over_all_workers() -> None:
    def doubled(value: torch.Tensor) -> torch.Tensor:
        return 2 * value

    clean, other = torch.rand(2, 4) + 0.5, torch.rand(2, 4)
    torch.testing.assert_close(2 * feature_distance(other, clean, mean=doubled), feature_distance(other, clean))
    winners, losers = torch.tensor([3.0]), torch.tensor([1.0])
    # the averages told are 6 and 2, so the winner leads by 1 and the loser by -5
    expected = (math.log1p(math.exp(-1)) + math.log1p(math.exp(-5))) / 2
    assert relativistic_average(winners, losers, mean=doubled).item() == pytest.approx(expected, rel=1e-6)
