from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor

from robustness.attacks.ascent import Start, ascend, project, random_start

STARTS: tuple[Start, ...] = get_args(Start)
Linear = Callable[[Tensor], Callable[[Tensor], Tensor]]


@pytest.mark.parametrize("start", STARTS)
def test_a_start_lies_where_its_name_says(start: Start, seeded: Callable[..., torch.Generator]) -> None:
    images = torch.full((2, 3, 16, 16), 0.5)
    offset = (random_start(images, 8, start, seeded()) - images) * 255
    if start == "clean":
        assert (offset == 0).all()
    elif start == "corner":
        assert torch.allclose(offset.abs(), torch.tensor(8.0), atol=1e-4)
        assert 0.4 < (offset > 0).float().mean() < 0.6
    else:
        assert offset.abs().max() <= 8 + 1e-4
        assert offset.abs().mean() == pytest.approx(4, abs=0.3)


def test_projection_is_onto_the_ball_and_then_the_range() -> None:
    images = torch.tensor([0.0, 0.5, 0.5, 1.0])
    candidates = torch.tensor([-0.5, 0.9, 0.501, 2.0])
    assert torch.allclose(project(candidates, images, 51), torch.tensor([0.0, 0.7, 0.501, 1.0]))


@pytest.mark.parametrize(("iterations", "reached"), [(2, [106.0, 94.0, 100.0]), (3, [108.0, 92.0, 100.0])])
def test_ascent_on_a_toy_gradient_is_as_computed_by_hand(iterations: int, reached: list[float], linear: Linear) -> None:
    images = torch.full((1, 1, 1, 3), 100 / 255)
    loss = linear(torch.tensor([2.0, -3.0, 0.0]))
    found = ascend(images, loss, images.clone(), eps=8, step=3, iterations=iterations)
    assert torch.allclose(found.flatten() * 255, torch.tensor(reached), atol=1e-4)


def test_a_direction_turns_each_gradient_into_a_step(linear: Linear) -> None:
    images = torch.full((1, 1, 1, 2), 0.5)
    found = ascend(
        images, linear(torch.tensor([2.0, -3.0])), images, eps=8, step=1, iterations=1, direction=lambda slope: slope
    )
    assert torch.allclose((found - images).flatten() * 255, torch.tensor([2.0, -3.0]), atol=1e-4)
