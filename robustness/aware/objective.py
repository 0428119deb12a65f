"""The attacker's objective: a loss averaged over draws of the defence, with its gradient by one of two routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robustness.aware.defended import Arithmetic, Defended
from robustness.aware.losses import Loss
from robustness.errors import AttackError

Route = Literal["exact", "BPDA"]
Noise = Callable[[Tensor], Tensor]


def fresh_noise(draws: int, generator: torch.Generator) -> Noise:
    """Other noise at every call: (N, draws, 3, H, W) of std 1 for N images, drawn where ``generator`` lives."""

    def draw(images: Tensor) -> Tensor:
        shape = (len(images), draws, *images.shape[1:])
        return torch.randn(shape, generator=generator, device=generator.device).to(images.device)

    return draw


def known_noise(noise: Tensor) -> Noise:
    """The same noise (N, draws, 3, H, W) at every call, whatever the images."""

    def give(_: Tensor) -> Tensor:
        return noise

    return give


@dataclass(frozen=True)
class Objective:
    """The mean of ``loss`` over the draws that ``noise`` gives, for images (N, 3, H, W) with ``labels`` (N,).

    ``exact``: backward through the classifier, the purifier, the noise and JPEG, where roundings alone have a gradient
    that is not their own (``Defended``). ``BPDA``: forward through the defence, backward as if it were the identity
    (Athalye et al., 2018). Both are the mean of the draws' gradients (expectation over transformation), taken in one
    pass forward and back: what no draw changes is computed once, ``chunk`` copies are in flight, and no parameter gets
    a gradient.
    """

    defended: Defended
    labels: Tensor
    loss: Loss
    route: Route
    noise: Noise
    arithmetic: Arithmetic
    chunk: int

    def __call__(self, images: Tensor) -> Tensor:
        """The mean loss (N,), differentiable once."""
        if not images.requires_grad or not torch.is_grad_enabled():
            return self.measured(images, with_slope=False)[0]
        out: Tensor = _Measured.apply(images, self)
        return out

    def measured(self, images: Tensor, *, with_slope: bool) -> tuple[Tensor, Tensor]:
        """The mean loss (N,) and its gradient, of the images' shape (zero where it is not asked for)."""
        leaf = images.detach().requires_grad_(with_slope and self.route == "exact")
        with torch.set_grad_enabled(leaf.requires_grad):
            prepared = self.defended.prepared(leaf)
        middle, noise = prepared.detach(), self.noise(images)
        draws = noise.shape[1]
        noise = noise.flatten(0, 1)
        values, slopes = middle.new_zeros(len(images)), torch.zeros_like(middle)
        for part in torch.split(torch.arange(len(noise), device=images.device), self.chunk):
            owners = part // draws
            value, slope = self._copies(middle[owners], noise[part], self.labels[owners], with_slope=with_slope)
            values.index_add_(0, owners, value)
            if slope is not None:
                slopes.index_add_(0, owners, slope)
        if leaf.requires_grad:
            (slopes,) = torch.autograd.grad(prepared, leaf, slopes)
        return values / draws, slopes / draws

    def _copies(
        self, prepared: Tensor, noise: Tensor, labels: Tensor, *, with_slope: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The loss of each copy, and its gradient at the prepared copy, or (BPDA) at the purified one."""
        exact = self.route == "exact"
        with torch.set_grad_enabled(with_slope and exact):
            begin = prepared.requires_grad_(with_slope and exact)
            purified = self.defended.purified(begin, noise, self.arithmetic)
        if begin.requires_grad and not purified.requires_grad:
            raise AttackError(f"{self.defended.name} has no gradient of its own; attack it by BPDA")
        if not exact:
            begin = purified = purified.detach().requires_grad_(with_slope)
        with torch.set_grad_enabled(with_slope):
            value = self.loss(self.defended.logits(purified, self.arithmetic), labels)
        slope = torch.autograd.grad(value, begin, torch.ones_like(value))[0] if with_slope else None
        return value.detach(), slope


class _Measured(torch.autograd.Function):
    """An objective whose gradient was measured beside its value."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, objective: Objective) -> Tensor:
        value, slope = objective.measured(images, with_slope=True)
        ctx.save_for_backward(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return slope * upstream[0].view(-1, 1, 1, 1), None
