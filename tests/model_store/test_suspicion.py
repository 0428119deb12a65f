from __future__ import annotations

import math

import pytest
import torch

from model_store.suspicion import jensen_shannon_bits, residual


def test_change_is_measured_in_levels_both_ways() -> None:
    before = torch.full((3, 1, 2), 100, dtype=torch.uint8)
    after = before.clone()
    after[0, 0, 0] = 255
    after[1, 0, 1] = 0
    linf, rms = residual(before, after)
    assert linf == 155
    assert rms == pytest.approx(math.sqrt((155**2 + 100**2) / 6))


def test_jensen_shannon_is_between_zero_and_one_bit_and_symmetric() -> None:
    p, q = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.5, 0.5])
    assert float(jensen_shannon_bits(p, p)) == 0
    assert float(jensen_shannon_bits(p, q)) == pytest.approx(1)
    half = torch.tensor([0.5, 0.5, 0.0])
    assert float(jensen_shannon_bits(p, half)) == pytest.approx(0.3112781)
    assert float(jensen_shannon_bits(half, p)) == pytest.approx(0.3112781)


def test_many_distributions_are_compared_at_once() -> None:
    p = torch.rand(4, 5).softmax(dim=1)
    found = jensen_shannon_bits(p, p.flip(0))
    assert found.shape == (4,)
    assert found.tolist() == pytest.approx(
        [float(jensen_shannon_bits(a, b)) for a, b in zip(p, p.flip(0), strict=True)]
    )


def test_its_gradient_is_finite_where_a_probability_is_zero() -> None:
    p = torch.tensor([1.0, 0.0, 0.0], requires_grad=True)
    (slope,) = torch.autograd.grad(jensen_shannon_bits(p, torch.tensor([0.5, 0.5, 0.0])), p)
    assert bool(slope.isfinite().all())
