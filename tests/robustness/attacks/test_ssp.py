from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from robustness.attacks.ascent import Start, random_start
from robustness.attacks.attack import Knowledge
from robustness.attacks.ssp import SSP
from robustness.errors import AttackError

Seeded = Callable[..., torch.Generator]


def test_ssp_on_linear_features_goes_on_the_way_it_started(seeded: Seeded) -> None:
    images = torch.full((2, 3, 4, 4), 0.5)
    weights = torch.rand(3, 4, 4, generator=seeded(1)) + 0.5  # each feature sees one value: the slope is w^2 (x - x0)
    knowledge = Knowledge(features=lambda candidates: candidates * weights)
    begin = random_start(images, 8, "uniform", seeded(2))
    found = SSP(8, step=2, iterations=10, start="uniform")(images, knowledge, seeded(2))
    assert torch.allclose((found - images) * 255, 8 * (begin - images).sign(), atol=1e-4)


@pytest.mark.parametrize("start", ["uniform", "corner"])
def test_ssp_moves_the_features_further_than_its_start(
    start: Start, network: nn.Sequential, images: Tensor, seeded: Seeded
) -> None:
    features = network[:2]

    def distance(candidates: Tensor) -> Tensor:
        moved: Tensor = features(candidates) - features(images)
        return moved.square().flatten(1).mean(1)

    with torch.no_grad():
        before = distance(random_start(images, 8, start, seeded(3)))
        found = SSP(8, step=2, iterations=10, start=start)(images, Knowledge(features=features), seeded(3))
        assert (distance(found) > before).all()


def test_ssp_cannot_start_where_its_gradient_is_zero() -> None:
    with pytest.raises(AttackError, match="gradient of its distance is zero"):
        SSP(8, start="clean")


def test_the_name_states_what_differs_from_the_paper() -> None:
    assert SSP(8).name == "SSP"
    assert SSP(8, iterations=10, start="uniform").name == "SSP (iterations 10, start uniform)"
