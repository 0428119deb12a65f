from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest
import torch
from torch import Tensor, nn

from model_store.pixels import to_bytes, to_float
from robustness.aware.defended import Defended, Mode
from robustness.aware.material import Material
from robustness.aware.plan import AwarePlan
from robustness.cache import Cache
from robustness.examples import Examples
from robustness.progress import Progress

CPU = torch.device("cpu")
NOISY = Mode(noise_std=0.05, draws=2)
PLAN = AwarePlan(
    eps=8, photos=6, steps=6, eot=3, decisions=4, few=4, eot_curve=(1, 3), square_photos=0, batch=2, chunk=5
)


class Hue(nn.Module):
    """One layer: the mean of each colour is the logit of its class, sharply."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(60.0))

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3)) * self.sharpness


class Wavy(nn.Module):
    """A purifier whose gradient is far from the identity's; pixels in [0.3, 0.7] stay in [0,1]."""

    def forward(self, images: Tensor) -> Tensor:
        return images.roll(1, dims=-1) + 0.1 * torch.sin(12 * images)


class MakeDefended(Protocol):
    """The classifier of hues behind a purifier."""

    def __call__(self, mode: Mode = NOISY, purifier: nn.Module | None = None, name: str = "toy") -> Defended: ...


@pytest.fixture
def make_defended() -> MakeDefended:
    def make(mode: Mode = NOISY, purifier: nn.Module | None = None, name: str = "toy") -> Defended:
        return Defended(name, "hue", mode, f"{name} weights", "hue weights", purifier or nn.Identity(), Hue())

    return make


@pytest.fixture
def photos() -> Examples:
    """Six grey noisy photos of 16x16, of which each but the last is a little brighter in the colour of its class."""
    labels = torch.arange(6) % 3
    pixels = 0.4 + 0.2 * torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    pixels = pixels - pixels.mean(dim=(2, 3), keepdim=True) + 0.5
    pixels[torch.arange(6), labels] += 0.02
    pixels[5, labels[5]] -= 0.1
    return Examples(to_bytes(pixels), {"labels": labels}, tuple(f"{place}.png" for place in range(6)))


@pytest.fixture
def material(photos: Examples, tmp_path: Path) -> Material:
    return Material(photos, Cache(tmp_path / "cache"), Progress(quiet=True), CPU)


@pytest.fixture
def plan() -> AwarePlan:
    return replace(PLAN)


@pytest.fixture
def images(photos: Examples) -> Tensor:
    return to_float(photos.pixels)
