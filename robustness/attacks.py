"""L-infinity attacks by projected sign-gradient ascent: SSP and PGD.

Images are NCHW float32 in [0,1]; ``eps`` and ``step`` are written in /255. Every attack returns images inside the
eps ball and [0,1], and touches no parameter's gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Objective = Callable[[Tensor], Tensor]
Start = Literal["clean", "uniform", "corner"]


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


def ascend(images: Tensor, objective: Objective, begin: Tensor, *, eps: float, step: float, iterations: int) -> Tensor:
    """Raise ``objective`` (images to one value an image) from ``begin`` by projected sign-gradient steps."""
    adversaries = begin.detach()
    for _ in range(iterations):
        adversaries.requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(objective(adversaries).sum(), adversaries)
        adversaries = project(adversaries.detach() + (step / 255) * gradient.sign(), images, eps)
    return adversaries


@dataclass(frozen=True)
class SSP:
    """Self-supervised perturbation (Naseer et al., CVPR 2020): maximise the distance in a frozen feature space.

    No label and no task: the mean squared difference between the features of the adversary and of the clean image
    grows. The paper uses VGG-16 conv3-3 after its ReLU and at most 100 iterations. ``corner`` is what the
    authors' code amounts to: it starts from unit Gaussian noise, of which the first projection puts some 96 % of
    the values on the surface of the ball. Raises ValueError for a clean start, where the gradient is zero.
    """

    features: Callable[[Tensor], Tensor]
    eps: float = 16.0
    step: float = 2.55
    iterations: int = 100
    start: Start = "corner"

    def __post_init__(self) -> None:
        if self.start == "clean":
            raise ValueError("SSP cannot start from the clean image: the gradient of its distance is zero there")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``; the clean features are computed once."""
        with torch.no_grad():
            clean = self.features(images)

        def distance(candidates: Tensor) -> Tensor:
            return (self.features(candidates) - clean).float().square().flatten(1).mean(1)

        begin = random_start(images, self.eps, self.start, generator)
        return ascend(images, distance, begin, eps=self.eps, step=self.step, iterations=self.iterations)


def random_targets(labels: Tensor, classes: int, generator: torch.Generator) -> Tensor:
    """A uniformly random wrong class for each label."""
    shift = torch.randint(1, classes, labels.shape, generator=generator).to(labels.device)
    return (labels + shift) % classes


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent (Madry et al., 2018) on the cross-entropy of ``logits``, L-infinity.

    Untargeted: raise the loss of the true label. Targeted: lower the loss of a random wrong label, as the paper's
    Table 1 does. ``step`` None means max(1, eps/4). Starts from a uniform point of the ball.
    """

    logits: Callable[[Tensor], Tensor]
    eps: float
    targeted: bool = False
    step: float | None = None
    iterations: int = 10
    start: Start = "uniform"

    def __call__(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images`` whose true classes are ``labels`` (N,)."""
        aim, sign = labels, 1.0
        if self.targeted:
            with torch.no_grad():
                classes = self.logits(images[:1]).shape[1]
            aim, sign = random_targets(labels, classes, generator), -1.0

        def loss(candidates: Tensor) -> Tensor:
            return sign * F.cross_entropy(self.logits(candidates).float(), aim, reduction="none")

        step = self.step if self.step is not None else max(1.0, self.eps / 4)
        begin = random_start(images, self.eps, self.start, generator)
        return ascend(images, loss, begin, eps=self.eps, step=step, iterations=self.iterations)
