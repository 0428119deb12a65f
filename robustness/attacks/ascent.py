"""Projected sign-gradient ascent, the loop that every iterative attack here shares.

Images are NCHW float32 in [0,1]; ``eps`` and ``step`` are written in /255. Nothing here touches a parameter's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from robustness.attacks.attack import Network

Start = Literal["clean", "uniform", "corner"]
Direction = Callable[[Tensor], Tensor]


def random_start(images: Tensor, eps: float, start: Start, generator: torch.Generator) -> Tensor:
    """A starting point of the eps ball: the image itself, a uniform point, or a random corner."""
    if start == "clean":
        return images.clone()
    noise = torch.rand(images.shape, generator=generator).to(images.device) * 2 - 1
    if start == "corner":
        noise = torch.where(noise >= 0, 1.0, -1.0)
    return (images + noise * (eps / 255)).clamp(0, 1)


def project(candidates: Tensor, images: Tensor, eps: float) -> Tensor:
    """The nearest point of the eps ball around ``images`` and of [0,1]."""
    limit = eps / 255
    return torch.minimum(torch.maximum(candidates, images - limit), images + limit).clamp(0, 1)


def slope(images: Tensor, objective: Network) -> Tensor:
    """The gradient of ``objective`` (one value an image) with respect to ``images``."""
    leaf = images.detach().requires_grad_(True)
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(objective(leaf).sum(), leaf)
    return gradient


def ascend(
    images: Tensor,
    objective: Network,
    begin: Tensor,
    *,
    eps: float,
    step: float,
    iterations: int,
    direction: Direction = torch.sign,
) -> Tensor:
    """Raise ``objective`` (images to one value an image) from ``begin`` by projected steps along ``direction``.

    ``direction`` maps the gradient (N, C, H, W) of each iteration to the step's direction; one that remembers (a
    momentum) must be made anew for each call.
    """
    adversaries = begin.detach()
    for _ in range(iterations):
        moved = adversaries + (step / 255) * direction(slope(adversaries, objective))
        adversaries = project(moved, images, eps)
    return adversaries
