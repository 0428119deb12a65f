from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from robustness.attacks.attack import Knowledge
from robustness.attacks.single_step import FGSM, RFGSM

Linear = Callable[[Tensor], Callable[[Tensor], Tensor]]
Seeded = Callable[..., torch.Generator]


def test_fgsm_moves_by_the_whole_budget_along_the_signs_and_stops_at_black_and_white(
    linear: Linear, seeded: Seeded
) -> None:
    images = torch.tensor([100.0, 100.0, 100.0, 252.0, 3.0]).view(1, 1, 1, 5) / 255
    knowledge = Knowledge(loss=linear(torch.tensor([2.0, -0.001, 0.0, 1.0, -1.0])))
    found = FGSM(8)(images, knowledge, seeded())
    assert torch.allclose(found.flatten() * 255, torch.tensor([108.0, 92.0, 100.0, 255.0, 0.0]), atol=1e-4)


def test_rfgsm_steps_a_third_at_random_and_two_thirds_along_the_gradient(linear: Linear, seeded: Seeded) -> None:
    images = torch.full((4, 3, 8, 8), 0.5)
    weights = torch.where(torch.arange(8) < 4, 1.0, 0.0)
    offset = (RFGSM(9)(images, Knowledge(loss=linear(weights)), seeded()) - images) * 255
    towards, still = offset[..., :4], offset[..., 4:]
    assert set(towards.round().flatten().tolist()) == {3, 9}  # -3 + 6 and 3 + 6
    assert set(still.round().flatten().tolist()) == {-3, 3}
    assert torch.allclose(offset, offset.round(), atol=1e-3)
    assert 0.3 < (still > 0).float().mean() < 0.7


def test_rfgsm_takes_its_gradient_where_the_random_step_led(seeded: Seeded) -> None:
    images = torch.full((2, 3, 4, 4), 0.5)

    def away(candidates: Tensor) -> Tensor:
        return (candidates - images).square().flatten(1).sum(1)  # its gradient at the clean image is zero

    offset = (RFGSM(9)(images, Knowledge(loss=away), seeded()) - images) * 255
    assert torch.allclose(offset.abs(), torch.tensor(9.0), atol=1e-3)
    assert set(offset.sign().flatten().tolist()) == {-1, 1}
