from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustness.attacks.ascent import random_start, slope
from robustness.attacks.attack import Knowledge
from robustness.attacks.scattering import FSA, cosine_costs, transport_plan

Seeded = Callable[..., torch.Generator]


@pytest.mark.parametrize("regularisation", [0.1, 0.3, 2.0])
def test_the_plan_of_two_points_has_its_closed_form(regularisation: float) -> None:
    cost = torch.tensor([[0.1, 0.9], [0.4, 0.3]], dtype=torch.float64)
    odds = torch.exp(-(cost[0, 0] + cost[1, 1] - cost[0, 1] - cost[1, 0]) / (2 * regularisation))
    straight = 0.5 * odds / (1 + odds)
    expected = torch.stack([straight, 0.5 - straight, 0.5 - straight, straight]).view(2, 2)
    assert torch.allclose(transport_plan(cost, regularisation, 2000), expected, atol=1e-6)


def test_little_regularisation_gives_the_cheapest_assignment_and_much_gives_no_preference(seeded: Seeded) -> None:
    order = torch.randperm(6, generator=seeded())
    cost = torch.rand(6, 6, generator=seeded()) + 1
    cost[torch.arange(6), order] -= 1
    assignment = torch.zeros(6, 6)
    assignment[torch.arange(6), order] = 1 / 6
    assert torch.allclose(transport_plan(cost, 0.01, 100), assignment, atol=1e-3)
    assert torch.allclose(transport_plan(cost, 1e4, 5), torch.full((6, 6), 1 / 36), atol=1e-4)


def test_the_plan_carries_everything_from_and_to_everyone(seeded: Seeded) -> None:
    plan = transport_plan(2 * torch.rand(5, 3, generator=seeded()), 0.1, 300)
    assert torch.allclose(plan.sum(0), torch.full((3,), 1 / 3), atol=1e-5)
    assert torch.allclose(plan.sum(1), torch.full((5,), 1 / 5), atol=1e-3)


def test_costs_are_cosine_distances() -> None:
    clean = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    moved = torch.tensor([[3.0, 0.0], [-1.0, 0.0], [1.0, 1.0]])
    half = 1 - 0.5**0.5
    assert torch.allclose(cosine_costs(clean, moved), torch.tensor([[0.0, 2.0, half], [1.0, 1.0, half]]), atol=1e-6)


def test_a_fixed_plan_gives_the_gradient_of_the_regularised_distance(seeded: Seeded) -> None:
    clean, moved = torch.randn(2, 4, 3, generator=seeded(), dtype=torch.float64)

    def distance(candidates: Tensor) -> Tensor:
        costs = cosine_costs(clean, candidates).double()
        plan = transport_plan(costs, 0.2, 500)
        return ((plan * costs).sum() + 0.2 * (plan * (plan.log() - 1)).sum()).expand(1)

    def fixed(candidates: Tensor) -> Tensor:
        costs = cosine_costs(clean, candidates).double()
        return (transport_plan(costs.detach(), 0.2, 500) * costs).sum(0)

    assert torch.allclose(slope(moved, distance), slope(moved, fixed), atol=1e-5)


def test_fsa_scatters_the_batch_further_than_its_start(network: nn.Module, images: Tensor, seeded: Seeded) -> None:
    def distance(candidates: Tensor) -> Tensor:
        costs = cosine_costs(network(images), network(candidates))
        return (transport_plan(costs, 0.01, 100) * costs).sum()

    with torch.no_grad():
        start = distance(random_start(images, 16, "uniform", seeded(2)))
        few = distance(FSA(16, iterations=2)(images, Knowledge(logits=network), seeded(2)))
        many = distance(FSA(16)(images, Knowledge(logits=network), seeded(2)))
    assert start < few < many


def test_one_image_alone_is_turned_from_its_own_logits(seeded: Seeded) -> None:
    image = torch.tensor([200.0, 100.0]).view(1, 1, 1, 2) / 255
    found = FSA(8, step=2)(image, Knowledge(logits=lambda x: x.flatten(1)), seeded())
    # the angle to (2, 1) grows fastest by shrinking one value and raising the other; the start decides which
    offset = ((found - image) * 255).flatten()
    assert torch.allclose(offset.abs(), torch.tensor(8.0), atol=1e-3)
    assert offset[0] * offset[1] < 0
