"""APGD: projected gradient ascent that chooses its own step size."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustness.attacks.ascent import Start, project, random_start
from robustness.attacks.attack import Attack, Knowledge, Network, required
from robustness.attacks.title import titled
from robustness.errors import AttackError

MOMENTUM = 0.75  # the share of the new step; the rest goes on along the last one
RISING = 0.75  # of the steps since the last checkpoint: fewer that raise the loss halve the step
FIRST, SHORTER, SHORTEST = 0.22, 0.03, 0.06  # of all iterations: when checkpoints come


def checkpoints(iterations: int) -> frozenset[int]:
    """The iterations after which the step size is looked at: rarely at first, and more often later."""
    found: set[int] = set()
    last, gap = 0, round(FIRST * iterations)
    while True:
        place = last + max(1, gap)
        if place >= iterations:
            return frozenset(found)
        found.add(place)
        gap = max(gap - round(SHORTER * iterations), round(SHORTEST * iterations))
        last = place


@dataclass(frozen=True)
class APGD(Attack):
    """Auto-PGD (Croce & Hein, ICML 2020), L-infinity, on the loss that it is given; untargeted.

    The first step is twice the budget, with momentum. At checkpoints the step of an image is halved, and the image set
    back to its best point, where fewer than three quarters of the steps raised its loss, or where neither its step
    nor its best loss changed since the last checkpoint. The point of highest loss is kept. Each iteration takes one
    gradient, the starting point one more. The loss may be noisy: then it should be a mean over draws, as AutoAttack's
    "rand" takes one. Images (N, 3, H, W) in [0,1] to the same; ``eps`` in /255. Raises AttackError without iterations.
    """

    eps: float
    iterations: int = 100
    start: Start = "uniform"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise AttackError("APGD needs at least one iteration; raise iterations")

    @property
    def name(self) -> str:
        """What tables call it."""
        return titled(f"APGD-{self.iterations}", self, "iterations")

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``."""
        loss = required(knowledge.loss, "a loss", self.name)
        state = _State.begin(random_start(images, self.eps, self.start, generator).detach(), loss, self.eps)
        looks, last = checkpoints(self.iterations), 0
        for iteration in range(1, self.iterations + 1):
            state.advance(images, loss, self.eps, first=iteration == 1)
            if iteration in looks:
                state.adapt(iteration - last)
                last = iteration
        return state.best


@dataclass
class _State:
    """Where the images (N, ...) are, were, and were best; ``step`` (N, 1, 1, 1) in pixel units."""

    point: Tensor
    before: Tensor
    slope: Tensor
    value: Tensor
    best: Tensor
    best_slope: Tensor
    best_value: Tensor
    step: Tensor
    rises: Tensor
    looked_value: Tensor
    just_halved: Tensor

    @staticmethod
    def begin(point: Tensor, loss: Network, eps: float) -> _State:
        value, slope = _value_and_slope(point, loss)
        step = torch.full((len(point), 1, 1, 1), 2 * eps / 255, device=point.device)
        rises, halved = torch.zeros_like(value), torch.ones_like(value, dtype=torch.bool)
        return _State(point, point, slope, value, point, slope, value, step, rises, value, halved)

    def advance(self, images: Tensor, loss: Network, eps: float, *, first: bool) -> None:
        """One step, and what it brought."""
        moved = project(self.point + self.step * self.slope.sign(), images, eps)
        if not first:
            along = MOMENTUM * (moved - self.point) + (1 - MOMENTUM) * (self.point - self.before)
            moved = project(self.point + along, images, eps)
        self.before, self.point, former = self.point, moved, self.value
        self.value, self.slope = _value_and_slope(self.point, loss)
        self.rises = self.rises + (self.value > former)
        better = self.value > self.best_value
        self.best_value = torch.where(better, self.value, self.best_value)
        self.best = torch.where(_wide(better), self.point, self.best)
        self.best_slope = torch.where(_wide(better), self.slope, self.best_slope)

    def adapt(self, since: int) -> None:
        """Halve the steps that lead nowhere, after ``since`` steps at them, and go on from the best point."""
        stuck = ~self.just_halved & (self.best_value <= self.looked_value)
        halve = (self.rises <= RISING * since) | stuck
        self.step = torch.where(_wide(halve), self.step / 2, self.step)
        self.point = torch.where(_wide(halve), self.best, self.point)
        self.slope = torch.where(_wide(halve), self.best_slope, self.slope)
        self.value = torch.where(halve, self.best_value, self.value)
        self.rises, self.looked_value, self.just_halved = torch.zeros_like(self.rises), self.best_value, halve


def _wide(flags: Tensor) -> Tensor:
    return flags.view(-1, 1, 1, 1)


def _value_and_slope(images: Tensor, loss: Network) -> tuple[Tensor, Tensor]:
    leaf = images.detach().requires_grad_(True)
    with torch.enable_grad():
        value = loss(leaf)
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach().float(), slope
