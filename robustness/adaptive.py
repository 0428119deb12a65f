"""Attackers who know the purifier: what it is really worth, and whether it only hides its gradients.

Two PGDs through the purifier, both untargeted and with fresh noise at each step (expectation over transformation,
Athalye et al., "Synthesizing robust adversarial examples", 2018), averaged over ``eot`` draws a step:

* BPDA (Athalye et al., "Obfuscated gradients", 2018): forward through the purifier, backward as if it were the
  identity;
* full gradient: backward through the purifier too.

The attacker knows the mode, never the seeds that the defence is then judged with.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from robustness.adversaries import Attack
from robustness.attacks import Objective
from robustness.defences import Defence, Purification
from robustness.observations import Observation
from robustness.victims import Victim

Method = Literal["BPDA", "full-gradient"]
METHODS: tuple[Method, ...] = ("BPDA", "full-gradient")


def straight_through(images: Tensor, defended: Tensor) -> Tensor:
    """The values of ``defended`` with the gradient of ``images``; shapes must broadcast.

    ``images - images`` is exactly zero, so nothing is rounded.
    """
    return defended.detach() + (images - images.detach())


@dataclass(frozen=True)
class AwareLogits:
    """A victim behind a defence, differentiable: log of the mean probabilities over ``defence``'s draws."""

    defence: Defence
    victim: Victim
    method: Method
    generator: torch.Generator

    def __call__(self, images: Tensor) -> Tensor:
        """Log-probabilities (N, classes), whose cross-entropy is that of the defended decision."""
        seeds = torch.randint(2**62, (len(images),), generator=self.generator).tolist()
        return self.victim.log_probabilities(self._versions(images, seeds))

    def _versions(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        if self.method == "full-gradient":
            return self.defence.draws(images, seeds)
        with torch.no_grad():
            defended = self.defence.draws(images.detach(), seeds)
        return straight_through(images.unsqueeze(1), defended)


def aware_attack(method: Method, defence: Purification, victim: Victim, *, eps: int, steps: int, eot: int) -> Attack:
    """PGD through ``defence``, whose noisy modes are drawn ``eot`` times a step."""
    known = defence.with_draws(1 if defence.mode.static else eot)

    def logits(generator: torch.Generator) -> Objective:
        return AwareLogits(known, victim, method, generator)

    name = f"{method} PGD-{steps}" if known.draw_count == 1 else f"{method} PGD-{steps} EOT-{eot}"
    return Attack(name, victim.name, f"{victim.card.sha256} behind {known!r}", eps, steps, logits)


def suspicions(unaware: Iterable[Observation], aware: Iterable[Observation]) -> list[str]:
    """Where knowing the purifier did not help the attacker: the sign of masked gradients (Athalye et al., 2018).

    Compares with the unaware untargeted attack on the same victim, budget, defence and photos.
    """
    blind = {(o.victim, o.scenario.eps, o.defence): o.correct for o in unaware if "untargeted" in o.scenario.attack}
    found = []
    for seen in aware:
        count = len(seen.correct)
        before = int(blind[seen.victim, seen.scenario.eps, seen.defence][:count].sum())
        after = int(seen.correct.sum())
        if after > before:
            found.append(
                f"{seen.scenario.title} on {seen.victim} behind {seen.defence}: {after} of {count} photos withstand "
                f"an attacker who knows the purifier, {before} one who does not; its gradients are probably masked"
            )
    return found
