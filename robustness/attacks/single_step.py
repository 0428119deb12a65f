"""The attacks that take one gradient: FGSM, and R-FGSM, which takes a random step before it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustness.attacks.ascent import ascend, random_start
from robustness.attacks.attack import Attack, Knowledge, required


@dataclass(frozen=True)
class FGSM(Attack):
    """The fast gradient sign method (Goodfellow et al., 2015), L-infinity: one step of the whole budget.

    Images (N, 3, H, W) in [0,1] to the same; ``eps`` in /255.
    """

    eps: float

    @property
    def name(self) -> str:
        """What tables call it."""
        return "FGSM"

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``; draws nothing itself."""
        del generator
        loss = required(knowledge.loss, "a loss", self.name)
        return ascend(images, loss, images, eps=self.eps, step=self.eps, iterations=1)


@dataclass(frozen=True)
class RFGSM(Attack):
    """FGSM from a random corner (R+FGSM; Tramèr et al., 2018), L-infinity.

    First a step of eps/3 along random signs, then one of 2 eps/3 along the signs of the gradient found there, so that
    the two together use the budget and no more: the split of the NRP paper's Appendix F (Tramèr et al. halve it).
    Images (N, 3, H, W) in [0,1] to the same; ``eps`` in /255.
    """

    eps: float

    @property
    def name(self) -> str:
        """What tables call it."""
        return "R-FGSM"

    def __call__(self, images: Tensor, knowledge: Knowledge, generator: torch.Generator) -> Tensor:
        """Adversaries of ``images``."""
        loss = required(knowledge.loss, "a loss", self.name)
        begin = random_start(images, self.eps / 3, "corner", generator)
        return ascend(images, loss, begin, eps=self.eps, step=2 * self.eps / 3, iterations=1)
