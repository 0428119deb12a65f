"""A toy for every adapter: four colours, a classifier that tells them apart, and a purifier that blurs."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Blur(nn.Module):
    """Half the image, half its 3x3 mean."""

    def forward(self, images: Tensor) -> Tensor:
        return (images + F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)) / 2


class Rounding(nn.Module):
    """A purifier without a usable gradient: 32 levels a channel."""

    def forward(self, images: Tensor) -> Tensor:
        return (images * 31).round() / 31


class Colours(nn.Module):
    """Logits of four classes: grey, red, green, blue, by the image's mean colour. ``scale`` is how sure it is."""

    def __init__(self, scale: float = 30.0) -> None:
        super().__init__()
        centres = torch.tensor([[0.5, 0.5, 0.5], [0.6, 0.5, 0.5], [0.5, 0.6, 0.5], [0.5, 0.5, 0.6]])
        self.head = nn.Linear(3, 4)
        self.head.weight = nn.Parameter(2 * scale * centres)
        self.head.bias = nn.Parameter(-scale * centres.square().sum(1))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(images.mean(dim=(2, 3)))
        return out


@dataclass(frozen=True)
class Toy:
    """Images (12, 3, 8, 8) of 8 bits with a little texture, and their classes."""

    images: Tensor
    labels: Tensor

    def outside(self, adversaries: Tensor, eps: float) -> bool:
        """Whether any pixel left the eps/255 ball or [0,1]."""
        far = (adversaries - self.images).abs().max() > eps / 255 + 1e-6
        return bool(far or adversaries.min() < 0 or adversaries.max() > 1)


@pytest.fixture
def toy() -> Toy:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(12) % 4
    images = 0.5 + 0.06 * (torch.rand(12, 3, 8, 8, generator=generator) - 0.5)
    for image, label in zip(images, labels.tolist(), strict=True):
        if label:
            image[label - 1] += 0.1
    return Toy((images * 255).round() / 255, labels)


@pytest.fixture
def blur() -> Blur:
    return Blur()


@pytest.fixture
def rounding() -> Rounding:
    return Rounding()


@pytest.fixture
def colours() -> Colours:
    return Colours().eval()
