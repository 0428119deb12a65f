"""PGD, targeted and untargeted, with restarts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustness.attacks.ascent import Start, ascend, random_start
from robustness.attacks.attack import Attack, Knowledge, required
from robustness.attacks.title import titled


@dataclass(frozen=True)
class PGD(Attack):
    """Projected gradient descent (Madry et al., 2018), L-infinity, on the victim's own loss.

    Untargeted: raise the loss of the truth, by default in steps of max(1, eps/4). Targeted: lower the loss of a random
    wrong answer, by default in steps of eps/8, as the NRP paper's Table 1 does (10 iterations, step 2/255 at 16/255).
    Of ``restarts`` runs from different starting points, the adversary of the highest loss is kept for each image.
    Images (N, 3, H, W) in [0,1] to the same; ``eps`` and ``step`` in /255.
    """

    eps: float
    targeted: bool = False
    step: float | None = None
    iterations: int = 10
    start: Start = "uniform"
    restarts: int = 1

    @property
    def name(self) -> str:
        """What tables call it."""
        runs = f" x{self.restarts}" if self.restarts > 1 else ""
        base = f"PGD-{self.iterations}{runs} {'targeted' if self.targeted else 'untargeted'}"
        return titled(base, self, "targeted", "iterations", "restarts")

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``."""
        known = knowledge.targeted_loss if self.targeted else knowledge.loss
        loss = required(known, "a targeted loss" if self.targeted else "a loss", self.name)
        usual = self.eps / 8 if self.targeted else max(1.0, self.eps / 4)
        step = usual if self.step is None else self.step

        def once() -> Tensor:
            begin = random_start(images, self.eps, self.start, generator)
            return ascend(images, loss, begin, eps=self.eps, step=step, iterations=self.iterations)

        best = once()
        if self.restarts == 1:
            return best
        with torch.no_grad():
            height = loss(best)
            for _ in range(self.restarts - 1):
                other = once()
                reached = loss(other)
                higher = reached > height
                best = torch.where(higher.view(-1, 1, 1, 1), other, best)
                height = torch.where(higher, reached, height)
        return best
