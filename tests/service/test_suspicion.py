from __future__ import annotations

import pytest
import torch

from service.suspicion import judge
from tests.model_store.test_calibration import calibration


def moved(by: int) -> tuple[torch.Tensor, torch.Tensor]:
    before = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    return before, before + by


def test_what_did_not_move_is_not_suspicious() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    report = judge(image, image)
    assert (report.linf, report.residual_rms, report.prediction_shift, report.score) == (0, 0.0, None, 0.0)
    assert (report.calibrated, report.threshold, report.suspicious) == (False, None, None)


def test_without_a_calibration_the_score_is_the_residual_and_the_operator_s_threshold_is_in_levels() -> None:
    report = judge(*moved(4), threshold=4.0)
    assert (report.calibrated, report.score, report.suspicious) == (False, 4.0, True)
    assert judge(*moved(3), threshold=4.0).suspicious is False


@pytest.mark.parametrize(("by", "score", "suspicious"), [(2, 0.0, False), (4, 1.0, False), (5, 2.0, True)])
def test_with_one_the_residual_is_told_by_the_share_of_clean_images(by: int, score: float, suspicious: bool) -> None:
    report = judge(*moved(by), scale=calibration().alone())
    assert report.calibrated is True
    assert report.score == pytest.approx(score)
    assert (report.threshold, report.suspicious) == (2.0, suspicious)
    assert report.residual_rms == by


def test_a_classifier_s_shift_counts_too() -> None:
    apart = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    report = judge(*moved(4), *apart, scale=calibration().behind("tiny", "ab"))
    assert report.prediction_shift == pytest.approx(1)
    assert report.score == pytest.approx(3.0)
    assert report.suspicious is True


def test_the_operator_s_threshold_goes_before_the_card_s() -> None:
    report = judge(*moved(5), scale=calibration().alone(), threshold=2.5)
    assert (report.threshold, report.suspicious) == (2.5, False)
