from __future__ import annotations

import pytest
import torch

from robustness.detection import area, curve, threshold_at
from robustness.errors import EvaluationError


def test_the_threshold_lets_no_more_clean_images_through_than_the_rate_allows() -> None:
    scores = torch.randperm(99).double()
    assert threshold_at(scores, 0.01) == pytest.approx(98.0001)
    border = threshold_at(scores, 0.05)
    assert border == pytest.approx(94.0001)
    assert int((scores >= border).sum()) == 4  # 5 % of 100, the image to come among them


def test_ties_at_the_border_do_not_break_the_rate() -> None:
    scores = torch.tensor([0.0] * 90 + [1.0] * 9)
    assert int((scores >= threshold_at(scores, 0.05)).sum()) == 0


def test_a_rate_that_so_few_images_cannot_show_is_refused() -> None:
    with pytest.raises(EvaluationError, match="98 clean photos show no rate of 1 %; it takes 99"):
        threshold_at(torch.zeros(98), 0.01)
    with pytest.raises(EvaluationError, match="between 0 and 1"):
        threshold_at(torch.zeros(98), 0.0)


def test_the_area_counts_how_often_attacked_is_above_clean() -> None:
    clean = torch.tensor([0.0, 1.0, 2.0, 3.0])
    assert area(torch.tensor([4.0, 5.0]), clean).percent == 100
    assert area(clean, clean).percent == 50
    found = area(torch.tensor([0.5, 2.0]), clean)
    assert found.percent == pytest.approx(100 * (1 + 2.5) / 8)
    assert found.interval[0] < found.percent < found.interval[1]
    assert found.count == 2


def test_the_curve_rises_from_what_no_clean_image_reaches_to_everything() -> None:
    clean = torch.arange(100).double()
    attacked = torch.tensor([98.5, 89.5, 200.0, -1.0])
    points = dict(curve(attacked, clean))
    assert points[0.0] == 25
    assert points[1.0] == 50
    assert points[5.0] == 50
    assert points[10.0] == 75
    assert points[100.0] == 100
    heights = list(points.values())
    assert heights == sorted(heights)
