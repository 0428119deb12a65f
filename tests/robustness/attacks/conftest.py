from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robustness.attacks.attack import Knowledge

CLASSES = 6


@pytest.fixture
def seeded() -> Callable[..., torch.Generator]:
    """A generator of a seed."""

    def make(seed: int = 0) -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    return make


@pytest.fixture
def network() -> nn.Module:
    """A tiny classifier of images of any size, its parameters trainable, unsure enough of noise to be fooled."""
    torch.manual_seed(7)
    linear = nn.Linear(24, CLASSES)
    made = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), linear)
    with torch.no_grad():
        linear.weight *= 30
        linear.bias.sub_(made(torch.rand(32, 3, 12, 9)).mean(0))
    return made.eval()


@pytest.fixture
def images(seeded: Callable[..., torch.Generator]) -> Tensor:
    """Random images, taller than wide, the first black and the second white."""
    made = torch.rand(6, 3, 12, 9, generator=seeded(1))
    made[0], made[1] = 0.0, 1.0
    return made


@pytest.fixture
def known() -> Callable[[nn.Module, Tensor], Knowledge]:
    """All there is to know of a classifier whose own answers to these images are the truth."""

    def make(network: nn.Module, images: Tensor) -> Knowledge:
        with torch.no_grad():
            labels = network(images).argmax(1)
        wrong = (labels + 1) % CLASSES

        def loss(candidates: Tensor) -> Tensor:
            return F.cross_entropy(network(candidates), labels, reduction="none")

        def targeted(candidates: Tensor) -> Tensor:
            return -F.cross_entropy(network(candidates), wrong, reduction="none")

        features: Callable[[Tensor], Tensor] = network[:2] if isinstance(network, nn.Sequential) else network
        return Knowledge(loss, targeted, network, features, lambda candidates: [features(candidates)], labels)

    return make


@pytest.fixture
def outside() -> Callable[[Tensor, Tensor, float], Tensor]:
    """By how much adversaries leave their budget or [0,1], in /255; rounding of float32 counts as nothing."""

    def measure(found: Tensor, images: Tensor, eps: float) -> Tensor:
        beyond_ball = (found.double() - images.double()).abs().max() * 255 - eps
        beyond_range = torch.maximum(-found.min(), found.max() - 1).double() * 255
        return torch.maximum(beyond_ball, beyond_range).clamp_min(0)

    return measure


@pytest.fixture
def linear() -> Callable[[Tensor], Callable[[Tensor], Tensor]]:
    """The loss of fixed weights: its gradient is the weights, everywhere."""

    def make(weights: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda candidates: (candidates * weights).flatten(1).sum(1)

    return make
