from __future__ import annotations

import math

import pytest
import torch

from service.suspicion import jensen_shannon_bits, judge


def test_what_did_not_move_is_not_suspicious() -> None:
    image = torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8)
    report = judge(image, image)
    assert (report.linf, report.residual_rms, report.prediction_shift, report.score) == (0, 0.0, None, 0.0)


def test_change_is_measured_in_levels_both_ways() -> None:
    before = torch.full((3, 1, 2), 100, dtype=torch.uint8)
    after = before.clone()
    after[0, 0, 0] = 255
    after[1, 0, 1] = 0
    report = judge(before, after)
    assert report.linf == 155
    assert report.residual_rms == pytest.approx(math.sqrt((155**2 + 100**2) / 6))


def test_jensen_shannon_is_between_zero_and_one_bit() -> None:
    p, q = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    assert jensen_shannon_bits(p, p) == 0
    assert jensen_shannon_bits(p, q) == pytest.approx(1)
    middle = jensen_shannon_bits(p, torch.tensor([0.5, 0.5, 0.0]))
    assert middle == pytest.approx(0.3112781)
    assert jensen_shannon_bits(torch.tensor([0.5, 0.5, 0.0]), p) == pytest.approx(middle)
