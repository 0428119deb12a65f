from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustness.attacks.apgd import APGD, checkpoints
from robustness.attacks.ascent import slope
from robustness.attacks.attack import Knowledge
from robustness.attacks.pgd import PGD
from robustness.errors import AttackError

Seeded = Callable[..., torch.Generator]
Known = Callable[[nn.Module, Tensor], Knowledge]
Outside = Callable[[Tensor, Tensor, float], Tensor]


def test_checkpoints_are_the_papers() -> None:
    assert sorted(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == frozenset()
    assert all(0 < place < 10 for place in checkpoints(10))


@pytest.mark.parametrize("eps", [0.5, 8.0])
def test_it_keeps_its_budget_its_seed_and_what_it_is_given(
    eps: float, network: nn.Module, images: Tensor, known: Known, seeded: Seeded, outside: Outside
) -> None:
    knowledge, given = known(network, images), images.clone()
    found = APGD(eps, 20)(given, knowledge, seeded())
    assert outside(found, images, eps) < 1e-4
    assert torch.equal(given, images)
    assert torch.equal(found, APGD(eps, 20)(images, knowledge, seeded()))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_it_raises_the_loss_at_least_as_far_as_pgd_of_as_many_steps(
    network: nn.Module, images: Tensor, known: Known, seeded: Seeded
) -> None:
    knowledge = known(network, images)
    assert knowledge.loss is not None
    ours = knowledge.loss(APGD(16, 40)(images, knowledge, seeded()))
    theirs = knowledge.loss(PGD(16, iterations=40)(images, knowledge, seeded()))
    assert ours.mean() >= theirs.mean() - 0.01


def test_of_a_linear_loss_it_finds_the_corner(
    linear: Callable[[Tensor], Callable[[Tensor], Tensor]], seeded: Seeded
) -> None:
    images, weights = torch.full((2, 3, 4, 4), 0.5), torch.randn(3, 4, 4, generator=seeded(2))
    found = APGD(8, 5)(images, Knowledge(loss=linear(weights)), seeded())
    torch.testing.assert_close(found, images + weights.sign() * 8 / 255)


def test_the_point_of_highest_loss_is_kept_and_a_step_that_overshoots_is_halved(seeded: Seeded) -> None:
    images = torch.full((1, 3, 4, 4), 0.5)
    peak = images + 1.3 / 255  # far inside the ball: steps of a whole budget jump over it
    reached: list[float] = []

    def loss(candidates: Tensor) -> Tensor:
        value = -(candidates - peak).abs().flatten(1).sum(dim=1)
        reached.extend(value.detach().tolist())
        return value

    found = APGD(8, 40)(images, Knowledge(loss=loss), seeded())
    assert float(loss(found)) == pytest.approx(max(reached))
    assert (found - peak).abs().mean() < 0.5 / 255
    fixed = images.clone()
    for _ in range(40):  # without halving, steps of twice the budget stay on the corners
        fixed = (fixed + 16 / 255 * slope(fixed, loss).sign()).clamp(0.5 - 8 / 255, 0.5 + 8 / 255)
    assert (fixed - peak).abs().mean() > 4 / 255


def test_its_name_and_what_it_refuses(images: Tensor, seeded: Seeded) -> None:
    assert (APGD(8).name, APGD(8, 40).name) == ("APGD-100", "APGD-40")
    with pytest.raises(AttackError, match="at least one iteration"):
        APGD(8, 0)
    with pytest.raises(AttackError, match="APGD-100 needs a loss"):
        APGD(8)(images, Knowledge(), seeded())
