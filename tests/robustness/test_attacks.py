from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor, nn

from model_store.architectures import build
from robustness.adversaries import outside_budget
from robustness.attacks import PGD, SSP, Start, ascend, project, random_start, random_targets

STARTS: tuple[Start, ...] = get_args(Start)
BUDGETS = [0.5, 1.0, 8.0, 16.0, 255.0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def edge_images() -> Tensor:
    """Black, white and random images."""
    return torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8), torch.rand(3, 8, 8, generator=generator(1))])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)
    )


@pytest.mark.parametrize("eps", BUDGETS)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", ["ssp", "pgd", "pgd-targeted"])
def test_no_attack_leaves_its_budget_or_the_pixel_range(
    network: nn.Module, kind: str, start: Start, eps: float
) -> None:
    images = edge_images()
    if (kind, start) == ("ssp", "clean"):
        with pytest.raises(ValueError, match="gradient of its distance is zero"):
            SSP(network[:2], eps=eps, step=eps, start=start)
        return
    if kind == "ssp":
        found = SSP(network[:2], eps=eps, step=eps, iterations=4, start=start)(images, generator())
    else:
        attack = PGD(network, eps=eps, targeted=kind == "pgd-targeted", iterations=4, start=start)
        found = attack(images, torch.tensor([0, 1, 2]), generator())
    assert found.shape == images.shape
    assert (found - images).abs().max() <= eps / 255 + 1e-6
    assert found.min() >= 0
    assert found.max() <= 1
    assert not outside_budget(found, images, eps).any()
    assert (found != images).flatten(1).any(1).all()


@pytest.mark.parametrize("start", STARTS)
def test_a_start_lies_where_its_name_says(start: Start) -> None:
    images = torch.full((2, 3, 16, 16), 0.5)
    offset = (random_start(images, 8, start, generator()) - images) * 255
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


def test_ascent_on_a_toy_gradient_is_as_computed_by_hand() -> None:
    images = torch.full((1, 1, 1, 3), 100 / 255)
    slope = torch.tensor([2.0, -3.0, 0.0])
    found = ascend(images, lambda x: (x * slope).flatten(1).sum(1), images.clone(), eps=8, step=3, iterations=2)
    assert torch.allclose(found.flatten() * 255, torch.tensor([106.0, 94.0, 100.0]), atol=1e-4)
    found = ascend(images, lambda x: (x * slope).flatten(1).sum(1), images.clone(), eps=8, step=3, iterations=3)
    assert torch.allclose(found.flatten() * 255, torch.tensor([108.0, 92.0, 100.0]), atol=1e-4)


def test_pgd_on_a_linear_model_moves_against_its_label_or_towards_its_target() -> None:
    weights = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])

    def logits(x: Tensor) -> Tensor:
        return x.flatten(1) @ weights.T

    images = torch.full((1, 1, 1, 2), 0.5)
    labels = torch.tensor([0])
    for targeted in (False, True):  # with two classes, away from one is towards the other
        attack = PGD(logits, eps=4, targeted=targeted, iterations=5, start="clean")
        found = attack(images, labels, generator())
        assert torch.allclose((found - images).flatten() * 255, torch.tensor([-4.0, 4.0]), atol=1e-4)


@pytest.mark.parametrize(("eps", "moved"), [(2.0, 1.0), (8.0, 2.0), (16.0, 4.0)])
def test_the_default_step_is_a_quarter_of_the_budget_and_at_least_one(eps: float, moved: float) -> None:
    def logits(x: Tensor) -> Tensor:
        return torch.stack([x.flatten(1).sum(1), -x.flatten(1).sum(1)], dim=1)

    images = torch.full((1, 1, 1, 1), 0.5)
    found = PGD(logits, eps=eps, iterations=1, start="clean")(images, torch.tensor([0]), generator())
    assert float((images - found) * 255) == pytest.approx(moved, abs=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_target_is_never_the_true_label_and_any_other_class(classes: int) -> None:
    labels = torch.arange(5000) % classes
    targets = random_targets(labels, classes, generator())
    assert (targets != labels).all()
    assert targets.min() == 0
    assert targets.max() == classes - 1
    assert len({(int(y), int(t)) for y, t in zip(labels, targets, strict=True)}) == classes * (classes - 1)


@pytest.mark.parametrize("start", ["uniform", "corner"])
def test_ssp_moves_the_features_further_than_its_start(network: nn.Module, start: Start) -> None:
    features, images = network[:2], torch.rand(4, 3, 8, 8, generator=generator(2))

    def distance(candidates: Tensor) -> Tensor:
        return (features(candidates) - features(images)).square().flatten(1).mean(1)

    begin = random_start(images, 8, start, generator(3))
    with torch.no_grad():
        before = distance(begin)
        found = SSP(features, eps=8, step=2, iterations=10, start=start)(images, generator(3))
        after = distance(found)
    assert (after > before).all()


@pytest.mark.parametrize("targeted", [False, True])
def test_pgd_repeats_with_its_generator_and_differs_with_another(network: nn.Module, *, targeted: bool) -> None:
    images, labels = edge_images(), torch.tensor([0, 1, 2])
    attack = PGD(network, eps=8, targeted=targeted, iterations=3)
    assert torch.equal(attack(images, labels, generator(5)), attack(images, labels, generator(5)))
    assert not torch.equal(attack(images, labels, generator(5)), attack(images, labels, generator(6)))


def test_ssp_repeats_with_its_generator_and_ignores_the_global_one(network: nn.Module) -> None:
    attack, images = SSP(network[:2], iterations=3), edge_images()
    torch.manual_seed(1)
    first = attack(images, generator(5))
    torch.manual_seed(2)
    assert torch.equal(first, attack(images, generator(5)))


@pytest.mark.parametrize("trainable", [True, False])
def test_no_attack_touches_a_gradient_or_its_images(*, trainable: bool) -> None:
    module = build("resnet_small", {"classes": 3, "widths": [4, 4], "blocks": 1}).eval().requires_grad_(trainable)
    images = torch.rand(2, 3, 16, 16, generator=generator())
    kept = images.clone()
    found = PGD(module, eps=8, iterations=2)(images, torch.tensor([0, 1]), generator())
    SSP(module.stem, iterations=2)(images, generator())
    assert all(parameter.grad is None for parameter in module.parameters())
    assert torch.equal(images, kept)
    assert not images.requires_grad
    assert not found.requires_grad
